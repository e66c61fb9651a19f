"""The model registry: versions, the promoted version of each name, the active model.

A version is visible once it has a row, which is written after its folder in the Bento model store
is complete. Reads use a snapshot in memory, which follows changes of other processes of this
machine at once, and of other machines within a second, or when a requested model is not in it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from database import Database, State
from errors import Conflict, ModelNotFound, ValidationFailed
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
from models_store.live_models import MISS_SECONDS, REFRESH_SECONDS, LiveModels
from models_store.maintenance import delete_stray_files, reindex, repaired_later, sweep, writing
from models_store.names import split_tag
from models_store.publication import Publisher
from models_store.shared.model_trees import ModelTrees
from models_store.shared.repair import card_of
from models_store.store import ModelStore
from models_store.tables import (
    Promotion,
    PublishedModel,
    raise_generation,
    record_event,
)
from models_store.versions import SHOWN_NAMES, ModelVersion
from storage.place import open_trees

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
        self._live = LiveModels(database, self.trees, refresh_seconds, miss_seconds)
        self._publisher = Publisher(database, self.store, self.trees, self._live)

    # --- reading

    def list(self) -> list[ModelVersion]:
        """Every version, by name, the newest first."""
        return list(self._live.current().all)

    def get(self, model_id: str) -> ModelVersion:
        """The version `name:version`; for a bare name the promoted version, else the newest.

        A version may be shortened to a unique beginning.

        Raises:
            ModelNotFound: There is none; the message lists the known names.
            ValidationFailed: Several versions begin with it.
        """
        return self._live.get(model_id)

    def active(self) -> ModelVersion:
        """The active model, which serves requests that name no model.

        Raises:
            ModelNotFound: No model was activated, or it was deleted.
        """
        return self._live.active()

    def active_pointer(self) -> str | None:
        """The activated name (follows promotions) or name:version (pinned)."""
        return self._live.current().active

    def resolve(self, model_id: str | None) -> ModelVersion:
        """`get`, or the active model for None and the empty string."""
        return self.get(model_id) if model_id and model_id.strip() else self.active()

    def refresh(self) -> None:
        """Reload the snapshot if another process changed the registry."""
        self._live.refresh()

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
        return self._publisher.publish(folder, name, source, metrics, promote, unless_present)

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
        return found if version else self._live.current().versions[name][0]

    def promoted(self, name: str) -> ModelVersion | None:
        """The promoted version of a name, if there is one."""
        return next((v for v in self._live.current().versions.get(name, ()) if v.promoted), None)

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
        with writing(self.database, self.store):
            self._publisher.promote(found, why, expected_promoted)
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
        with writing(self.database, self.store):
            with self.database.write() as session:
                version = step_back(session, name, why)
            with repaired_later():
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
        with writing(self.database, self.store):
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
            with repaired_later():
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
        versions = self._live.current().versions[found.name]
        if split_tag(model_id)[1] is None and len(versions) > 1:
            ids = ", ".join(v.id for v in versions[:SHOWN_NAMES])
            raise ValidationFailed(f"{found.name!r} has several versions; name one of: {ids}.")
        with writing(self.database, self.store):
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
                with repaired_later():
                    self.trees.write_promoted(found.name, None)
            self.store.remove(found.name, found.version)
            with repaired_later():
                self.trees.remove(found.name, found.version)
        for made in (self.settings.paths.exports, self.settings.paths.engines):
            shutil.rmtree(made / found.name / found.version, ignore_errors=True)
        self.refresh()
        return found

    def sweep(self) -> Sentences:
        """Finish or undo interrupted changes; call it at start. Returns a sentence for each."""
        delete_abandoned(self.settings.home)
        with writing(self.database, self.store):
            done = sweep(self.trees, self.database)
            return done + delete_stray_files(self.store, self.database)

    def reindex(self) -> Sentences:
        """Make the rows agree with the store's folders. Returns a sentence for each change."""
        delete_abandoned(self.settings.home)
        with writing(self.database, self.store):
            done = reindex(self.trees, self.database)
        self.refresh()
        return done

    # --- inside

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


def published(job_id: str, registry: Registry) -> ModelVersion | None:
    """The version that a job published before it was interrupted, if any."""
    registry.refresh()
    return next((m for m in registry.list() if m.source.get("job_id") == job_id), None)
