"""The models of the registry as one process knows them: a snapshot that follows every change."""

from __future__ import annotations

import logging
import threading
import time

from database import FAILURES, Database
from errors import ModelNotFound
from models_store.names import split_tag
from models_store.shared.deleted import delete_copies
from models_store.shared.model_trees import ModelTrees
from models_store.tables import generation
from models_store.versions import ModelVersion, Snapshot, load_snapshot

log = logging.getLogger(__name__)

REFRESH_SECONDS = 1.0
REFRESH_PATIENCE = 0.05  # seconds to wait for a locked database
MISS_SECONDS = 0.05  # shortest time between reloads because of an unknown model


class LiveModels:
    """The registered models; safe to use from several threads.

    Args:
        database: Has the rows.
        trees: Copies of versions that are gone are deleted from it.
        refresh_seconds: Age from which the snapshot is read again from a SQLite file.
        miss_seconds: Shortest time between reloads because of an unknown model.
    """

    def __init__(
        self,
        database: Database,
        trees: ModelTrees,
        refresh_seconds: float = REFRESH_SECONDS,
        miss_seconds: float = MISS_SECONDS,
    ) -> None:
        self._database = database
        self._trees = trees
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._refresh_seconds = refresh_seconds
        self._miss_seconds = miss_seconds
        self._checked = -refresh_seconds
        self._forced = False  # whether it is to be read now
        self._change = 0  # of the database, when the snapshot was read

    def get(self, model_id: str) -> ModelVersion:
        """As `Registry.get`."""
        snapshot = self.current()
        name, version = split_tag(model_id)
        found = snapshot.find(name, version)
        old = time.monotonic() - self._checked >= self._miss_seconds
        if found is None and old and self._database.answers:
            self.refresh()
            snapshot = self.current()
            found = snapshot.find(name, version)
        if found is None and version:
            found = snapshot.begins(name, version)
        if found is None:
            raise ModelNotFound(f"No model {model_id.strip()!r}. {snapshot.known(name)}")
        return found

    def active(self) -> ModelVersion:
        """As `Registry.active`."""
        snapshot = self.current()
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

    def refresh(self) -> None:
        """Read the snapshot anew if the registry has changed."""
        self._forced = True
        self.current()

    def with_content(self, name: str, content: str) -> ModelVersion | None:
        """The version of a name with this `content_hash`, if there is one."""
        self.refresh()
        versions = self.current().versions.get(name, ())
        return next((version for version in versions if version.content == content), None)

    def current(self) -> Snapshot:
        """The snapshot, read anew if it may be outdated."""
        snapshot, change = self._snapshot, self._database.change()
        # A server may answer late or never, and requests wait here in the event loop: only its
        # changes, which a thread follows, are a reason to ask it.
        young = self._database.is_shared or (
            time.monotonic() - self._checked < self._refresh_seconds
        )
        if snapshot is not None and young and not self._forced and change == self._change:
            return snapshot
        with self._lock:
            started = time.monotonic()
            try:
                # Requests read this in the event loop, so they use the last snapshot at once.
                patience = None if self._snapshot is None else REFRESH_PATIENCE
                with self._database.read(patience) as session:
                    if self._snapshot is None or generation(session) != self._snapshot.generation:
                        known = self._snapshot.all if self._snapshot else []
                        self._snapshot = load_snapshot(session, self._trees)
                        gone = {(v.name, v.version) for v in known}
                        gone -= {(v.name, v.version) for v in self._snapshot.all}
                        delete_copies(self._trees, self._database.settings, gone)
            except FAILURES as error:
                if self._snapshot is None:
                    raise
                log.warning("The models cannot be read; using the last snapshot: %s", error)
            self._checked, self._change, self._forced = started, change, False
            return self._snapshot
