"""Finds what nobody needs, and deletes it: by the stores' own functions, which refuse what is used.

`plan` changes nothing. `delete` deletes what a plan names; what has come into use since stays.
"""

from __future__ import annotations

import math
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from annotation.cleanup import delete_leftover, leftovers
from annotation.datasets import AnnotatedDatasets
from database import Database
from dataset.shared.datasets import MIN_AGE
from engines.store import ExportStore, read_record
from errors import Conflict, NotFound, VisionLoopError
from evaluation.store import EvaluationStore
from files import PARTIAL, delete_if_abandoned, is_abandoned, temporary_folders
from home_paths import HomePaths
from inference.cpu.engine_choice import choice_folder
from jobs.job import Job
from jobs.lost_jobs import delete_lost_job, lost_jobs
from jobs.states import FINAL
from jobs.store import JobStore
from models_store.decision_log import COMMAND, DecisionReason
from models_store.registry import Registry
from models_store.versions import ModelVersion
from monitoring.kept_images import KeptImages
from monitoring.shadow_store import ShadowStore
from upkeep.kinds import DAYS, KEEP, KINDS, Kind
from upkeep.lost_objects import lost_objects
from upkeep.model_use import delete_model, job_that_uses, unfinished_jobs
from upkeep.restore import ASIDE


@dataclass(frozen=True)
class Limits:
    """What is old enough to be deleted.

    Attributes:
        keep: Number of newest versions of each name that stay.
        older_than: Age of the rest; of jobs since their end. Models and temporary files have none.
    """

    keep: int = KEEP
    older_than: timedelta = timedelta(days=DAYS)


@dataclass
class Item:
    """Something that can be deleted.

    Attributes:
        kind: Its kind.
        id: What users know it by.
        bytes: What its deletion frees, about.
        reason: Why nobody needs it.
        delete: Deletes it. Raises VisionLoopError if it is in use.
    """

    kind: Kind
    id: str
    bytes: int
    reason: str
    delete: Callable[[], object] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "id": self.id, "bytes": self.bytes, "reason": self.reason}


@dataclass
class Kept:
    """Something old that stays, and why."""

    kind: Kind
    id: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "id": self.id, "reason": self.reason}


@dataclass
class Plan:
    """What would be deleted, and what stays although it is old."""

    items: list[Item] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        return sum(item.bytes for item in self.items)

    def to_json(self, deleted: Sequence[Item] | None = None) -> dict[str, Any]:
        """The plan as JSON; `deleted`: what `delete` deleted, None for a dry run."""
        return {
            "dry_run": deleted is None,
            "items": [item.to_json() for item in (self.items if deleted is None else deleted)],
            "kept": [one.to_json() for one in self.kept],
            "bytes": sum(item.bytes for item in (self.items if deleted is None else deleted)),
        }


@dataclass
class Stores:
    """The stores of a home."""

    registry: Registry
    jobs: JobStore
    evaluations: EvaluationStore
    annotated: AnnotatedDatasets
    kept: KeptImages

    @classmethod
    def of(cls, database: Database) -> Stores:
        return cls(
            Registry(database),
            JobStore(database),
            EvaluationStore(database),
            AnnotatedDatasets(database),
            KeptImages(database.settings),
        )


def plan(
    stores: Stores,
    kinds: Iterable[Kind] = KINDS,
    limits: Limits = Limits(),
    why: DecisionReason = COMMAND,
) -> Plan:
    """What of some kinds can be deleted. Reads many files: call it off the event loop."""
    found = Plan()
    finders: dict[Kind, Callable[[], Iterator[Item | Kept]]] = {
        "models": lambda: _models(stores, limits, why),
        "exports": lambda: _exports(stores.registry, limits),
        "engines": lambda: _engines(stores.registry, limits),
        "jobs": lambda: _jobs(stores.jobs, limits),
        "kept": lambda: _kept(stores.kept, limits),
        "uploads": lambda: _uploads(stores, limits),
        "thumbnails": lambda: _thumbnails(stores.registry.settings.paths, limits),
        "temporary": lambda: _temporary(stores.registry),
        "aside": lambda: _aside(stores.registry, limits),
    }
    for kind in dict.fromkeys(kinds):
        for one in finders[kind]():
            if isinstance(one, Item):
                found.items.append(one)
            else:
                found.kept.append(one)
    return found


def delete(planned: Plan) -> list[Item]:
    """Delete what a plan names. Returns what was deleted; the rest is added to `planned.kept`."""
    done = []
    for item in planned.items:
        try:
            item.delete()
        except (NotFound, FileNotFoundError):  # somebody else has deleted it
            continue
        except (VisionLoopError, OSError) as error:
            planned.kept.append(Kept(item.kind, item.id, getattr(error, "message", str(error))))
        else:
            done.append(item)
    return done


