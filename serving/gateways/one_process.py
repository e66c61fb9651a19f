"""What only one gateway process of a server may do at a time: file locks without waiting threads.

The system releases the lock of a process that ends, however it does.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from filelock import FileLock, Timeout

from settings import get_settings

log = logging.getLogger("visionloop")

POLL = 0.1  # seconds between two attempts to get a lock that another process holds
LEADER_POLL = 1.0  # seconds between two attempts to lead


class OneAtATime:
    """An asyncio lock among all gateway processes; its waiters in this process are in order.

    Args:
        name: Of what it protects; the lock's file has this name.
        folder: Of the file; None: in VISIONLOOP_HOME.
    """

    def __init__(self, name: str, folder: Path | None = None) -> None:
        self._name = name
        self._folder = folder
        self._here = asyncio.Lock()
        self._file: FileLock | None = None

    async def try_acquire(self) -> bool:
        """Acquire it if it is free; returns at once whether it was."""
        if self._here.locked():
            return False
        await self._here.acquire()  # does not wait, because it is free
        acquired = False
        try:
            acquired = self._try_file()
        finally:
            if not acquired:
                self._here.release()
        return acquired

    async def acquire(self) -> None:
        await self._here.acquire()
        try:
            while not self._try_file():  # noqa: ASYNC110 - another process does not set an event
                await asyncio.sleep(POLL)
        except BaseException:
            self._here.release()
            raise

    def release(self) -> None:
        assert self._file is not None, "acquired before"
        self._file.release()
        self._here.release()

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        self.release()

    def _try_file(self) -> bool:
        folder = self._folder or get_settings().paths.locks
        if self._file is None or Path(self._file.lock_file).parent != folder:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = FileLock(folder / f"{self._name}.lock", thread_local=False)
        try:
            self._file.acquire(blocking=False)
        except Timeout:
            return False
        return True


class Leadership:
    """Which gateway process does what must be done once; when it ends, another one takes over."""

    def __init__(self, folder: Path, poll: float = LEADER_POLL) -> None:
        self._lock = OneAtATime("leader", folder)
        self._poll = poll
        self._leads = False
        self._reported = False

    async def wait(self) -> None:
        """Return once this process leads; it does so until it ends or `stop` is called."""
        while not self._leads:
            try:
                self._leads = await self._lock.try_acquire() or self._leads
            except OSError as error:  # the disk is full, or too many files are open
                self._report(error)
            if not self._leads:
                await asyncio.sleep(self._poll)

    def stop(self) -> None:
        """Let another process lead."""
        if self._leads:
            self._lock.release()
            self._leads = False

    def _report(self, error: OSError) -> None:
        if not self._reported:
            self._reported = True
            log.error(
                "The lock of background work cannot be made yet, so images of annotations are not "
                "fetched: %s",
                error,
            )
