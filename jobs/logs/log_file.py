"""A job's log: time-stamped lines in one file, written by the dispatcher."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from datetime import UTC, datetime
from pathlib import Path

from errors import without_server_paths

LIMIT = 32 * 2**20  # maximum bytes of worker output; does not apply to the dispatcher's own lines
LONGEST_LINE = 8192  # maximum bytes of a line
CHUNK = 256 * 1024  # maximum bytes of one read

Mark = tuple[str, int]
"""The claim of a worker, and how many characters of its output were read up to here."""

_TERMINAL = re.compile(rb"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07|[@-_])")
_UNPRINTED = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")


class LogWriter:
    """Appends lines to a log. If the disk is full, lines are lost, but the job does not fail.

    Attributes:
        heard: Number of reads from the worker's output so far. It serves as a heartbeat, and also
            counts output without a line end.
    """

    def __init__(self, path: Path, limit: int = LIMIT) -> None:
        """`limit`: maximum bytes of worker output."""
        self.path = path
        self._limit = limit
        self.heard = 0
        self._lock = threading.Lock()
        self._full = False
        self._rest = b""  # of the worker's output: a line that has not ended yet
        self._copied: dict[str, int] = {}
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._full = self._size() >= self._limit

    def say(self, message: str) -> None:
        """Append a message of the dispatcher, of one or more lines."""
        self._write([line.encode() for line in message.splitlines() or [""]])

    def say_soon(self, message: str) -> None:
        """As `say`, for an event loop: it never waits for a database."""
        self.say(message)

    def flush(self) -> None:
        """Write what waits to be written; nothing does in a file."""

    def drain(self, descriptor: int) -> threading.Thread:
        """Copy the output of a pipe to the log, in a thread, until the last writer closes it.

        Returns:
            The thread that reads; it closes the descriptor.

        Raises:
            RuntimeError: The thread cannot be started; the descriptor is closed.
        """
        try:
            thread = threading.Thread(target=self._drain, args=(descriptor,), daemon=True)
            thread.start()
        except RuntimeError:
            os.close(descriptor)
            raise
        return thread

    def _drain(self, descriptor: int) -> None:
        with open(descriptor, "rb", buffering=0) as pipe:
            while chunk := pipe.read(65536):
                self.feed(chunk)
        self.feed(b"", ended=True)

    def copied(self, claim: str) -> int:
        """How many characters of a worker's output were fed so far, with marks.

        Raises:
            SQLAlchemyError, DatabaseBusy: Of a shared log: what other machines fed is not known.
        """
        return self._copied.get(claim, 0)

    def feed(self, chunk: bytes, *, ended: bool = False, mark: Mark | None = None) -> None:
        """Append output of the worker.

        Args:
            chunk: The output. A line that has not ended waits for the next chunk.
            ended: Whether there is no further output.
            mark: Of output that can be read again: its end. The chunk begins where `copied` says.
        """
        self.heard += bool(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > LONGEST_LINE:  # a progress bar that never ends its line
            self._rest = self._rest.rpartition(b"\r")[2][:LONGEST_LINE]
        if ended and self._rest:
            lines.append(self._rest)
            self._rest = b""
        self._keep([clean(line) for line in lines], mark)

    def _keep(self, lines: list[bytes], mark: Mark | None) -> None:
        if self._full:
            self._write([], mark)
            return
        self._write([line for line in lines if line], mark)
        with contextlib.suppress(OSError):
            self._full = self._size() >= self._limit
        if self._full:
            self.say(f"This log has reached {self._limit >> 20} MiB; no more output is kept.")

    def _write(self, lines: list[bytes], mark: Mark | None = None) -> None:
        stamp = datetime.now(UTC).strftime("[%Y-%m-%d %H:%M:%S] ").encode()
        self._append(b"".join(stamp + line[:LONGEST_LINE] + b"\n" for line in lines), mark)

    def _size(self) -> int:
        """Bytes of the log. Raises OSError."""
        return self.path.stat().st_size if self.path.exists() else 0

    def _append(self, data: bytes, mark: Mark | None) -> None:
        with self._lock:
            if mark is not None:
                self._copied[mark[0]] = mark[1]
            with contextlib.suppress(OSError), self.path.open("ab") as file:
                file.write(data)


def clean(line: bytes) -> bytes:
    """A line without terminal control codes, and of a progress bar only its last state."""
    parts = [part for part in _TERMINAL.sub(b"", line).split(b"\r") if part.strip()]
    return _UNPRINTED.sub(b"", parts[-1]).rstrip() if parts else b""


def read_lines(path: Path, offset: int = 0, limit: int = CHUNK) -> list[tuple[int, str]]:
    """The complete lines from a byte offset on, each with the byte offset of its end.

    In processes that answer requests, folders of the server are replaced by their names. Empty if
    there is no log yet. An offset outside the file is treated as 0.

    Args:
        path: The log.
        offset: Number of bytes to skip.
        limit: Maximum number of bytes to read.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(offset if 0 <= offset <= size else 0)
            behind = file.tell()
            data = file.read(limit)
    except FileNotFoundError:
        return []
    lines = []
    for line in data.split(b"\n")[:-1]:
        behind += len(line) + 1
        lines.append((behind, without_server_paths(line.decode("utf-8", "replace"))))
    return lines


def read_last(path: Path, count: int) -> list[str]:
    """The last lines of a log, at most `count`."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return []
    window = count * 200
    while True:
        start = max(0, size - window)
        lines = [line for _, line in read_lines(path, start, window + CHUNK)]
        if start == 0 or len(lines) > count:  # the first may be cut
            return lines[1 if start else 0 :][-count:]
        window *= 4
