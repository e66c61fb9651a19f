"""Logs of jobs in the database, for servers on several machines; each has a file as a copy.

Pieces are appended in write transactions, which wait for each other: a piece that is seen has all
those before it. So every copy has the same bytes at the same places.

The output of a worker on a cluster may be read by any machine, and by two at once while the lock of
the dispatcher changes hands. Its pieces say how much of it the log has with them, and a piece is
written only if it begins there: nothing is written twice, and nothing is left out.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from sqlalchemy import BigInteger, Index, LargeBinary, String, delete, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from database import FAILURES, Base, Database
from jobs.logs.log_file import LIMIT, LogWriter, Mark

DELAY = 1.0  # seconds for which a worker's output is gathered
PIECES = 64  # that are in memory at a time
MOST = 8 * 2**20  # bytes that wait while the database cannot be written; further ones are lost


class LogPiece(Base):
    """A piece of a job's log."""

    __tablename__ = "job_logs"
    __table_args__ = (Index("ix_job_logs_claim", "claim", "copied"),)

    job_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    start: Mapped[int] = mapped_column(BigInteger, primary_key=True)  # byte offset in the log
    data: Mapped[bytes] = mapped_column(LargeBinary)
    claim: Mapped[str | None] = mapped_column(String(120))  # whose output its end is
    copied: Mapped[int | None] = mapped_column(BigInteger)  # characters of it up to that end


@dataclass(frozen=True)
class Chunk:
    """What is appended to a log at once.

    Attributes:
        data: Whole lines.
        mark: Of a worker's output that can be read again: where it ends.
        after: Where it begins.
    """

    data: bytes
    mark: Mark | None = None
    after: int = 0


_END = LogPiece.start + func.length(LogPiece.data)


class SharedLogs:
    """Appends to the logs of jobs, and copies them to files."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, job_id: str, chunks: Sequence[Chunk]) -> tuple[int, dict[str, int]]:
        """Append to a log.

        A chunk of a worker's output that does not begin where the log is by now is left out:
        another machine has appended.

        Returns:
            The log's size; and of each worker some of whose output was left out, how much of it the
            log has.

        Raises:
            DatabaseBusy, InsufficientStorage, SQLAlchemyError: It is as it was.
        """
        data, copied, left_out = bytearray(), dict[str, int](), set[str]()
        with self._database.write() as session:
            size = _size(session, job_id)
            for chunk in chunks:
                if chunk.mark is None:
                    data += chunk.data
                    continue
                claim, end = chunk.mark
                if claim not in copied:
                    copied[claim] = _copied(session, claim)
                if copied[claim] != chunk.after:
                    left_out.add(claim)
                    continue
                copied[claim] = end
                data += chunk.data
                session.add(
                    LogPiece(job_id=job_id, start=size, data=bytes(data), claim=claim, copied=end)
                )
                size += len(data)
                data.clear()
            if data:
                session.add(_piece(job_id, size, data))
            return size + len(data), {claim: copied[claim] for claim in left_out}

    def copied(self, claim: str) -> int:
        """How many characters of a worker's output are in its job's log."""
        with self._database.read() as session:
            return _copied(session, claim)

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


def _piece(
    job_id: str, start: int, data: bytearray, claim: str | None = None, copied: int | None = None
) -> LogPiece:
    return LogPiece(job_id=job_id, start=start, data=bytes(data), claim=claim, copied=copied)


def _size(session: Session, job_id: str) -> int:
    last = select(_END).where(LogPiece.job_id == job_id).order_by(LogPiece.start.desc()).limit(1)
    return session.scalar(last) or 0


def _copied(session: Session, claim: str) -> int:
    return session.scalar(select(func.max(LogPiece.copied)).where(LogPiece.claim == claim)) or 0


class SharedLogWriter(LogWriter):
    """Appends to a log in the database. Nothing fails if that cannot be written: it waits."""

    def __init__(self, logs: SharedLogs, job_id: str, path: Path, limit: int = LIMIT) -> None:
        self._logs, self._job_id = logs, job_id
        self._waiting: list[Chunk] = []
        self._bytes = 0  # of what waits
        self._ends: dict[str, int] = {}  # claim → where the next chunk of its output begins
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

    def copied(self, claim: str) -> int:
        if claim not in self._copied:
            found = self._logs.copied(claim)
            with self._lock:
                self._ends.setdefault(claim, found)
                self._copied.setdefault(claim, found)
        return self._copied[claim]

    def feed(self, chunk: bytes, *, ended: bool = False, mark: Mark | None = None) -> None:
        super().feed(chunk, ended=ended, mark=mark)
        if ended:
            self.flush()

    def flush(self) -> None:
        """Write what waits; if that fails, it is tried again later."""
        with self._flushing:
            with self._lock:
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
                chunks = list(self._waiting)
            if not chunks:
                return
            try:
                size, left_out = self._logs.append(self._job_id, chunks)
            except FAILURES:
                with self._lock:
                    self._later()
                return
            with self._lock:
                self._size_then = size
                del self._waiting[: len(chunks)]
                self._bytes -= sum(len(chunk.data) for chunk in chunks)
                self._ends |= left_out  # it is read again from there
                self._copied |= left_out

    def _size(self) -> int:
        return self._size_then + self._bytes

    def _append(self, data: bytes, mark: Mark | None) -> None:
        with self._lock:
            if self._bytes >= MOST:
                self._later()
                return
            if mark is not None:
                self._copied[mark[0]] = mark[1]
            if data:
                self._waiting.append(Chunk(data, mark, self._ends.get(mark[0], 0) if mark else 0))
                self._bytes += len(data)
                if mark is not None:
                    self._ends[mark[0]] = mark[1]
                self._later()

    def _later(self) -> None:
        if self._timer is not None:
            return
        self._timer = threading.Timer(DELAY, self.flush)
        self._timer.daemon = True
        with contextlib.suppress(RuntimeError):  # the interpreter ends
            self._timer.start()
