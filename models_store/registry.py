"""The model registry: versions, the promoted version of each name, the active model.

A version is visible once it has a row, which is written after its folder in the Bento model store
is complete. Reads use a snapshot in memory, which follows changes of other processes of this
machine at once, and of other machines within a second, or when a requested model is not in it.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from filelock import Timeout
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from database import FAILURES, Database, State, now
from errors import BackendUnavailable, Conflict, InvalidModelFile, ModelNotFound, ValidationFailed
from files import delete_abandoned
from models_store.decision_log import (
    COMMAND,
    Decision,
    DecisionReason,
    before,
    decisions,
    record,
    step_back,
)
from models_store.description import DESCRIPTION_FILE, ModelDescription
from models_store.maintenance import (
    as_row,
    delete_stray_files,
    reindex,
    set_promoted,
    sweep,
)
from models_store.names import check_name, split_tag
from models_store.shared.deleted import delete_copies
from models_store.shared.model_trees import ModelTrees
from models_store.shared.repair import card_of
from models_store.store import LOCK_TIMEOUT, ModelStore, StoredModel, content_hash, new_version
from models_store.tables import (
    ModelEventKind,
    Promotion,
    PublishedModel,
    generation,
    raise_generation,
    record_event,
)
from models_store.versions import SHOWN_NAMES, ModelVersion, Snapshot, load_snapshot
from storage.place import open_trees

log = logging.getLogger(__name__)

REFRESH_SECONDS = 1.0
REFRESH_PATIENCE = 0.05  # seconds to wait for a locked database
MISS_SECONDS = 0.05  # shortest time between reloads because of an unknown model
Sentences = list[str]


class Registry:
    """The registry: reads and changes models; safe to use from several threads and processes."""

    def __init__(
        self,
        database: Database,
        store: ModelStore | None = None,
        *,
        refresh_seconds: float = REFRESH_SECONDS,
        miss_seconds: float = MISS_SECONDS,
    ) -> None:
        self.database = database
        self.settings = database.settings
        self.store = store or ModelStore()
        self.trees = ModelTrees(open_trees(self.settings), self.store)
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._refresh_seconds = refresh_seconds
        self._miss_seconds = miss_seconds
        self._checked = -refresh_seconds
        self._forced = False  # whether it is to be read now
        self._change = 0  # of the database, when the snapshot was read

    # --- reading

    def list(self) -> list[ModelVersion]:
        """Every version, by name, the newest first."""
        return list(self._current().all)

    def get(self, model_id: str) -> ModelVersion:
        """The version `name:version`; for a bare name the promoted version, else the newest.

        A version may be shortened to a unique beginning.

        Raises:
            ModelNotFound: There is none; the message lists the known names.
            ValidationFailed: Several versions begin with it.
        """
        snapshot = self._current()
        name, version = split_tag(model_id)
        found = snapshot.find(name, version)
        if found is None and time.monotonic() - self._checked >= self._miss_seconds:
            self.refresh()
            snapshot = self._current()
            found = snapshot.find(name, version)
        if found is None and version:
            found = snapshot.begins(name, version)
        if found is None:
            raise ModelNotFound(f"No model {model_id.strip()!r}. {snapshot.known(name)}")
        return found

    def active(self) -> ModelVersion:
        """The active model, which serves requests that name no model.

        Raises:
            ModelNotFound: No model was activated, or it was deleted.
        """
        snapshot = self._current()
        if snapshot.active is None:
            raise ModelNotFound(
                f"No model is active. {snapshot.known()} Activate one with "
                "`visionloop models activate NAME` or POST /models/active."
            )
        found = snapshot.find(*split_tag(snapshot.active))
        if found is None:
            raise ModelNotFound(
                f"The active model {snapshot.active!r} was deleted. {snapshot.known()}"
            )
        return found

    def active_pointer(self) -> str | None:
        """The activated name (follows promotions) or name:version (pinned)."""
        return self._current().active

    def resolve(self, model_id: str | None) -> ModelVersion:
        """`get`, or the active model for None and the empty string."""
        return self.get(model_id) if model_id and model_id.strip() else self.active()

    def refresh(self) -> None:
        """Reload the snapshot if another process changed the registry."""
        self._forced = True
        self._current()

    # --- changing

    def publish(
        self,
        folder: Path,
        name: str,
        source: Mapping[str, Any],
        metrics: Mapping[str, Any] | None = None,
        promote: bool = False,
        unless_present: bool = False,
    ) -> ModelVersion:
        """Copy a complete model folder into the store and make it visible.

        Args:
            folder: Contains model.json, model.safetensors and model.onnx.
            name: Model name; a new version is created.
            source: Origin: `kind` (starter, import, train), `job_id`, `parent` and other facts.
            metrics: Metrics of its evaluation.
            promote: Make it the promoted version of its name.
            unless_present: Return the version of this name with the same weights and
                description instead, if there is one.

        Raises:
            ValidationFailed: The name is not valid.
            InvalidModelFile: The folder is incomplete.
        """
        check_name(name)
        try:
            description = ModelDescription.load(folder)
            content = content_hash(folder)
        except FileNotFoundError as error:
            missing = Path(str(error.filename)).name
            raise InvalidModelFile(f"The model folder lacks {missing}.") from error
        except ValidationError as error:
            raise InvalidModelFile(f"{DESCRIPTION_FILE} is not valid: {error}") from error
        version = new_version()
        uploaded = self.trees.shared and not (unless_present and self._with_content(name, content))
        if uploaded:
            self.trees.upload(folder, name, version)  # before the lock: it may take minutes
        with self._writing():
            if unless_present and (known := self._with_content(name, content)):
                self.trees.remove(name, version)
                if promote:
                    self._promote(known, DecisionReason(by=str(source.get("kind"))))
                return self.get(known.id)
            created_at = self._later_than_others(name)
            metadata = {
                "type": description.type,
                "created_at": created_at,
                "source": dict(source),
                "metrics": dict(metrics) if metrics is not None else None,
                "content": content,
            }
            try:
                if not uploaded:  # the version with this content was deleted meanwhile
                    self.trees.upload(folder, name, version)
                path = self.store.add(folder, name, version, metadata)
                row = as_row(StoredModel(name, version, path, metadata, True), description)
                self.trees.unpublish(name, version)
                self.trees.write_card(name, version, card_of(row))
                with self.database.write() as session:
                    session.add(row)
                    _record_published(session, name, version, source)
                    if promote:
                        why = DecisionReason(
                            by=str(source.get("kind")), job_id=source.get("job_id")
                        )
                        record(session, "promoted", name, version, why)
                        set_promoted(session, name, version)
                    raise_generation(session)
            except BaseException:
                if not self._row_exists(name, version):  # a failed commit may have been written
                    self.store.clear_staging()
                    self.store.remove(name, version)
                    with suppress(BackendUnavailable):  # then `sweep` does it
                        self.trees.remove(name, version)
                raise
            with _repaired_later():
                self.store.mark_published(name, version)
                if self.trees.shared:
                    self.store.mark_copy(name, version)
                self.trees.publish(name, version)
                if promote:
                    self.trees.write_promoted(name, version)
        self.refresh()
        return self.get(f"{name}:{version}")

    def activate(self, model_id: str, by: str | None = None) -> ModelVersion:
        """Serve this model to requests that name none.

        A bare name follows promotions; `name:version` is pinned. `by` is who asked for it.
        """
        self.refresh()
        found = self.get(model_id)
        pointer = found.id if split_tag(model_id)[1] else found.name
        with self.database.write() as session:
            if session.get(PublishedModel, (found.name, found.version)) is None:
                raise ModelNotFound(
                    f"No model {found.id!r}: it was deleted. GET /models lists the others."
                )
            row = session.get(State, "active")
            details = {"pointer": pointer, "before": row.text if row else None}
            if row is None:
                session.add(State(key="active", text=pointer))
            else:
                row.text = pointer
            record_event(session, "activated", (found.name, found.version), details, by)
            raise_generation(session)
        self.refresh()
        return self.get(found.id)

    def candidate(self, model_id: str) -> ModelVersion:
        """The version to promote: `name:version`, or the newest version of a bare name."""
        self.refresh()
        name, version = split_tag(model_id)
        found = self.get(model_id)
        return found if version else self._current().versions[name][0]

    def promoted(self, name: str) -> ModelVersion | None:
        """The promoted version of a name, if there is one."""
        return next((v for v in self._current().versions.get(name, ()) if v.promoted), None)

    def promote(
        self, model_id: str, why: DecisionReason = COMMAND, expected_promoted: str | None = None
    ) -> ModelVersion:
        """Promote a version; of a bare name its newest version.

        Args:
            model_id: Resolved by `candidate`.
            why: Recorded with the decision.
            expected_promoted: The version that is currently promoted, to the caller's knowledge;
                an empty string: no version is; None: do not check.

        Raises:
            Conflict: Another version than `expected_promoted` has been promoted since.
        """
        found = self.candidate(model_id)
        with self._writing():
            self._promote(found, why, expected_promoted)
        return self.get(found.id)

    def refuse(self, model_id: str, why: DecisionReason) -> None:
        """Record that a version was not promoted."""
        found = self.candidate(model_id)
        with self.database.write() as session:
            record(session, "refused", found.name, found.version, why)

    def previous(self, name: str) -> ModelVersion:
        """The version that `rollback` would promote. Raises as `rollback`."""
        with self.database.read() as session:
            return self.get(f"{name}:{before(session, self.get(name).name)}")

    def rollback(self, name: str, why: DecisionReason = COMMAND) -> ModelVersion:
        """Promote the previously promoted version again. Raises as `step_back`."""
        self.refresh()
        name = self.get(name).name
        with self._writing():
            with self.database.write() as session:
                version = step_back(session, name, why)
            with _repaired_later():
                self.trees.write_promoted(name, version)
        self.refresh()
        return self.get(f"{name}:{version}")

    def decisions(self, name: str) -> Sequence[Decision]:
        """The promotion decisions on a name, the newest first."""
        with self.database.read() as session:
            return decisions(session, self.get(name).name)

    def set_metrics(self, model_id: str, metrics: Mapping[str, Any]) -> ModelVersion:
        """Replace the metrics of a version."""
        self.refresh()
        found = self.get(model_id)
        with self._writing():
            with self.database.write() as session:
                row = session.get(PublishedModel, (found.name, found.version))
                if row is None:
                    raise ModelNotFound(
                        f"No model {found.id!r}: it was deleted. GET /models lists the others."
                    )
                row.metrics = dict(metrics)
                raise_generation(session)
            metadata = {
                "type": found.description.type,
                "created_at": found.created_at,
                "source": found.source,
                "metrics": dict(metrics),
                "content": found.content,
            }
            if found.is_here:
                self.store.write_metadata(found.name, found.version, metadata)
            with _repaired_later():
                self.trees.write_card(found.name, found.version, card_of(row))
        self.refresh()
        return self.get(found.id)

    def delete(self, model_id: str, why: DecisionReason = COMMAND) -> ModelVersion:
        """Delete a version: first its row, then its files.

        Raises:
            Conflict: It is the active model.
            ValidationFailed: A bare name with several versions.
        """
        self.refresh()
        found = self.get(model_id)
        versions = self._current().versions[found.name]
        if split_tag(model_id)[1] is None and len(versions) > 1:
            ids = ", ".join(v.id for v in versions[:SHOWN_NAMES])
            raise ValidationFailed(f"{found.name!r} has several versions; name one of: {ids}.")
        with self._writing():
            with self.database.write() as session:
                self._refuse_active(session, found)
                row = session.get(PublishedModel, (found.name, found.version))
                if row is None:
                    raise ModelNotFound(
                        f"No model {found.id!r}: it was deleted. GET /models lists the others."
                    )
                # Marked before its row is deleted, so that `sweep` deletes it after a crash.
                self.store.mark_unpublished(found.name, found.version)
                self.trees.unpublish(found.name, found.version)
                session.delete(row)
                promotion = session.get(Promotion, found.name)
                demoted = promotion is not None and promotion.version == found.version
                if demoted:
                    record(session, "deleted", found.name, found.version, why)
                    session.delete(promotion)
                details = {"promoted": demoted, "reasons": list(why.reasons)}
                tag = (found.name, found.version)
                record_event(session, "deleted", tag, details, why.by, why.job_id)
                raise_generation(session)
            if demoted:
                with _repaired_later():
                    self.trees.write_promoted(found.name, None)
            self.store.remove(found.name, found.version)
            with _repaired_later():
                self.trees.remove(found.name, found.version)
        for made in (self.settings.paths.exports, self.settings.paths.engines):
            shutil.rmtree(made / found.name / found.version, ignore_errors=True)
        self.refresh()
        return found

    def sweep(self) -> Sentences:
        """Finish or undo interrupted changes; call it at start. Returns a sentence for each."""
        delete_abandoned(self.settings.home)
        with self._writing():
            done = sweep(self.trees, self.database)
            return done + delete_stray_files(self.store, self.database)

    def reindex(self) -> Sentences:
        """Make the rows agree with the store's folders. Returns a sentence for each change."""
        delete_abandoned(self.settings.home)
        with self._writing():
            done = reindex(self.trees, self.database)
        self.refresh()
        return done

    # --- inside

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """The lock of all who write models, on whatever machine, then the one of this store.

        Raises:
            BackendUnavailable: Another process held one of them for longer than LOCK_TIMEOUT.
        """
        lock = self.database.exclusive("models")
        try:
            lock.acquire(LOCK_TIMEOUT)
        except Timeout as error:
            raise BackendUnavailable("The model store is busy; try again.", 10) from error
        try:
            with self.store.lock():
                yield
        finally:
            lock.release()

    def _promote(
        self, model: ModelVersion, why: DecisionReason, expected_promoted: str | None = None
    ) -> None:
        """Promote a version; the caller holds the store's lock."""
        with self.database.write() as session:
            if session.get(PublishedModel, (model.name, model.version)) is None:
                raise ModelNotFound(
                    f"No model {model.id!r}: it was deleted. GET /models lists the others."
                )
            row = session.get(Promotion, model.name)
            if expected_promoted is not None and expected_promoted != (row.version if row else ""):
                raise Conflict(
                    f"The promoted version of {model.name!r} has changed since {model.id} was "
                    "compared with it. Compare again."
                )
            record(session, "promoted", model.name, model.version, why)
            set_promoted(session, model.name, model.version)
            raise_generation(session)
        with _repaired_later():
            self.trees.write_promoted(model.name, model.version)
        self.refresh()

    def _later_than_others(self, name: str) -> str:
        """The current time; later than that of all versions of a name, if the clock was set back.

        The newest version is the one with the last time.
        """
        self.refresh()
        versions = self._current().versions.get(name)
        if not versions or versions[0].created_at < (current := now()):
            return now()
        last = datetime.fromisoformat(versions[0].created_at)
        log.warning("The clock is behind the newest version of %r: %s, %s", name, current, last)
        return (last + timedelta(milliseconds=1)).isoformat(timespec="milliseconds")

    def _row_exists(self, name: str, version: str) -> bool:
        with self.database.read() as session:
            return session.get(PublishedModel, (name, version)) is not None

    def _with_content(self, name: str, content: str) -> ModelVersion | None:
        self.refresh()
        versions = self._current().versions.get(name, ())
        return next((version for version in versions if version.content == content), None)

    def _refuse_active(self, session: Session, model: ModelVersion) -> None:
        row = session.get(State, "active")
        if row is None or row.text is None:
            return
        name, version = split_tag(row.text)
        if name != model.name:
            return
        if version is None:  # a name: its promoted version, else its newest
            promotion = session.get(Promotion, name)
            newest = select(PublishedModel.version).where(PublishedModel.name == name)
            newest = newest.order_by(
                PublishedModel.created_at.desc(), PublishedModel.version.desc()
            )
            version = promotion.version if promotion else session.scalar(newest)
        if version == model.version:
            raise Conflict(
                f"{model.id} is the active model. Activate or promote another one, then delete it."
            )

    def _current(self) -> Snapshot:
        snapshot, change = self._snapshot, self.database.change()
        # A server may answer late or never, and requests wait here in the event loop: only its
        # changes, which a thread follows, are a reason to ask it.
        young = self.database.is_shared or (
            time.monotonic() - self._checked < self._refresh_seconds
        )
        if snapshot is not None and young and not self._forced and change == self._change:
            return snapshot
        with self._lock:
            started = time.monotonic()
            try:
                # Requests read this in the event loop, so they use the last snapshot at once.
                patience = None if self._snapshot is None else REFRESH_PATIENCE
                with self.database.read(patience) as session:
                    if self._snapshot is None or generation(session) != self._snapshot.generation:
                        known = self._snapshot.all if self._snapshot else []
                        self._snapshot = load_snapshot(session, self.trees)
                        gone = {(v.name, v.version) for v in known}
                        gone -= {(v.name, v.version) for v in self._snapshot.all}
                        delete_copies(self.trees, self.settings, gone)
            except FAILURES as error:
                if self._snapshot is None:
                    raise
                log.warning("The models cannot be read; using the last snapshot: %s", error)
            self._checked, self._change, self._forced = started, change, False
            return self._snapshot


@contextmanager
def _repaired_later() -> Iterator[None]:
    """A context that writes to the store what the database has committed already.

    If that fails, as on a full disk, the change is valid all the same; `sweep` repeats the writes.
    """
    try:
        yield
    except (OSError, BackendUnavailable) as error:
        log.warning("The model store is written at the next start: %s", error)


def _record_published(session: Session, name: str, version: str, source: Mapping[str, Any]) -> None:
    """Record where a new version comes from, as it stays when the version is deleted."""
    kind: ModelEventKind = "trained" if source.get("kind") == "train" else "imported"
    facts = ("kind", "mode", "parent", "dataset", "file", "base")
    details = {name: source[name] for name in facts if source.get(name)}
    record_event(session, kind, (name, version), details, job_id=source.get("job_id"))


def published(job_id: str, registry: Registry) -> ModelVersion | None:
    """The version that a job published before it was interrupted, if any."""
    registry.refresh()
    return next((m for m in registry.list() if m.source.get("job_id") == job_id), None)