def freed_by(*paths: Path) -> int:
    """The bytes that the deletion of files and folders frees.

    A file with names elsewhere (hard links) frees nothing; links are not followed.
    """
    sizes: dict[tuple[int, int], tuple[int, int, int]] = {}  # inode → links, names seen, bytes
    for path in _files(paths):
        try:
            status = path.lstat()
        except OSError:  # deleted meanwhile
            continue
        if stat.S_ISREG(status.st_mode):
            key = (status.st_dev, status.st_ino)
            seen = sizes.get(key, (0, 0, 0))[1]
            sizes[key] = (status.st_nlink, seen + 1, status.st_size)
    return sum(size for links, seen, size in sizes.values() if seen >= links)


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            for top, _, names in os.walk(path):
                yield from (Path(top, name) for name in names)
        else:
            yield path


# --- one function a kind


def _models(stores: Stores, limits: Limits, why: DecisionReason) -> Iterator[Item | Kept]:
    registry = stores.registry
    registry.refresh()
    unfinished = unfinished_jobs(stores.jobs)
    shadow = ShadowStore(registry.database).newest()
    shadowed = {shadow.model_id, shadow.against} if shadow and shadow.ended_at is None else set()
    by_name: dict[str, list[ModelVersion]] = {}
    for model in registry.list():  # the newest first
        by_name.setdefault(model.name, []).append(model)
    for name, versions in by_name.items():
        try:
            back = registry.previous(name).id
        except (Conflict, NotFound):  # nothing to roll back to
            back = None
        for model in versions[limits.keep :]:
            job = job_that_uses(model, unfinished)
            if model.active:
                yield Kept("models", model.id, "active")
            elif model.promoted:
                yield Kept("models", model.id, "promoted")
            elif model.id == back:
                yield Kept("models", model.id, f"`rollback {name}` would promote it")
            elif shadowed & {model.id, model.name}:
                yield Kept("models", model.id, "takes part in the shadow deployment")
            elif job is not None:
                yield Kept("models", model.id, f"the job {job.id} uses it")
            else:
                yield _model(stores, model, limits, why)


def _model(stores: Stores, model: ModelVersion, limits: Limits, why: DecisionReason) -> Item:
    evaluations = [stores.evaluations.folder(row) for row in stores.evaluations.history(model.id)]
    images = sum(image.size_bytes for image in stores.kept.list(model.id))

    def remove() -> None:
        stores.registry.refresh()
        current = stores.registry.get(model.id)
        if current.promoted or current.active:
            raise Conflict(f"{model.id} has been promoted or activated meanwhile.")
        use = stores.registry, stores.jobs, stores.evaluations, stores.kept
        delete_model(model.id, why, *use)

    return Item(
        "models",
        model.id,
        freed_by(
            model.path,
            ExportStore(stores.registry.settings).folder(model),
            choice_folder(model.path, stores.registry.settings).parent,
            *evaluations,
        )
        + images,
        f"of {model.created_at[:10]}; {limits.keep} newer ones stay",
        remove,
    )


def _exports(registry: Registry, limits: Limits) -> Iterator[Item]:
    before = datetime.now(UTC) - limits.older_than
    if registry.trees.shared:
        yield from _shared_exports(registry, before)
        return
    for export in sorted(registry.settings.paths.exports.glob("*/*/*/")):
        if export.name.startswith(PARTIAL):  # being written, or `temporary`
            continue
        record = read_record(export)
        try:
            made = datetime.fromtimestamp(export.stat().st_mtime, UTC)
        except FileNotFoundError:  # deleted meanwhile
            continue
        if made <= before:
            name, version = export.parts[-3:-1]
            what = f"{record.format} {record.precision}" if record else "damaged"
            yield Item(
                "exports",
                f"{name}:{version}/{export.name}",
                freed_by(export),
                f"{what}, of {made:%Y-%m-%d}",
                _call(shutil.rmtree, export),
            )


def _shared_exports(registry: Registry, before: datetime) -> Iterator[Item]:
    """The old exports of all machines, in the object store."""
    exports = ExportStore(registry.settings)
    registry.refresh()
    for model in registry.list():
        for record in exports.list(model):
            if datetime.fromisoformat(record.created_at) <= before:
                yield Item(
                    "exports",
                    f"{model.id}/{record.id}",
                    record.size_bytes,
                    f"{record.format} {record.precision}, of {record.created_at[:10]}",
                    _call(exports.delete, model, record.id),
                )


def _engines(registry: Registry, limits: Limits) -> Iterator[Item]:
    """Choices of engines that do not hold on this machine; those that hold stay."""
    before = datetime.now(UTC) - limits.older_than
    for model in registry.list():
        present = choice_folder(model.path, registry.settings)
        for folder in sorted(present.parent.glob("*/")):
            try:
                made = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
            except FileNotFoundError:  # deleted meanwhile
                continue
            if folder != present and made <= before:
                yield Item(
                    "engines",
                    f"{model.id}/{folder.name}",
                    freed_by(folder),
                    f"for another machine, of {made:%Y-%m-%d}",
                    _call(shutil.rmtree, folder),
                )


