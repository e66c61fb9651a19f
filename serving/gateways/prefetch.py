"""Downloads versions that are promoted while this server runs: no request waits for that then."""

from __future__ import annotations

import asyncio
import logging
import threading

from errors import BackendUnavailable, VisionLoopError
from models_store.registry import Registry

log = logging.getLogger("visionloop")

POLL = 1.0  # seconds between two looks


class Prefetch:
    """Has on this machine what other machines promote; does nothing without an object store.

    What was promoted before the start is downloaded when it is first needed, the active model at
    once. One process of a machine is enough.
    """

    def __init__(self, registry: Registry, poll: float = POLL) -> None:
        self._registry = registry
        self._poll = poll
        self._known: set[str] | None = None  # ids of promoted versions that were dealt with

    async def run(self) -> None:
        """Look on and on, in a thread that a shutdown does not wait for."""
        if not self._registry.trees.shared:
            return
        stopped = threading.Event()
        threading.Thread(target=self._watch, args=(stopped,), name="prefetch", daemon=True).start()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    def _watch(self, stopped: threading.Event) -> None:
        while not stopped.is_set():
            try:
                self.look()
            except Exception:
                log.exception("Versions that were promoted could not be downloaded in advance")
            stopped.wait(self._poll)

    def look(self) -> None:
        """Download the versions that have been promoted since the last look."""
        promoted = {version.id: version for version in self._registry.list() if version.promoted}
        if self._known is None:
            self._known = set(promoted)
        self._known &= promoted.keys()  # so that one that is promoted again counts as new
        for model_id in promoted.keys() - self._known:
            try:
                promoted[model_id].files()
            except BackendUnavailable as error:  # it is tried again
                log.warning("%s cannot be downloaded in advance yet: %s", model_id, error)
                continue
            except VisionLoopError as error:  # whoever asks for it is told so
                log.warning("%s cannot be downloaded in advance: %s", model_id, error)
            self._known.add(model_id)
