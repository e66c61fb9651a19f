"""How a version becomes visible: copied into the store, given a row, promoted."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy.orm import Session

from database import Database, now
from errors import BackendUnavailable, Conflict, InvalidModelFile, ModelNotFound
from models_store.decision_log import DecisionReason, record
from models_store.description import DESCRIPTION_FILE, ModelDescription
from models_store.live_models import LiveModels
from models_store.maintenance import as_row, repaired_later, set_promoted, writing
from models_store.names import check_name
from models_store.shared.model_trees import ModelTrees
from models_store.shared.repair import card_of
from models_store.store import ModelStore, StoredModel, content_hash, new_version
from models_store.tables import (
    ModelEventKind,
    Promotion,
    PublishedModel,
    raise_generation,
    record_event,
)
from models_store.versions import ModelVersion

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A version that is being published."""

    folder: Path
    name: str
    version: str
    description: ModelDescription
    metadata: dict[str, Any]
    promote: bool

    @property
    def why_promoted(self) -> DecisionReason:
        source = self.metadata["source"]
        return DecisionReason(by=str(source.get("kind")), job_id=source.get("job_id"))


class Publisher:
    """Publishes and promotes versions.

    Args:
        database: Has the rows.
        store: Where folders are copied.
        trees: The same for other machines.
        live: The models as this process knows them.
    """

    def __init__(
        self, database: Database, store: ModelStore, trees: ModelTrees, live: LiveModels
    ) -> None:
        self._database = database
        self._store = store
        self._trees = trees
        self._live = live

    def publish(
        self,
        folder: Path,
        name: str,
        source: Mapping[str, Any],
        metrics: Mapping[str, Any] | None = None,
        promote: bool = False,
        unless_present: bool = False,
    ) -> ModelVersion:
        """As `Registry.publish`."""
        check_name(name)
        try:
            description = ModelDescription.load(folder)
            content = content_hash(folder)
        except FileNotFoundError as error:
            missing = Path(str(error.filename)).name
            raise InvalidModelFile(f"The model folder lacks {missing}.") from error
        except ValidationError as error:
            raise InvalidModelFile(f"{DESCRIPTION_FILE} is not valid: {error}") from error
        version, live = new_version(), self._live
        uploaded = self._trees.shared and not (unless_present and live.with_content(name, content))
        if uploaded:
            self._trees.upload(folder, name, version)  # before the lock: it may take minutes
        with writing(self._database, self._store):
            if unless_present and (known := live.with_content(name, content)):
                self._trees.remove(name, version)
                if promote:
                    self.promote(known, DecisionReason(by=str(source.get("kind"))))
                return live.get(known.id)
            metadata = {
                "type": description.type,
                "created_at": self._later_than_others(name),
                "source": dict(source),
                "metrics": dict(metrics) if metrics is not None else None,
                "content": content,
            }
            new = NewVersion(folder, name, version, description, metadata, promote)
            try:
                self._add(new, uploaded)
            except BaseException:
                if not self._row_exists(name, version):  # a failed commit may have been written
                    self._store.clear_staging()
                    self._store.remove(name, version)
                    with suppress(BackendUnavailable):  # then `sweep` does it
                        self._trees.remove(name, version)
                raise
            self._mark(new)
        live.refresh()
        return live.get(f"{name}:{version}")

    def promote(
        self, model: ModelVersion, why: DecisionReason, expected_promoted: str | None = None
    ) -> None:
        """Promote a version; the caller is `writing`. As `Registry.promote`."""
        with self._database.write() as session:
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
        with repaired_later():
            self._trees.write_promoted(model.name, model.version)
        self._live.refresh()

    def _add(self, new: NewVersion, uploaded: bool) -> None:
        """Copy the folder into the store, and add the row."""
        tag = new.name, new.version
        if not uploaded:  # the version with this content was deleted meanwhile
            self._trees.upload(new.folder, *tag)
        path = self._store.add(new.folder, *tag, new.metadata)
        row = as_row(StoredModel(*tag, path, new.metadata, True), new.description)
        self._trees.unpublish(*tag)
        self._trees.write_card(*tag, card_of(row))
        with self._database.write() as session:
            session.add(row)
            _record_published(session, new)
            if new.promote:
                record(session, "promoted", *tag, new.why_promoted)
                set_promoted(session, *tag)
            raise_generation(session)

    def _mark(self, new: NewVersion) -> None:
        """Note in the store that a version has its row."""
        tag = new.name, new.version
        with repaired_later():
            self._store.mark_published(*tag)
            if self._trees.shared:
                self._store.mark_copy(*tag)
            self._trees.publish(*tag)
            if new.promote:
                self._trees.write_promoted(*tag)

    def _later_than_others(self, name: str) -> str:
        """The current time; later than that of all versions of a name, if the clock was set back.

        The newest version is the one with the last time.
        """
        self._live.refresh()
        versions = self._live.current().versions.get(name)
        if not versions or versions[0].created_at < (current := now()):
            return now()
        last = datetime.fromisoformat(versions[0].created_at)
        log.warning("The clock is behind the newest version of %r: %s, %s", name, current, last)
        return (last + timedelta(milliseconds=1)).isoformat(timespec="milliseconds")

    def _row_exists(self, name: str, version: str) -> bool:
        with self._database.read() as session:
            return session.get(PublishedModel, (name, version)) is not None


def _record_published(session: Session, new: NewVersion) -> None:
    """Record where a new version comes from, as it stays when the version is deleted."""
    source = new.metadata["source"]
    kind: ModelEventKind = "trained" if source.get("kind") == "train" else "imported"
    facts = ("kind", "mode", "parent", "dataset", "file", "base")
    details = {name: source[name] for name in facts if source.get(name)}
    record_event(session, kind, (new.name, new.version), details, job_id=source.get("job_id"))
