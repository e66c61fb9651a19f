"""Limits on the size of request bodies and on the rate of requests."""

from __future__ import annotations

import asyncio
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from fractions import Fraction
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any, TypeVar

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage, memory
from limits.strategies import MovingWindowRateLimiter
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.middleware.errors import answer
from api.middleware.request_state import exchange
from api.middleware.shared_window import SharedWindow
from errors import (
    BackendUnavailable,
    PayloadTooLarge,
    RateLimited,
    RequestTimeout,
    ValidationFailed,
    VisionLoopError,
)
from serving.fetch import HOLD

Value = TypeVar("Value")

# limits 5.8 measures with the wall clock: set back by a day, it refuses callers for a day.
_patched: Any = memory
_patched.time = SimpleNamespace(time=monotonic)


class PathTable(dict[str, Value]):
    """A dict with paths as keys, in which `*` matches any text.

    Examples:
        >>> PathTable({"/a/*/b": 1}).get("/a/x/b")
        1
    """

    def __init__(self, values: Mapping[str, Value]) -> None:
        super().__init__(values)
        self._patterns = [key for key in values if "*" in key]

    def get(self, key: str, default: Any = None) -> Any:
        return self[found] if (found := self._find(key)) is not None else default

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._find(key) is not None

    def _find(self, key: str) -> str | None:
        if super().__contains__(key):
            return key
        return next((p for p in self._patterns if fnmatchcase(key, p)), None)


PROBES = frozenset({"/livez", "/readyz", "/healthz"})
IMAGES = re.compile(  # what pages show many of at once, ready made or kept
    r"/api/datasets/[^/]+/(images|pictures)/[0-9a-f]{64}|/api/annotation/kept/[^/]+"
    r"|/metrics/[^/]+/(plots|worst)/[^/]+"
)
IMAGES_AS_ONE = 100  # images count as one other request
TOGETHER = 512 * 1024**2  # maximum bytes of all request bodies in memory
JSON_WEIGHT = 4  # a body of JSON is in memory as bytes, as text, decoded, and sent to a runner
CLIENT_SHARE = 0.5  # of these bytes for one client, by its token and address
NEARLY_FULL = 0.75  # share of the bytes, or of a client's, above which slow bodies are refused
SLOW_SECONDS = 5.0  # a body is slow if it brings less than SLOW_BYTES in this time
SLOW_BYTES = 64 * 1024
ROOM_STEP = 16 * 1024**2  # bytes of a body between two checks of the disk
LINGER = 10.0  # maximum seconds for which a refused upload is still read
LINGER_PAUSE = 2.0  # seconds without a byte of it, after which it is not


