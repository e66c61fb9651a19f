"""The code with which the documentation has receivers verify a message."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from jobs.webhooks.event import TEST, body, signature
from jobs.webhooks.post import SIGNATURE, TIMESTAMP, client, post
from tests.docs.pages import DOCS, blocks
from tests.support.webhook_receiver import SECRET, receiving

PAGE = DOCS / "how-to" / "get-told-when-jobs-end.md"


@pytest.fixture(scope="module")
def verify() -> Any:
    (code,) = [block.text for block in blocks(PAGE) if block.kind == "python"]
    named: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), named)  # noqa: S102
    return named["verify"]


def test_a_message_that_was_sent_passes(verify: Any) -> None:
    content = body(TEST, "1", "2026-11-30T08:00:00.000+00:00", None)

    async def send(address: str) -> None:
        async with client() as http:
            await post(http, address, SECRET, TEST, "1", content)

    with receiving() as receiver:
        asyncio.run(send(receiver.url))
    (came,) = receiver.requests
    headers = came.headers[TIMESTAMP], came.headers[SIGNATURE]
    assert verify(SECRET, *headers, came.body)
    assert not verify("another secret", *headers, came.body)
    assert not verify(SECRET, *headers, came.body + b" ")
    assert not verify(SECRET, str(int(headers[0]) + 1), headers[1], came.body)


def test_an_old_or_malformed_message_does_not_pass(verify: Any) -> None:
    now = int(time.time())
    for age, passes in ((0, True), (200, True), (-200, True), (400, False), (-400, False)):
        signed = signature(SECRET, now - age, b"{}")
        assert verify(SECRET, str(now - age), signed, b"{}") is passes
    signed = signature(SECRET, now, b"{}")
    for timestamp in ("", "soon", "-1", "1e9", "١"):
        assert not verify(SECRET, timestamp, signed, b"{}")
    for broken in ("", "v1=", signed[3:], "v0" + signed[2:], signed + "é"):
        assert not verify(SECRET, str(now), broken, b"{}")
