"""Logs of jobs in the database, for servers on several machines; each has a file as a copy.

Pieces are appended in write transactions, which wait for each other: a piece that is seen has all
those before it. So every copy has the same bytes at the same places.
"""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

from filelock import FileLock
from sqlalchemy import BigInteger, LargeBinary, String, delete, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from database import FAILURES, Base, Database
from jobs.logs import LIMIT, LogWriter

DELAY = 1.0  # seconds for which a worker's output is gathered
PIECES = 64  # that are in memory at a time
MOST = 8 * 2**20  # bytes that wait while the database cannot be written; further ones are lost


class LogPiece(Base):
    """A piece of a job's log."""

    __tablename__ = "job_logs"

    job_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    start: Mapped[int] = mapped_column(BigInteger, primary_key=True)  # byte offset in the log
    data: Mapped[bytes] = mapped_column(LargeBinary)


_END = LogPiece.start + func.length(LogPiece.data)


class SharedLogs:
    """Appends to the logs of jobs, and copies them to files."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, job_id: str, data: bytes) -> int:
        """Append to a log. Returns its size.

        Raises:
            DatabaseBusy, InsufficientStorage, SQLAlchemyError: It is as it was.
        """
        with self._database.write() as session:
            size = _size(session, job_id)
            if data:
                session.add(LogPiece(job_id=job_id, start=size, data=data))
            return size + len(data)

    def size(self, job_id: str) -> int:
        """The bytes of a log."""
        with self._database.read() as session:
            return _size(session, job_id)

    def copy(self, job_id: str, file: Path) -> None:
        """Append to a file what its log has further.

        Raises:
            DatabaseBusy, OSError: The file has less than the log; the next call continues.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_name(".log.lock")), file.open("ab") as target:
            place = target.tell()  # within a piece, if a process was killed here
            mine = LogPiece.job_id == job_id
            # The index finds the piece that has the place: a long job's log has 100,000 pieces.
            here = select(func.max(LogPiece.start)).where(mine, LogPiece.start <= place)
            query = (
                select(LogPiece.start, LogPiece.data)
                .where(mine, LogPiece.start >= here.scalar_subquery(), place < _END)
                .order_by(LogPiece.start)
                .execution_options(yield_per=PIECES)
            )
            with self._database.read() as session:
                for start, data in session.execute(query):
                    target.write(data[max(0, target.tell() - start) :])


def delete_log(session: Session, job_id: str) -> None:
    """Delete the pieces of a job's log."""
    session.execute(delete(LogPiece).where(LogPiece.job_id == job_id))


def _size(session: Session, job_id: str) -> int:
    last = select(_END).where(LogPiece.job_id == job_id).order_by(LogPiece.start.desc()).limit(1)
    return session.scalar(last) or 0


class SharedLogWriter(LogWriter):
    """Appends to a log in the database. Nothing fails if that cannot be written: it waits."""

    def __init__(self, logs: SharedLogs, job_id: str, path: Path, limit: int = LIMIT) -> None:
        self._logs, self._job_id = logs, job_id
        self._waiting = bytearray()
        self._flushing = threading.Lock()  # so that pieces stay in order; `_lock` is held shortly
        self._size_then = 0
        with contextlib.suppress(*FAILURES):
            self._size_then = logs.size(job_id)
        self._timer: threading.Timer | None = None
        super().__init__(path, limit)

    def say(self, message: str) -> None:
        super().say(message)
        self.flush()

    def say_soon(self, message: str) -> None:
        super().say(message)

    def feed(self, chunk: bytes, *, ended: bool = False) -> None:
        super().feed(chunk, ended=ended)
        if ended:
            self.flush()

    def flush(self) -> None:
        """Write what waits; if that fails, it is tried again later."""
        with self._flushing:
            with self._lock:
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
                data = bytes(self._waiting)
            if not data:
                return
            try:
                size = self._logs.append(self._job_id, data)
            except FAILURES:
                with self._lock:
                    self._later()
                return
            with self._lock:
                self._size_then = size
                del self._waiting[: len(data)]

    def _size(self) -> int:
        return self._size_then + len(self._waiting)

    def _append(self, data: bytes) -> None:
        with self._lock:
            if len(self._waiting) < MOST:
                self._waiting += data
            self._later()

    def _later(self) -> None:
        if self._timer is not None:
            return
        self._timer = threading.Timer(DELAY, self.flush)
        self._timer.daemon = True
        with contextlib.suppress(RuntimeError):  # the interpreter ends
            self._timer.start()
