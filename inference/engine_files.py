"""The stored files of a model: checked when it is loaded, the ONNX file rebuilt if it is damaged.

This module imports no torch; the export runs in a child process.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from disk_space import NO_ROOM, is_disk_full
from errors import BackendUnavailable, InsufficientStorage, ModelDamaged
from files import sha256_of
from models_store.description import (
    DESCRIPTION_FILE,
    ONNX_FILE,
    WEIGHTS_FILE,
    ModelDescription,
    engines,
    record,
)
from models_store.store import bento_home, content_hash, published_content
from models_store.subprocesses import ChildTimeout, run_module

log = logging.getLogger("visionloop.inference")

LOCK = "visionloop-engines.lock"  # in BENTOML_HOME; one rebuild at a time
REBUILD_TIMEOUT = 600.0  # seconds
REMEDY = (
    "Restore its folder in BENTOML_HOME from a backup, import or train it again, or activate "
    "another model."
)


def load_description(folder: Path) -> ModelDescription:
    """The description of a stored model.

    Raises:
        ModelDamaged: It cannot be read.
    """
    try:
        return ModelDescription.load(folder)
    except (ValidationError, UnicodeDecodeError):
        raise damaged(folder, f"its {DESCRIPTION_FILE} cannot be read") from None


def is_intact(folder: Path) -> bool | None:
    """Whether the ONNX file has the digest that its export recorded; None if none is recorded."""
    recorded = engines(folder).get("onnx", {}).get("sha256")
    try:
        return None if recorded is None else sha256_of(folder / ONNX_FILE) == recorded
    except FileNotFoundError:
        return False


def accept(folder: Path) -> None:
    """Record the digest of an ONNX file that works, of a version before digests were recorded."""
    with contextlib.suppress(OSError):  # perhaps the store is read-only; then at the next load
        record(
            folder,
            "onnx",
            engines(folder).get("onnx", {}) | {"sha256": sha256_of(folder / ONNX_FILE)},
        )


def rebuild(folder: Path) -> None:
    """Export the ONNX file again from the weights; takes seconds to minutes.

    If another process has done so in the meantime, nothing is done.

    Raises:
        ModelDamaged: The weights are damaged too, or the export failed.
        InsufficientStorage: The disk is full.
        BackendUnavailable: Another process is rebuilding a model for too long.
    """
    try:
        with FileLock(bento_home() / LOCK, timeout=REBUILD_TIMEOUT):
            if is_intact(folder):
                return
            log.warning("%s: %s is damaged; it is rebuilt", _name(folder), ONNX_FILE)
            _export(folder)
    except Timeout:
        raise BackendUnavailable("Another model is being rebuilt. Try again.", 30) from None


def damaged(folder: Path, what: str) -> ModelDamaged:
    """The error for a model that cannot be rebuilt."""
    return ModelDamaged(f"The model '{_name(folder)}' is damaged: {what}. {REMEDY}")


def signature(folder: Path) -> object:
    """A value that changes when a file of the model is replaced or written."""
    found = []
    for name in (DESCRIPTION_FILE, WEIGHTS_FILE, ONNX_FILE):
        try:
            stat = (folder / name).stat()
        except OSError:
            continue
        found.append((name, stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return tuple(found)


def _export(folder: Path) -> None:
    content = published_content(folder)
    if content is not None and content_hash(folder) != content:
        raise damaged(
            folder,
            f"{ONNX_FILE} and the weights it could be rebuilt from are not as they were published",
        )
    try:
        child = run_module("models_store.export", [folder], REBUILD_TIMEOUT)
    except ChildTimeout:
        raise damaged(folder, f"{ONNX_FILE} could not be rebuilt in time") from None
    if child.returncode != 0:
        lines = child.stderr.strip().splitlines() or [f"exit code {child.returncode}"]
        log.error("%s: the export failed: %s", _name(folder), child.stderr.strip())
        if is_disk_full(OSError(child.stderr)):
            raise InsufficientStorage(NO_ROOM)
        reason = lines[-1].removeprefix(f"{folder.name}: ").rstrip(".")[:300]
        raise damaged(folder, f"{ONNX_FILE} cannot be rebuilt: {reason}")


def _name(folder: Path) -> str:
    return f"{folder.parent.name}:{folder.name}"
