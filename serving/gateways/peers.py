"""What the gateway processes of one server tell each other through shared memory.

Each process has a file of numbers that it alone writes, in the folder of the metrics, whose space
is reserved. The others read it: no request waits for another process. The file of a process that
has ended is removed by the next one that looks. With one gateway process there is no file.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from settings import Settings

log = logging.getLogger("visionloop")

SUFFIX = ".gateway"
LOOK = 0.5  # seconds between two looks for other processes
SIZE = mmap.PAGESIZE
# Places in the files; the gauges go on to the end.
ANSWERING, SINCE, CALLS, PENDING, REFUSALS, CONNECTIONS, GAUGES = range(7)


class Peers:
    """The numbers of this gateway process, and sums of those of the others.

    Args:
        folder: Where the files are; None: there are no other processes.
        pid: The id of this process.
    """

    def __init__(self, folder: Path | None = None, pid: int | None = None) -> None:
        self.folder = folder
        self._pid = os.getpid() if pid is None else pid
        self._own: memoryview[float] = memoryview(bytearray(SIZE)).cast("d")
        self._own[SINCE] = float("-inf")
        self._others: dict[int, memoryview[float]] = {}
        self._looked = float("-inf")
        if folder is not None:
            try:
                self._own = _created(folder / f"{self._pid}{SUFFIX}")
            except OSError as error:
                log.error("The gateway processes do not know of each other: %s", error)
                self.folder = None

    @classmethod
    def of(cls, settings: Settings) -> Peers:
        """Those of a server with these settings."""
        return cls(shared_folder(settings))

    @property
    def alone(self) -> bool:
        """Whether there can be no other gateway process."""
        return self.folder is None

    # --- this process

    def add(self, place: int, number: float) -> None:
        """Add to a number of this process."""
        self._own[place] += number

    def set(self, place: int, number: float) -> None:
        """Set a number of this process."""
        self._own[place] = number

    def set_gauges(self, values: Sequence[float]) -> None:
        """Publish gauges of this process; `gauges` of any process adds them up, place by place."""
        self._own[GAUGES : GAUGES + len(values)] = memoryview(_doubles(values))

    # --- the others

    def total(self, place: int) -> float:
        """The sum of a number over the other processes."""
        return sum(other[place] for other in self._living())

    def has_more_than_others(self, place: int) -> bool:
        """Whether a number of this process is larger than that of one of the others."""
        return any(self._own[place] > other[place] for other in self._living())

    def idle_since(self) -> float:
        """When the last of the others became idle, in monotonic seconds; infinity: one is busy."""
        others = self._living()
        if any(other[ANSWERING] for other in others):
            return float("inf")
        return max((other[SINCE] for other in others), default=float("-inf"))

    def gauges(self, count: int) -> list[float]:
        """The sums of the others' gauges."""
        others = self._living()
        return [sum(other[GAUGES + i] for other in others) for i in range(count)]

    def close(self) -> None:
        """Remove the file of this process."""
        if self.folder is not None:
            (self.folder / f"{self._pid}{SUFFIX}").unlink(missing_ok=True)

    def _living(self) -> list[memoryview[float]]:
        if self.folder is not None and time.monotonic() - self._looked >= LOOK:
            self._looked = time.monotonic()
            self._look(self.folder)
        return list(self._others.values())

    def _look(self, folder: Path) -> None:
        found = {int(file.stem): file for file in folder.glob(f"[0-9]*{SUFFIX}")}
        found.pop(self._pid, None)
        for pid, file in list(found.items()):
            if has_ended(pid):
                file.unlink(missing_ok=True)
                del found[pid]
        self._others = {pid: numbers for pid, numbers in self._others.items() if pid in found}
        for pid, file in found.items():
            if pid not in self._others:
                with contextlib.suppress(OSError, ValueError):  # it has just ended or begun
                    self._others[pid] = _mapped(file, os.O_RDONLY, mmap.PROT_READ)


def shared_folder(settings: Settings) -> Path | None:
    """The folder that several gateway processes of a server share; None if there is only one."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Path(folder) if folder and settings.gateway_workers > 1 else None


def has_ended(pid: int) -> bool:
    """Whether a process of this machine has ended."""
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return True


def _created(file: Path) -> memoryview[float]:
    """The numbers of a new file, whose space is on the disk before it is mapped."""
    making = file.with_suffix(".new")
    making.write_bytes(bytes(SIZE))
    descriptor = os.open(making, os.O_RDWR | os.O_CLOEXEC)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, SIZE)
    finally:
        os.close(descriptor)
    numbers = _mapped(making, os.O_RDWR, mmap.PROT_READ | mmap.PROT_WRITE)
    numbers[SINCE] = float("-inf")
    numbers[CONNECTIONS] = float("inf")  # it accepts none yet
    making.replace(file)
    return numbers


def _mapped(file: Path, mode: int, protection: int) -> memoryview[float]:
    descriptor = os.open(file, mode | os.O_CLOEXEC)
    try:
        return memoryview(mmap.mmap(descriptor, SIZE, prot=protection)).cast("d")
    finally:
        os.close(descriptor)


def _doubles(values: Sequence[float]) -> memoryview[float]:
    numbers = memoryview(bytearray(8 * len(values))).cast("d")
    for place, value in enumerate(values):
        numbers[place] = value
    return numbers
