"""The thread that writes the audit trail, so that no request waits for the database."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable

from access.audit import AuditLog
from access.entry import Entry, without_secrets
from access.tokens import TokenStore
from database import FAILURES

log = logging.getLogger("visionloop")

MOST_WAITING = 10_000
BATCH = 500  # entries of one transaction
ATTEMPTS = 5  # to write a batch, while the database is locked or the disk is full
PAUSE = 2.0  # seconds between two attempts
PRUNE_SECONDS = 24 * 3600.0
STOP_SECONDS = 10.0  # for which `stop` waits


class AuditWriter:
    """Writes entries and uses of tokens in a thread, which starts with the first of them.

    What cannot be written is logged.

    Args:
        trail: The table.
        tokens: Where uses of tokens are stored.
        days: Age in days from which entries are deleted; 0: never.
        pause: Seconds between two attempts to write.
        also_prune: Called when old entries are deleted, to delete what else is old.
    """

    def __init__(
        self,
        trail: AuditLog,
        tokens: TokenStore,
        days: int,
        pause: float = PAUSE,
        also_prune: Callable[[], object] = lambda: None,
    ) -> None:
        self.trail = trail
        self.tokens = tokens
        self.days = days
        self.pause = pause
        self.also_prune = also_prune
        self._queue: queue.Queue[Entry | str | None] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._pruned = -PRUNE_SECONDS

    def add(self, entry: Entry) -> None:
        """Have an entry written soon."""
        self._put(entry)

    def used(self, identity: str) -> None:
        """Have the use of a token written soon."""
        self._put(identity)

    def start(self) -> None:
        """Start the thread, which deletes old entries now and once a day."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Write what is waiting, and end the thread."""
        if self._thread is None:
            return
        self._stopping.set()
        with contextlib.suppress(queue.Full):  # then it sees the event
            self._queue.put_nowait(None)
        self._thread.join(STOP_SECONDS)
        if self._thread.is_alive():
            log.error("The audit trail was not written completely before the server stopped.")
        self._thread = None
        self._stopping.clear()

    def _put(self, item: Entry | str) -> None:
        self.start()
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            if isinstance(item, Entry):
                shown = without_secrets(str(item))
                log.error("The audit trail has too many entries waiting; lost: %s", shown)

    def _run(self) -> None:
        while True:
            if time.monotonic() - self._pruned >= PRUNE_SECONDS:
                self._pruned = time.monotonic()
                self._prune()
            batch = self._next()
            entries = [item for item in batch if isinstance(item, Entry)]
            used = [item for item in batch if isinstance(item, str)]
            if entries:
                self._write(entries)
            if used:
                self._note(used)
            if self._stopping.is_set() and self._queue.empty():
                return

    def _next(self) -> list[Entry | str | None]:
        """What is waiting, at most BATCH; waits for the first of it."""
        batch: list[Entry | str | None] = []
        with contextlib.suppress(queue.Empty):
            batch.append(self._queue.get(timeout=PRUNE_SECONDS / 24))
            while len(batch) < BATCH:
                batch.append(self._queue.get_nowait())
        return batch

    def _write(self, entries: list[Entry]) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self.trail.add(entries)
                return
            except FAILURES as error:
                if attempt < ATTEMPTS and not self._stopping.wait(self.pause):
                    continue
                log.error("The audit trail cannot be written: %s", error)
            except Exception:
                log.exception("The audit trail cannot be written")
            break
        for entry in entries:
            log.error("Not in the audit trail: %s", without_secrets(str(entry)))

    def _note(self, used: list[str]) -> None:
        try:
            self.tokens.note_used(used)
        except Exception as error:
            log.warning("The last use of tokens cannot be written: %s", error)

    def _prune(self) -> None:
        try:
            if count := self.trail.prune(self.days):
                log.info("%d entries of the audit trail were older than %d days", count, self.days)
        except Exception as error:
            log.warning("Old entries of the audit trail cannot be deleted: %s", error)
        try:
            self.also_prune()
        except Exception as error:
            log.warning("Sessions that have expired cannot be deleted: %s", error)
