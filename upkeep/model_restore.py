"""Brings one model of a backup back into a home that is in use."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from disk_space import check_room
from errors import NotFound
from files import temporary_folder
from models_store.current import keep_current
from models_store.decision_log import by_user
from models_store.names import split_tag
from models_store.registry import Registry
from models_store.store import MANIFEST, ModelStore, content_hash
from models_store.versions import ModelVersion
from upkeep.backup import Stage, quiet
from upkeep.manifest import MODELS, BackupDamaged, Entry, Manifest
from upkeep.restore import unpack
from upkeep.storage import Backup, chunks, opened

COPIES = 2  # of its files that are written: unpacked, and in the store
LISTED = 20


@dataclass(frozen=True)
class RestoredModel:
    """A model that came back.

    Attributes:
        model: The version in the registry.
        was: Its id in the backup.
        new: Whether it is a new version; otherwise the registry had one with the same weights.
    """

    model: ModelVersion
    was: str
    new: bool


def restore_model(
    registry: Registry, path: Path, model_id: str, stage: Stage = quiet
) -> RestoredModel:
    """Publish a model of a backup as a new version of its name, which is not promoted.

    A server may run meanwhile. Nothing else changes, and the name goes on to mean what it meant: if
    no version of it was promoted, the newest one before this is.

    Args:
        registry: Gets the model.
        path: The backup.
        model_id: `name:version`; of a bare name, the version that was promoted, else its newest.
        stage: Shows the progress.

    Raises:
        BackupDamaged: A file of the model is missing or damaged; nothing was changed.
        NotFound: The backup has no such model.
        InsufficientStorage: There is too little room.
    """
    backup = opened(path)
    manifest = backup.manifest()
    name, version = _chosen(backup, manifest, model_id)
    start = f"{MODELS}/{name}/{version}/"
    part = replace(
        manifest, entries=tuple(one for one in manifest.entries if one.path.startswith(start))
    )
    size = sum(one.size for one in part.entries)
    check_room(registry.settings, COPIES * size)
    with temporary_folder(registry.settings.paths.scratch) as folder:
        unpacked = ModelStore(folder)
        unpack(backup, part, {MODELS: unpacked.models}, stage("restoring and verifying", size))
        stored, problems = unpacked.scan()
        if not stored:
            raise BackupDamaged(f"The model cannot be used: {' '.join(problems) or 'not ours.'}")
        facts = stored[0].metadata
        (stored[0].path / MANIFEST).unlink()
        origin = {"id": f"{name}:{version}", **{k: facts.get(k) for k in ("created_at", "source")}}
        source = {"kind": "import", "file": path.name[:200], "origin": origin}
        before = {one.id: one.content for one in registry.list() if one.name == name}
        if content_hash(stored[0].path) not in before.values():
            keep_current(name, registry, by_user().by, "one was restored from a backup")
        made = registry.publish(
            stored[0].path, name, source, facts.get("metrics"), unless_present=True
        )
    return RestoredModel(made, f"{name}:{version}", made.id not in before)


def _chosen(backup: Backup, manifest: Manifest, model_id: str) -> tuple[str, str]:
    """Name and version of the model that is meant."""
    files = {entry.path: entry for entry in manifest.entries}
    known = {tuple(path.split("/")[1:3]) for path in files if path.count("/") > 2}
    models = sorted(pair for pair in known if f"{MODELS}/{'/'.join(pair)}/{MANIFEST}" in files)
    with suppress(NotFound):
        name, version = split_tag(model_id)
        for pointer in () if version else ("promoted", "latest"):
            entry = files.get(f"{MODELS}/{name}/{pointer}")
            version = version or (_text(backup, entry) if entry else None)
        if version is not None and (name, version) in models:
            return name, version
    listed = _listed([":".join(pair) for pair in models])
    raise NotFound(f"The backup has no model {model_id[:80]!r}. It has: {listed}.")


def _text(backup: Backup, entry: Entry) -> str:
    if entry.sha256 is None:  # a folder, which no backup of ours has there
        return ""
    return b"".join(chunks(backup, entry.sha256, entry.size, entry.path)).decode("ascii", "replace")


def _listed(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - LISTED} more" if len(ids) > LISTED else ""
    return f"{', '.join(ids[:LISTED])}{more}" if ids else "none"
