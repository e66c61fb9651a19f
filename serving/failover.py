"""Handles the images that were in flight when the process of a runner ended.

Each image is tried once more, alone: as the only image in a process. If that process ends as well,
the image is the cause: it is refused for `REFUSED_SECONDS`, so that it does not end more processes.
All gateway processes of a server take turns, and refuse what one of them has found.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from errors import VisionLoopError
from inference.prediction import InferenceItem
from serving.gateways.one_process import OneAtATime
from serving.gateways.peers import PENDING, REFUSALS, Peers

REFUSED_SECONDS = 600.0
REFUSED = ".refused"  # suffix of files that tell other gateway processes of a refused image
LOOK = 0.05  # seconds between two looks whether images of another gateway process wait
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
    """Trials of single images, and the images refused after them; one object per gateway process.

    Args:
        peers: The other gateway processes.
    """

    def __init__(self, peers: Peers | None = None) -> None:
        self.peers = peers or Peers()
        folder = self.peers.folder
        self.turn = OneAtATime("trial", folder) if folder else asyncio.Lock()  # held during a trial
        self._known = 0.0  # number of refusals of the other processes when they were last read
        self._pending = 0
        self._none_pending = asyncio.Event()
        self._none_pending.set()
        self._refused: dict[bytes, float] = {}

    @contextmanager
    def pending(self) -> Iterator[None]:
        """A context in which some images wait for their trials, and others for the end of these."""
        self._pending += 1
        self.peers.set(PENDING, self._pending)
        self._none_pending.clear()
        try:
            yield
        finally:
            self._pending -= 1
            self.peers.set(PENDING, self._pending)
            if not self._pending:
                self._none_pending.set()

    async def wait_until_over(self) -> None:
        """Return once no image waits for its trial."""
        await self._none_pending.wait()
        while self.peers.total(PENDING):  # noqa: ASYNC110 - another process does not set an event
            await asyncio.sleep(LOOK)

    def refuse(self, item: InferenceItem) -> VisionLoopError:
        """Refuse this image for this model from now on. Returns the error for the client."""
        digest = _digest(item)
        self._refused[digest] = time.monotonic() + REFUSED_SECONDS
        if self.peers.folder is not None:
            with suppress(OSError):
                (self.peers.folder / f"{digest.hex()}{REFUSED}").touch()
            self.peers.add(REFUSALS, 1)
        return _error()

    def refusal(self, item: InferenceItem) -> VisionLoopError | None:
        """The error for an image that is refused, else None."""
        if (known := self.peers.total(REFUSALS)) != self._known:
            self._known = known
            self._read_refusals()
        if not self._refused:
            return None
        now = time.monotonic()
        for digest in [digest for digest, until in self._refused.items() if until <= now]:
            del self._refused[digest]
        return _error() if _digest(item) in self._refused else None

    def _read_refusals(self) -> None:
        """Add what other gateway processes refuse."""
        if self.peers.folder is None:
            return
        for file in self.peers.folder.glob(f"*{REFUSED}"):
            with suppress(OSError):
                left = file.stat().st_mtime + REFUSED_SECONDS - time.time()
                if left > 0:
                    digest = bytes.fromhex(file.name.removesuffix(REFUSED))
                    self._refused.setdefault(digest, time.monotonic() + left)
                else:
                    file.unlink()


def _digest(item: InferenceItem) -> bytes:
    return hashlib.sha256(item.model.encode() + b"\0" + item.image).digest()


def _error() -> VisionLoopError:
    return VisionLoopError(
        "Two processes ended while they predicted this image with this model. It is refused for "
        f"{REFUSED_SECONDS / 60:g} minutes. Report it together with the server's log."
    )
