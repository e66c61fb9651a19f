"""The exported files of model versions: one folder an export, with the file and its record.

They lie in VISIONLOOP_HOME, not in the model store: they can be made again, and BentoML would take
a folder that is left of a deleted version for a broken model. The registry deletes them with their
version. This module does not import torch.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from engines.options import ExportOptions, Format, Precision
from errors import NotFound
from files import atomic_write
from models_store.versions import ModelVersion
from settings import Settings
from storage.copies import copied
from storage.place import open_trees
from storage.trees import TreeNotFound

RECORD = "export.json"


class ExportRecord(BaseModel):
    """An exported file: its options, digest, and differences from the model that serves.

    Attributes:
        id: Unique among the exports of a version.
        content: `content` of the version that it was made from.
        file: Name of the file, in the folder of this record and in downloads.
        parity: The differences and how they were measured; None if there is nothing to compare.
        notes: What a user of the file has to know.
        versions: Versions of the programs that wrote it.
        gpu: The GPU that an engine was built on and runs on.
        facts: Digest of facts about the version that the file contains, for an archive.
    """

    model_config = ConfigDict(extra="ignore")

    id: str
    model_id: str
    content: str
    format: Format
    precision: Precision
    imgsz: int
    dynamic: bool
    max_batch: int
    file: str
    size_bytes: int
    sha256: str
    created_at: str
    parity: dict[str, Any] | None = None
    notes: list[str] = []
    versions: dict[str, str] = {}
    gpu: str | None = None
    facts: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The export in the form of responses."""
        return self.model_dump(exclude={"content", "facts"})

    def save(self, folder: Path) -> None:
        atomic_write(folder / RECORD, self.model_dump_json(indent=1))


class ExportStore:
    """Finds and deletes exports."""

    def __init__(self, settings: Settings) -> None:
        self._root = settings.paths.exports
        self._locks = settings.paths.locks
        self._trees = open_trees(settings)

    def folder(self, model: ModelVersion) -> Path:
        """The folder of a version's exports; it need not exist."""
        return self._root / model.name / model.version

    def list(self, model: ModelVersion) -> list[ExportRecord]:
        """The exports of a version, the newest first."""
        local = self.folder(model).glob(f"*/{RECORD}")
        found = (
            self._shared(model)
            if self._trees.shared
            else [read_record(path.parent) for path in local]
        )
        usable = [r for r in found if r is not None and r.content == model.content]
        return sorted(usable, key=lambda record: record.created_at, reverse=True)

    def find(self, model: ModelVersion, options: ExportOptions) -> ExportRecord | None:
        """The export with these options, if there is one; of engines the newest, for any GPU."""
        names = ("format", "precision", "imgsz", "dynamic", "max_batch")
        wanted = options.model_dump(include=set(names))
        if options.format in ("pt", "archive"):
            wanted.pop("imgsz")
        for record in self.list(model):
            if record.model_dump(include=set(wanted)) == wanted:
                return record
        return None

    def path(self, model: ModelVersion, record: ExportRecord) -> Path:
        """The file of an export. From an object store it is downloaded: not on the event loop.

        Raises:
            BackendUnavailable: The store cannot be used now.
            NotFound: The export has been deleted.
        """
        folder = self.folder(model) / record.id
        if self._trees.shared and read_record(folder) != record:  # another one of before
            shutil.rmtree(folder, ignore_errors=True)
        return copied(self._trees, _key(model, record.id), folder, self._locks) / record.file

    def share(self, model: ModelVersion, record: ExportRecord) -> None:
        """Store an export that was made here for other machines; its record last."""
        key = _key(model, record.id)
        self._trees.put(self.folder(model) / record.id, key)
        self._trees.put_bytes(key, record.model_dump_json().encode())

    def _shared(self, model: ModelVersion) -> Sequence[ExportRecord | None]:
        """The records in the object store."""
        found = []
        for key in self._trees.list_bytes(_key(model)):
            with contextlib.suppress(TreeNotFound, ValidationError):  # deleted, or damaged
                found.append(ExportRecord.model_validate_json(self._trees.get_bytes(key)))
        return found

    def delete(self, model: ModelVersion, export_id: str) -> ExportRecord:
        """Delete an export.

        Raises:
            NotFound: There is none with this id; the message lists the known ones.
        """
        known = self.list(model)
        for record in known:
            if record.id == export_id:
                self._trees.delete_bytes(_key(model, record.id))
                self._trees.delete(_key(model, record.id))
                shutil.rmtree(self.folder(model) / record.id, ignore_errors=self._trees.shared)
                return record
        listed = ", ".join(record.id for record in known) or "none"
        raise NotFound(f"{model.id} has no export {export_id[:80]!r}. Known: {listed}.")


def _key(model: ModelVersion, export_id: str = "") -> str:
    """The key of an export, or the prefix of all of a version."""
    return f"exports/{model.name}/{model.version}/{export_id}".rstrip("/")


def read_record(folder: Path) -> ExportRecord | None:
    """The record in an export's folder; None if it or its file is missing or damaged."""
    try:
        record = ExportRecord.model_validate_json((folder / RECORD).read_bytes())
        intact = (folder / record.file).stat().st_size == record.size_bytes
    except (OSError, ValidationError):
        return None
    return record if intact and record.id == folder.name else None
