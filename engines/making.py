"""Making an export: archives here, everything else in a child process. Does not import torch."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from filelock import FileLock

import errors
from disk_space import check_room
from engines.options import ExportOptions, ExportRequest, file_name
from engines.store import ExportRecord, ExportStore, read_record
from errors import BackendTimeout, VisionLoopError
from files import atomic_folder, sha256_of
from models_store.archive import export_archive, facts_of
from models_store.description import WEIGHTS_FILE
from models_store.subprocesses import ChildTimeout, run_module
from models_store.versions import ModelVersion, unless_deleted
from settings import Settings

log = logging.getLogger("visionloop")

Report = Callable[[str, float], None]
"""Receives what is being done and the completed share, 0 to 1."""

CODES = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, VisionLoopError)
}


def make_export(
    model: ModelVersion,
    request: ExportRequest,
    options: ExportOptions,
    settings: Settings,
    timeout: float,
    report: Report = lambda step, share: None,
) -> ExportRecord:
    """Make an export, or find the one that exists.

    Args:
        model: The version.
        request, options: The options as sent, and in full.
        settings: Provide the home and the reserve of the disk.
        timeout: Maximum seconds.
        report: Receives the progress.

    Raises:
        VisionLoopError: It cannot be made, or does not reproduce the model; nothing is left.
        BackendTimeout: It took longer than `timeout`.
    """
    store = ExportStore(settings)
    if options.format == "archive":
        return _archive(model, options, store, settings)
    task = {
        "folder": str(model.files()),
        "model_id": model.id,
        "content": model.content,
        "target": str(store.folder(model)),
        "request": request.model_dump(),
    }

    def told(line: str) -> None:
        answer = _read(line)
        if "step" in answer:
            report(answer["step"], answer["progress"])

    try:
        child = run_module("engines.child", [json.dumps(task)], timeout, told)
    except ChildTimeout:
        raise BackendTimeout(
            f"The export of {model.id} did not finish within {timeout:.0f} seconds."
        ) from None
    lines = child.stdout.strip().splitlines()
    answer = _read(lines[-1] if lines else "")
    if child.returncode == 0 and "export" in answer:
        record = ExportRecord.model_validate(answer["export"])
        store.share(model, record)
        return record
    if "error" in answer:
        raise CODES.get(str(answer.get("code")), VisionLoopError)(answer["error"])
    log.error("The export ended with %d:\n%s", child.returncode, child.stderr[-4000:])
    reason = (
        f"was killed by signal {-child.returncode}; it may need too much memory"
        if child.returncode < 0
        else "failed unexpectedly; the log has the details"
    )
    raise VisionLoopError(f"{model.id} could not be exported to {options.format}: it {reason}.")


def is_current(record: ExportRecord, model: ModelVersion) -> bool:
    """Whether an export still has everything that it should: an archive holds metrics, too."""
    return record.facts is None or record.facts == _digest(model)


def _archive(
    model: ModelVersion, options: ExportOptions, store: ExportStore, settings: Settings
) -> ExportRecord:
    model.files()
    folder = store.folder(model)
    folder.mkdir(parents=True, exist_ok=True)
    with unless_deleted(model.id, model.path), FileLock(folder / f".{options.key}.lock"):
        found = read_record(folder / options.key)
        if found is not None and found.content == model.content and is_current(found, model):
            return found
        check_room(settings, (model.path / WEIGHTS_FILE).stat().st_size)
        with atomic_folder(folder / options.key) as partial:
            path = export_archive(model, partial / file_name(model.id, options))
            record = ExportRecord(
                id=options.key,
                model_id=model.id,
                content=model.content,
                **options.model_dump(),
                file=path.name,
                size_bytes=path.stat().st_size,
                sha256=sha256_of(path),
                created_at=datetime.now(UTC).isoformat(timespec="seconds"),
                facts=_digest(model),
            )
            record.save(partial)
    store.share(model, record)
    return record


def _digest(model: ModelVersion) -> str:
    return hashlib.sha256(facts_of(model).encode()).hexdigest()


def _read(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:  # a program's own message
        return {}
    return found if isinstance(found, dict) else {}
