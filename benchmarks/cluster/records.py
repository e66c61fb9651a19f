"""What the table of jobs showed, moment by moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.stress.server import Failed

PAUSE = 0.05  # seconds between two looks
WAIT = 420.0  # seconds that an event may take on a busy machine
QUERY = (
    "SELECT id, status, attempts, claim, progress, current_epoch, checkpoint, model_id, error "
    "FROM jobs"
)


@dataclass(frozen=True)
class Seen:
    """A job's row at one moment (monotonic seconds)."""

    at: float
    status: str
    attempts: int
    claim: str | None
    progress: float
    epoch: int
    checkpoint: int
    model_id: str | None
    error: str | None


@dataclass
class Recorder:
    """Reads the table of jobs all the time, also after PostgreSQL was away; `close` ends it."""

    address: str
    seen: dict[str, list[Seen]] = field(default_factory=dict)
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join(10)

    def last(self, job_id: str) -> Seen | None:
        rows = self.seen.get(job_id)
        return rows[-1] if rows else None

    def wait(self, job_id: str, found: Callable[[Seen], bool], what: str, since: float = 0) -> Seen:
        """The first row of a job after `since` for which `found` holds.

        Raises:
            Failed: There was none in time.
        """
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline:
            for row in list(self.seen.get(job_id, ())):
                if row.at >= since and found(row):
                    return row
            time.sleep(PAUSE)
        raise Failed(f"Job {job_id}: not in {WAIT:g} s: {what}. Its row: {self.last(job_id)}")

    def _run(self) -> None:
        import psycopg

        connection: Any = None
        while not self._ended.wait(PAUSE):
            try:
                connection = connection or psycopg.connect(
                    self.address, autocommit=True, connect_timeout=2
                )
                rows = connection.execute(QUERY).fetchall()
            except psycopg.Error:
                connection = None
                continue
            at = time.monotonic()
            for job_id, *values in rows:
                kept = self.seen.setdefault(job_id, [])
                row = Seen(at, *values)
                if not kept or _values(kept[-1]) != _values(row):
                    kept.append(row)
        if connection is not None:
            connection.close()


def _values(row: Seen) -> tuple[Any, ...]:
    return tuple(value for name, value in vars(row).items() if name != "at")
