"""The events of this home for all streams of a gateway process: one look, many readers.

One task looks for changes while anybody listens. It keeps the newest events; every stream reads
them at its own speed, so that a slow client costs no memory. A client that has missed some is told
to read its lists again (`reset`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager

from pydantic_core import to_json

from api.console.changes import Change, Changes, ManyChanges
from database import FAILURES
from errors import BackendUnavailable, RateLimited
from jobs.caller import CALLER
from serving.gateway import Gateway

log = logging.getLogger("visionloop")

POLL = 0.5  # seconds between two looks
LINGER = 30.0  # seconds for which it goes on to look when nobody listens, for those who come back
HEARTBEAT = 15.0  # seconds of silence after which a comment is sent
KEPT = 1000  # events that a client may be behind
LONGEST = 900.0  # seconds of a stream; clients reconnect, and their token is checked again
STREAMS = 200  # of all gateway processes
FOR_ONE = 20  # of one caller, by its token or address
RETRY = 2000  # milliseconds after which a browser reconnects
RESET = Change("reset", {})

Looks = Callable[[], Callable[[], Sequence[Change]]]


class EventHub:
    """The newest events, and the task that finds them; one per gateway process.

    Args:
        gateway: The stores to look at; streams end when it stops.
        looks: Makes the function that finds the changes since its last call.
    """

    def __init__(
        self,
        gateway: Gateway,
        looks: Looks | None = None,
        poll: float = POLL,
        linger: float = LINGER,
        kept: int = KEPT,
    ) -> None:
        self._gateway = gateway
        self._looks = looks or (lambda: Changes(gateway).look)
        self._poll, self._linger = poll, linger
        self._kept: deque[str] = deque(maxlen=kept)
        self._count = 0  # number of the newest event
        self._run = ""  # differs for each time that it began to look
        self._news = asyncio.Event()
        self._ready: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._streams: Counter[str | None] = Counter()
        self._left = 0.0  # when the last stream ended

    @property
    def is_looking(self) -> bool:
        return self._task is not None and not self._task.done()

    @contextmanager
    def place(self, limit: int) -> Iterator[None]:
        """A context that takes the place of one stream.

        Raises:
            BackendUnavailable: All places are taken.
            RateLimited: The caller has its share of them.
        """
        caller = CALLER.get()
        if self._streams.total() >= limit:
            raise BackendUnavailable(f"{limit} clients follow the events already.", 30)
        if self._streams[caller] >= FOR_ONE:
            raise RateLimited(
                f"{FOR_ONE} streams of yours are open already. Close one, such as a page of the "
                "console that you do not need.",
                30,
            )
        self._streams[caller] += 1
        try:
            yield
        finally:
            self._streams[caller] -= 1
            self._streams += Counter()  # drops the callers with none
            self._left = time.monotonic()

    async def listen(self) -> None:
        """Have it look for changes; returns once every later change is found.

        Raises:
            VisionLoopError: The database cannot be read.
        """
        if self._ready is None or not self.is_looking:
            self._run = secrets.token_hex(4)
            self._count = 0
            self._kept.clear()
            self._left = time.monotonic()
            self._ready = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._look_regularly(self._ready))
        await asyncio.shield(self._ready)

    async def follow(
        self, last: str = "", heartbeat: float = HEARTBEAT, longest: float = LONGEST
    ) -> AsyncIterator[str]:
        """Server-sent events after the one with the id `last`; an empty text: from now on."""
        run, position = self._run, self._position(last)
        ends = time.monotonic() + longest
        yield f": the events of VisionLoop\nretry: {RETRY}\n\n"
        if position is None:
            position = self._count
            yield self._event(RESET)
        else:
            yield f"id: {run}-{position}\n\n"
        while not self._gateway.shutdown.is_set() and time.monotonic() < ends:
            news = self._news
            if run != self._run or position < self._count - len(self._kept):
                run, position = self._run, self._count
                yield self._event(RESET)
            elif position < self._count:
                first = position - self._count  # from the end
                events = [self._kept[i] for i in range(first, 0)]
                position = self._count
                yield "".join(events)
            else:
                try:
                    async with asyncio.timeout(heartbeat):
                        await news.wait()
                except TimeoutError:
                    yield ": heartbeat\n\n"

    def _position(self, last: str) -> int | None:
        """The number of the event with this id; None: it is not known."""
        if not last:
            return self._count
        run, _, number = last.partition("-")
        if run != self._run or not (number.isascii() and number.isdigit() and len(number) < 16):
            return None
        found = int(number)
        return found if self._count - len(self._kept) <= found <= self._count else None

    def _event(self, change: Change) -> str:
        data = to_json(change.data, inf_nan_mode="null").decode()
        return f"id: {self._run}-{self._count}\nevent: {change.kind}\ndata: {data}\n\n"

    def _publish(self, found: Sequence[Change]) -> None:
        for change in found:
            self._count += 1
            self._kept.append(self._event(change))
        if found:
            self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _look_regularly(self, ready: asyncio.Future[None]) -> None:
        try:
            look = self._looks()
            await asyncio.to_thread(look)
            ready.set_result(None)
            await self._look_until_nobody_listens(look)
        except Exception as error:
            if not ready.done():
                ready.set_exception(error)
                return
            log.exception("The events are not followed any more")
        finally:
            self._wake()

    async def _look_until_nobody_listens(self, look: Callable[[], Sequence[Change]]) -> None:
        missed = False
        shutdown = self._gateway.shutdown
        while not shutdown.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll):
                    await shutdown.wait()
            if not self._streams and time.monotonic() - self._left > self._linger:
                return
            try:
                found = await asyncio.to_thread(look)
            except ManyChanges:
                found = [RESET]
            except FAILURES as error:
                if not missed:
                    log.warning("The events cannot be read: %s", error)
                missed = True
                continue
            except Exception:
                log.exception("Events could not be read")
                missed = True
                continue
            self._publish([RESET] if missed else found)
            missed = False