def _jobs(jobs: JobStore, limits: Limits) -> Iterator[Item | Kept]:
    before = _time(limits)
    bases = {
        str(base.get("value")): job
        for job in unfinished_jobs(jobs)
        if (base := job.recipe.get("base") or {}).get("kind") == "job"
    }
    for job in _ended(jobs):
        ended = job.finished_at or job.updated_at
        if ended > before:
            continue
        if (other := bases.get(job.id)) is not None:
            yield Kept("jobs", job.id, f"the job {other.id} starts from its weights")
            continue
        what = f"{job.mode or job.kind}, {job.status} on {ended[:10]}"
        yield Item("jobs", job.id, freed_by(jobs.folder(job.id)), what, _call(jobs.delete, job.id))
    for job_id in lost_jobs(jobs.database, max(MIN_AGE, limits.older_than.total_seconds())):
        reason = "was deleted; these are copies on this machine, or objects in the store"
        freed = freed_by(jobs.folder(job_id))
        yield Item("jobs", job_id, freed, reason, _call(delete_lost_job, jobs.database, job_id))


def _ended(jobs: JobStore) -> Iterator[Job]:
    last = None
    while page := jobs.list(None, *FINAL, before=last):
        yield from page
        last = page[-1].id


def _kept(kept: KeptImages, limits: Limits) -> Iterator[Item]:
    before = _time(limits)
    for image in reversed(kept.list()):
        if image.kept_at <= before:
            reason = f"of {image.model_id}, kept on {image.kept_at[:10]}"
            yield Item("kept", image.id, image.size_bytes, reason, _call(kept.remove, image.id))


def _thumbnails(paths: HomePaths, limits: Limits) -> Iterator[Item]:
    """The old files of each cache of what the console shows of images."""
    before = time.time() - limits.older_than.total_seconds()
    for folder, what in ((paths.thumbnails, "thumbnails"), (paths.image_index, "indexes")):
        old = [path for path in _files([folder]) if _modified(path) <= before]
        if old:
            delete = _call(_unlink_all, old)
            yield Item("thumbnails", what, freed_by(*old), f"{len(old)} old files", delete)


def _modified(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:  # deleted meanwhile
        return math.inf


def _unlink_all(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _uploads(stores: Stores, limits: Limits) -> Iterator[Item]:
    settings = stores.registry.settings
    seconds = limits.older_than.total_seconds()
    for found in list(leftovers(stores.annotated, stores.jobs, settings, seconds)):
        yield Item(
            "uploads",
            found.dataset_id or found.folder.name,
            freed_by(found.folder),
            "no job uses it",
            _call(delete_leftover, stores.annotated, found),
        )
    for lost in stores.annotated.lost_objects(seconds):
        reason = "no dataset has it"
        yield Item("uploads", lost.key, 0, reason, _call(stores.annotated.delete_lost, lost))
    for one in lost_objects(stores.registry.database, seconds):
        yield Item("uploads", one.key, 0, one.reason, one.delete)


def _temporary(registry: Registry) -> Iterator[Item]:
    home, store = registry.settings.home, registry.store
    found = {*temporary_folders(home), *store.home.glob(f"{PARTIAL}*")}  # one may lie in the other
    for folder in sorted(found):
        if is_abandoned(folder):
            reason = "its process has ended"
            yield Item("temporary", str(folder), freed_by(folder), reason, _call(_gone, folder))
    with store.lock():  # nobody is writing a model now
        staged = store.staged()

    def clear() -> None:
        with store.lock():
            store.clear_staging()

    if staged:
        reason = f"{len(staged)} unfinished folders of models"
        yield Item("temporary", "models", freed_by(*staged), reason, clear)


def _gone(folder: Path) -> None:
    if not delete_if_abandoned(folder):
        raise Conflict(f"{folder.name} is in use.")


def _aside(registry: Registry, limits: Limits) -> Iterator[Item]:
    seconds = limits.older_than.total_seconds()
    for home in dict.fromkeys((registry.settings.home, registry.store.home)):
        for folder in sorted(home.glob(f"{ASIDE}*")):
            try:
                # The folder's own time is that of the restore: what is in it keeps its times.
                age = time.time() - folder.stat().st_mtime
            except FileNotFoundError:  # deleted meanwhile
                continue
            if age >= seconds:
                reason = "a restore moved it aside"
                delete = _call(shutil.rmtree, folder)
                yield Item("aside", str(folder), freed_by(folder), reason, delete)


def _time(limits: Limits) -> str:
    """The time until which something is old, as `database.now` writes it."""
    return (datetime.now(UTC) - limits.older_than).isoformat(timespec="milliseconds")


def _call(function: Callable[..., object], *arguments: Any) -> Callable[[], object]:
    """A function with its arguments; a lambda in a loop would see the last ones only."""
    return lambda: function(*arguments)
