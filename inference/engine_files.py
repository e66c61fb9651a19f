"""The stored files of a model: checked when it is loaded.

The ONNX file is rebuilt if it is damaged, and renewed if a version before exported it:
`python -m inference.engine_files FOLDER`, a child process of the lowest priority.

This module imports no torch; the export runs in a child process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from disk_space import NO_ROOM, is_disk_full
from errors import BackendUnavailable, InsufficientStorage, ModelDamaged, VisionLoopError
from files import sha256_of
from inference.device import device
from inference.preprocess import LetterboxKind
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
from settings import Settings
from shell import Parser

log = logging.getLogger("visionloop.inference")

LOCK = "visionloop-engines.lock"  # in BENTOML_HOME; one rebuild at a time
REBUILD_TIMEOUT = 600.0  # seconds
RENEWAL_TIMEOUT = 3600.0  # seconds, at the lowest priority on a busy machine
LOWEST = 19  # niceness
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
    with _one_export():
        if is_intact(folder):
            return
        log.warning("%s: %s is damaged; it is rebuilt", _name(folder), ONNX_FILE)
        if (reason := _export(folder, REBUILD_TIMEOUT)) is not None:
            raise damaged(folder, reason)


def is_outdated(folder: Path, description: ModelDescription) -> bool:
    """Whether the ONNX file takes squares only, because a version before exported it."""
    return description.any_size and engines(folder).get("onnx", {}).get("size") != "any"


def renew(folder: Path, description: ModelDescription) -> str | None:
    """Export an outdated ONNX file again from the weights.

    The old file is replaced at the end, when the new one has reproduced PyTorch. If another
    process has done so in the meantime, nothing is done.

    Args:
        folder: The model's folder.
        description: The model's description.

    Returns:
        Why the file could not be made, so that the old one stays; None if it is up to date.
    """
    if not is_outdated(folder, description):
        return None
    if not os.access(folder, os.W_OK):
        return "the model store is read-only"
    try:
        with _one_export():
            if not is_outdated(folder, description):
                return None
            return _export(folder, RENEWAL_TIMEOUT)
    except VisionLoopError as error:
        return error.message
    except OSError as error:
        return error.strerror or str(error)


def served_letterbox(
    folder: Path, description: ModelDescription, settings: Settings
) -> LetterboxKind | None:
    """The letterbox of the engine that serves a model on this machine; None for a classifier."""
    if not description.any_size:
        return None
    return "square" if device(settings) == "cpu" and is_outdated(folder, description) else "rect"


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


@contextlib.contextmanager
def _one_export() -> Iterator[None]:
    """Lets one process at a time export a file.

    Raises:
        BackendUnavailable: Another process is exporting for too long.
    """
    try:
        with FileLock(bento_home() / LOCK, timeout=REBUILD_TIMEOUT):
            yield
    except Timeout:
        raise BackendUnavailable("Another model is being rebuilt. Try again.", 30) from None


def _export(folder: Path, timeout: float) -> str | None:
    """Export the ONNX file. Returns why that is not possible; None if it was done.

    Raises:
        InsufficientStorage: The disk is full.
    """
    content = published_content(folder)
    if content is not None and content_hash(folder) != content:
        return (
            f"{ONNX_FILE} and the weights it could be rebuilt from are not as they were published"
        )
    try:
        child = run_module("models_store.export", [folder], timeout)
    except ChildTimeout:
        return f"{ONNX_FILE} could not be rebuilt in time"
    if child.returncode == 0:
        return None
    lines = child.stderr.strip().splitlines() or [f"exit code {child.returncode}"]
    log.error("%s: the export failed: %s", _name(folder), child.stderr.strip())
    if is_disk_full(OSError(child.stderr)):
        raise InsufficientStorage(NO_ROOM)
    reason = lines[-1].removeprefix(f"{folder.name}: ").rstrip(".")[:300]
    return f"{ONNX_FILE} cannot be rebuilt: {reason}"


def _name(folder: Path) -> str:
    return f"{folder.parent.name}:{folder.name}"


def main() -> int:
    """Renew the ONNX file of a model; prints why the old one stays, if it does."""
    parser = Parser(
        prog="python -m inference.engine_files",
        description="Makes the ONNX file of a model again if a version before exported it.",
    )
    parser.add_argument("folder", type=Path, help="folder with model.json")
    folder = parser.parse_args().folder
    os.nice(LOWEST)  # the export inherits it
    try:
        reason = renew(folder, load_description(folder))
    except (VisionLoopError, OSError) as error:  # deleted or damaged in the meantime
        reason = str(error)
    print(reason or "")
    return int(reason is not None)


if __name__ == "__main__":
    sys.exit(main())
