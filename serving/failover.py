"""Handles the images that were in flight when the process of a runner ended.

Each image is tried once more, alone: as the only image in a process. If that process ends as well,
the image is the cause: it is refused for `REFUSED_SECONDS`, so that it does not end more processes.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from errors import VisionLoopError
from inference.prediction import InferenceItem

REFUSED_SECONDS = 600.0
TRIALS = 3  # trials of an image, if other calls were in flight and may have been the cause


class ProcessEnded(Exception):
    """The process of a runner ended during a call.

    Attributes:
        alone: Whether no other call was in flight in that process.
    """

    def __init__(self, alone: bool) -> None:
        super().__init__(alone)
        self.alone = alone


class Trials:
    """Trials of single images, and the images refused after them; one object per gateway."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()  # held during a trial
        self._pending = 0
        self._none_pending = asyncio.Event()
        self._none_pending.set()
        self._refused: dict[bytes, float] = {}

    @contextmanager
    def pending(self) -> Iterator[None]:
        """A context in which some images wait for their trials, and others for the end of these."""
        self._pending += 1
        self._none_pending.clear()
        try:
            yield
        finally:
            self._pending -= 1
            if not self._pending:
                self._none_pending.set()

    async def wait_until_over(self) -> None:
        """Return once no image waits for its trial."""
        await self._none_pending.wait()

    def refuse(self, item: InferenceItem) -> VisionLoopError:
        """Refuse this image for this model from now on. Returns the error for the client."""
        self._refused[_digest(item)] = time.monotonic() + REFUSED_SECONDS
        return _error()

    def refusal(self, item: InferenceItem) -> VisionLoopError | None:
        """The error for an image that is refused, else None."""
        if not self._refused:
            return None
        now = time.monotonic()
        for digest in [digest for digest, until in self._refused.items() if until <= now]:
            del self._refused[digest]
        return _error() if _digest(item) in self._refused else None


def has_ended(pid: int) -> bool:
    """Whether a process of this machine has ended."""
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return True


def _digest(item: InferenceItem) -> bytes:
    return hashlib.sha256(item.model.encode() + b"\0" + item.image).digest()


def _error() -> VisionLoopError:
    return VisionLoopError(
        "Two processes ended while they predicted this image with this model. It is refused for "
        f"{REFUSED_SECONDS / 60:g} minutes. Report it together with the server's log."
    )
