"""One attempt to deliver a webhook."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from jobs.webhooks.event import signature
from setting_values import without_credentials

TIMEOUT = 10.0  # seconds for the whole attempt
MAX_ANSWER = 1024  # bytes of a response's body that are read
GONE = 410

DELIVERY, EVENT, TIMESTAMP, SIGNATURE = (
    "VisionLoop-Delivery",
    "VisionLoop-Event",
    "VisionLoop-Timestamp",
    "VisionLoop-Signature",
)  # headers of the requests


@dataclass(frozen=True)
class Answer:
    """What became of an attempt.

    Attributes:
        status: HTTP status of the response; None if there was none.
        error: A sentence on why the attempt failed; None if the receiver accepted the delivery.
        text: The start of the response's body.
        retry_after: Seconds for which the receiver asked to wait.
    """

    status: int | None
    error: str | None
    text: str = ""
    retry_after: float | None = None


def client() -> httpx.AsyncClient:
    """An HTTP client for attempts; it uses the proxies of the environment, as httpx does."""
    return httpx.AsyncClient(follow_redirects=False, timeout=None)


async def post(
    http: httpx.AsyncClient,
    address: str,
    secret: str,
    event: str,
    delivery_id: str,
    body: str,
    seconds: float = TIMEOUT,
) -> Answer:
    """Send a delivery once. Does not raise for anything that the receiver or the network does."""
    content, timestamp = body.encode(), int(time.time())
    headers = {
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "VisionLoop-Webhook/1",
        DELIVERY: delivery_id,
        EVENT: event,
        TIMESTAMP: str(timestamp),
        SIGNATURE: signature(secret, timestamp, content),
    }
    came: httpx.Response | None = None
    text = bytearray()
    try:
        async with (
            asyncio.timeout(seconds),
            http.stream("POST", address, content=content, headers=headers) as came,
        ):
            async for part in came.aiter_raw():  # not decompressed; the rest is not read
                text += part[: MAX_ANSWER - len(text)]
                if len(text) >= MAX_ANSWER:
                    break
    except TimeoutError:
        if came is None:
            return Answer(None, f"No answer within {seconds:g} s.")
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError, ValueError) as error:
        if came is None:
            said = str(error).replace(address, without_credentials(address))
            return Answer(None, f"{type(error).__name__}: {said}".removesuffix(": "))
    return _answer(came, bytes(text).decode("utf-8", "replace"))


def _answer(response: httpx.Response, text: str) -> Answer:
    """The outcome by the status, which counts even if the body did not arrive in full."""
    status = response.status_code
    if response.is_success:
        return Answer(status, None, text)
    phrase = "".join(c for c in response.reason_phrase if c.isprintable())  # logs show it
    error = f"The receiver answered {status} {phrase}".rstrip() + "."
    if response.is_redirect:
        error += " Redirects are not followed: set the address to which it leads."
    return Answer(status, error, text, _seconds(response.headers.get("retry-after")))


def _seconds(retry_after: str | None) -> float | None:
    """The value of `Retry-After`: seconds or a date; None if it is neither."""
    value = (retry_after or "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # the latter: a zone of many digits
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())