class BodyLimit:
    """ASGI middleware that refuses a body above `limit` bytes, counted while it is received.

    `larger` maps paths to other limits; bodies for these paths are written to disk. All other
    bodies are kept in memory until their requests end: at most `together` bytes in total, or twice
    the limit if that is more, and half of it for one client. A body of JSON counts JSON_WEIGHT
    times, and what a request has the server fetch counts as well. When nearly all of either is
    taken, a body that brings less than SLOW_BYTES in `slow_seconds` is refused, so that nobody
    keeps the memory by pausing. `Content-Length` is used only to refuse a body early.

    `no_room` returns the error for a body that the disk has no room for, given the bytes that are
    still to come; it is asked at the begin of a body that is written to disk, and again every
    ROOM_STEP bytes.
    """

    def __init__(
        self,
        app: ASGIApp,
        limit: int,
        larger: Mapping[str, int] | None = None,
        together: int = TOGETHER,
        no_room: Callable[[int], VisionLoopError | None] = lambda _: None,
        slow_seconds: float = SLOW_SECONDS,
    ) -> None:
        self.app = app
        self.slow_seconds = slow_seconds
        self.no_room = no_room
        self.limit = limit
        self.larger = larger or {}
        self.together = max(together, 2 * limit)
        self.share = int(self.together * CLIENT_SHARE)
        self.json_weight = max(1, min(JSON_WEIGHT, self.share // limit))  # one body always fits
        self.held = 0
        self.held_by: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = _Body(self, scope, receive, send)
        length = Headers(scope=scope).get("content-length", "0")
        if not (length.isascii() and length.isdigit() and len(length) < 20):
            wrong = ValidationFailed("'Content-Length' must be a whole number of bytes.")
            await answer(scope, wrong, {"Connection": "close"})(scope, receive, send)
            return
        if (error := body.refused_at_once(int(length))) is not None:
            await _refuse(scope, receive, send, error, body.limit)
            return
        before = HOLD.set(body.hold_more)
        try:
            await self.app(scope, body.receive, body.send)
        except Exception:
            if not body.refusal or body.answered:
                raise
        finally:
            HOLD.reset(before)
            body.release()
        if body.refusal and not body.answered:
            await _refuse(scope, receive, send, body.refusal, body.limit)

    def hold(self, client: str, length: int) -> None:
        """Count bytes that a client's request holds in memory, or, if negative, holds no more."""
        self.held += length
        self.held_by[client] += length
        if not self.held_by[client]:
            del self.held_by[client]

    def too_much(self, client: str) -> VisionLoopError | None:
        """The error if more memory is held than all requests, or this client's, may hold."""
        if self.held > self.together:
            return BackendUnavailable("Too many uploads at the same time. Try again.", 2)
        if self.held_by[client] > self.share:
            return RateLimited(
                f"Your requests have more than {self.share / 2**20:g} MiB of bodies, fetched "
                "and drawn images at the same time. Send fewer at once.",
                2,
            )
        return None

    def scarce(self, client: str) -> bool:
        """Whether nearly all of the memory is taken, or of this client's share."""
        full = self.held > NEARLY_FULL * self.together
        return full or self.held_by[client] > NEARLY_FULL * self.share


class _Body:
    """The body of a request while it is received, and the memory that the request holds.

    Attributes:
        limit: Most bytes.
        refusal: The error with which it was refused.
        answered: Whether the response has begun.
    """

    def __init__(self, limits: BodyLimit, scope: Scope, receive: Receive, send: Send) -> None:
        self._limits = limits
        self._receive = receive
        self._send = send
        self._in_memory = scope["path"] not in limits.larger
        self._on_disk = scope["method"] == "POST" and not self._in_memory
        self._client = f"{exchange(scope).client} {(scope.get('client') or ('',))[0]}"
        is_json = "json" in Headers(scope=scope).get("content-type", "").lower()
        self._weight = (limits.json_weight if is_json else 1) * self._in_memory
        self._seen = self._checked = self._fetched = 0  # bytes
        self._complete = False
        self._since, self._brought = monotonic(), 0  # begin of the time looked at, `_seen` then
        self.limit = limits.larger.get(scope["path"], limits.limit)
        self.refusal: VisionLoopError | None = None
        self.answered = False

    def refused_at_once(self, length: int) -> VisionLoopError | None:
        """The error for a body of this length, before it is received."""
        if length > self.limit:
            return self._too_large()
        return self._limits.no_room(length) if self._on_disk else None

    async def receive(self) -> Message:
        """The next message. Raises the error with which the body is refused."""
        message = await (
            self._paced() if self._in_memory and not self._complete else self._receive()
        )
        self._complete = not message.get("more_body", False)
        length = len(message.get("body", b""))
        self._seen += length
        self._limits.hold(self._client, length * self._weight)
        if self._seen > self.limit:
            self.refusal = self._too_large()
        elif error := self._limits.too_much(self._client):
            self.refusal = error
        elif self._on_disk and self._seen - self._checked >= ROOM_STEP:
            self._checked = self._seen
            self.refusal = self._limits.no_room(0)
        if self.refusal:
            raise self.refusal
        return message

    async def send(self, message: Message) -> None:
        """Pass a message on, unless it is the application's response to a body that was cut."""
        if self.refusal and not self.answered:
            return
        self.answered = True
        await self._send(message)

    def hold_more(self, length: int) -> None:
        """Count what the request has the server fetch. Raises the error if that is too much."""
        self._limits.hold(self._client, length)
        self._fetched += length
        if length > 0 and (error := self._limits.too_much(self._client)):
            self._limits.hold(self._client, -length)
            self._fetched -= length
            raise error

    def release(self) -> None:
        """Count its memory as free, when the request has ended."""
        self._limits.hold(self._client, -self._seen * self._weight - self._fetched)

    async def _paced(self) -> Message:
        """The next message. Raises RequestTimeout if the body is slow and memory is scarce."""
        loop = asyncio.get_running_loop()
        while True:
            left = self._since + self._limits.slow_seconds - monotonic()
            try:
                async with asyncio.timeout_at(loop.time() + left):
                    return await self._receive()
            except TimeoutError:
                if self._limits.scarce(self._client) and self._seen - self._brought < SLOW_BYTES:
                    self.refusal = RequestTimeout(
                        "The body pauses while others wait for its memory. Send it again."
                    )
                    raise self.refusal from None
                self._since, self._brought = monotonic(), self._seen

    def _too_large(self) -> PayloadTooLarge:
        setting = "VISIONLOOP_MAX_BODY_MB"
        if not self._in_memory:
            setting = "VISIONLOOP_MAX_UPLOAD_MB (of models VISIONLOOP_MAX_MODEL_MB)"
        return PayloadTooLarge(
            f"The request body is larger than the {self.limit / 2**20:g} MiB allowed. Send less, "
            f"or ask the operator to raise {setting}."
        )


async def _refuse(
    scope: Scope, receive: Receive, send: Send, error: VisionLoopError, limit: int
) -> None:
    """Send the error at once, then read and discard up to `limit` more bytes.

    Most clients read the response only after they have sent the whole body. If the server closed
    the connection earlier, it would be reset and the response lost.
    """
    left = limit

    async def lingering(message: Message) -> None:
        nonlocal left
        if message["type"] == "http.response.body":
            await send({**message, "more_body": True})
            try:
                clock = asyncio.get_running_loop().time
                end = clock() + LINGER
                async with asyncio.timeout(LINGER_PAUSE) as pause:
                    more = True
                    while more and left > 0:
                        dropped = await receive()
                        pause.reschedule(min(end, clock() + LINGER_PAUSE))
                        left -= len(dropped.get("body", b""))
                        more = dropped.get("more_body", False)
            except TimeoutError:
                pass
            message = {"type": "http.response.body", "body": b""}
        await send(message)

    await answer(scope, error, {"Connection": "close"})(scope, receive, lingering)


class RateLimit:
    """ASGI middleware that allows each caller `rate` requests per second; 0: no limit.

    Images that pages show are counted apart, IMAGES_AS_ONE times as many: whoever scrolls through
    a list of images can still do everything else.

    `folder`: where several gateway processes count together; None: there is only this one.
    """

    def __init__(self, app: ASGIApp, rate: float, folder: Path | None = None) -> None:
        self.app = app
        self.rate = rate
        share = Fraction(rate).limit_denominator(60) if rate >= 1 else Fraction(1, _seconds(rate))
        self.item = RateLimitItemPerSecond(share.numerator, share.denominator)
        self.images = RateLimitItemPerSecond(share.numerator * IMAGES_AS_ONE, share.denominator)
        self.limiter = MovingWindowRateLimiter(MemoryStorage())
        self.shared = SharedWindow(folder, share.numerator, share.denominator) if folder else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self.rate or scope["path"] in PROBES:
            await self.app(scope, receive, send)
            return
        read = scope["method"] in ("GET", "HEAD")
        images = read and IMAGES.fullmatch(scope["path"]) is not None
        error = self.count(exchange(scope).client, images)
        if error is None:
            await self.app(scope, receive, send)
        else:
            await answer(scope, error)(scope, receive, send)

    def count(self, client: str, images: bool = False) -> VisionLoopError | None:
        """Count a request of `client`. Returns an error if it exceeds the rate, else None."""
        if not self.rate:
            return None
        item, times, what = self.item, 1, "requests"
        if images:
            item, times, what = self.images, IMAGES_AS_ONE, "images"
            client = f"{client} images"
        if self.shared is not None:
            wait = self.shared.hit(client, times)
        elif self.limiter.hit(item, client):
            wait = 0.0
        else:
            wait = self.limiter.get_window_stats(item, client).reset_time - memory.time.time()
            wait = max(wait, 0.001)
        if not wait:
            return None
        return RateLimited(
            f"You sent more than {self.rate * times:g} {what} per second. Send fewer.", max(wait, 1)
        )


def _seconds(rate: float) -> int:
    """Seconds per allowed request, rounded up."""
    return math.ceil(1 / rate) if rate else 1
