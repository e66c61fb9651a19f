"""The memory of request bodies: a bound for all, a share for each client, no place for pauses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from api.middleware import limits
from api.middleware.errors import answer
from api.middleware.limits import SLOW_BYTES, BodyLimit
from api.middleware.request_state import exchange
from errors import PayloadTooLarge, RateLimited
from serving.fetch import held_briefly, read_held
from tests.support.patience import PATIENCE, until

KIB = 1024


async def reading(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers the length of the body."""
    length, more = 0, True
    while more:
        message = await receive()
        length += len(message.get("body", b""))
        more = message.get("more_body", False)
    await PlainTextResponse(str(length))(scope, receive, send)


def message(size: int, more: bool = False) -> Message:
    return {"type": "http.request", "body": b"x" * size, "more_body": more}


def coming(*messages: Message) -> Receive:
    """A client that sends these, then nothing."""
    waiting = list(messages)

    async def receive() -> Message:
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop(0)

    return receive


async def upload(
    app: BodyLimit,
    receive: Receive,
    client: str = "a",
    token: str = "",
    path: str = "/infer",
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> tuple[int, bytes]:
    """The status and the body of the response."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": path}
    scope |= {"headers": headers, "client": (client, 1)}
    exchange(scope).client = f"token {token}" if token else f"address {client}"
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(part.get("body", b"") for part in sent)


def held(go_on: asyncio.Event) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """An application that keeps bodies sent to /held until `go_on`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await reading(scope, receive, send)
        if scope["path"] == "/held":
            await go_on.wait()

    return app


def test_bodies_that_would_take_too_much_memory_together_are_refused() -> None:
    async def run() -> None:
        go_on = asyncio.Event()
        app = BodyLimit(held(go_on), 100, {"/spooled": 1000}, together=200)
        holding = [
            asyncio.create_task(upload(app, coming(message(80)), client, path="/held"))
            for client in "ab"
        ]
        await until(lambda: app.held == 160)
        status, body = await upload(app, coming(message(80)), "c")
        assert status == 503
        assert b"BACKEND_UNAVAILABLE" in body
        assert (await upload(app, coming(message(30)), "c"))[0] == 200
        spooled = await upload(app, coming(message(500)), "c", path="/spooled")
        assert spooled[0] == 200  # goes to a file
        go_on.set()
        assert [(await one)[0] for one in holding] == [200, 200]
        assert (await upload(app, coming(message(80)), "c"))[0] == 200
        assert not app.held_by

    asyncio.run(run())


@pytest.mark.parametrize("token", ["", "t"])
def test_one_client_takes_half_of_the_memory_at_most(token: str) -> None:
    async def run() -> None:
        go_on = asyncio.Event()
        app = BodyLimit(held(go_on), 100, together=200)
        first = asyncio.create_task(upload(app, coming(message(80)), "a", token, "/held"))
        await until(lambda: app.held == 80)
        status, body = await upload(app, coming(message(80)), "a", token)
        assert status == 429
        assert b"at the same time. Send fewer at once." in body
        assert (await upload(app, coming(message(20)), "a", token))[0] == 200
        assert (await upload(app, coming(message(80)), "b", token))[0] == 200
        go_on.set()
        assert (await first)[0] == 200
        assert not app.held_by

    asyncio.run(run())


def pausing(size: int) -> Receive:
    return coming(message(size, more=True))


def dripping(size: int) -> Receive:
    """A client that sends most at once, and then one byte after the other without end."""
    first = True

    async def receive() -> Message:
        nonlocal first
        if first:
            first = False
            return message(size, more=True)
        await asyncio.sleep(0.001)  # a cancelled call loses nothing, as uvicorn's
        return message(1, more=True)

    return receive


@pytest.mark.parametrize("slow", [pausing, dripping])
@pytest.mark.parametrize("others", [["a"], ["a", "b", "c"]], ids=["its share", "all memory"])
def test_slow_bodies_give_way_while_memory_is_scarce(
    slow: Callable[[int], Receive], others: list[str]
) -> None:
    async def run() -> None:
        app = BodyLimit(reading, 100 * KIB, together=200 * KIB, slow_seconds=0.05)
        size = 80 * KIB if len(others) == 1 else 55 * KIB
        sending = [asyncio.create_task(upload(app, slow(size), client)) for client in others]
        done, rest = await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
        for one in rest:  # they may take their time: there is memory again
            one.cancel()
        for one in done:
            status, body = one.result()
            assert status == 408
            assert b"REQUEST_TIMEOUT" in body

    asyncio.run(run())


def test_a_body_that_pauses_is_waited_for_while_there_is_memory() -> None:
    async def run() -> None:
        app = BodyLimit(reading, 100 * KIB, together=200 * KIB, slow_seconds=0.01)
        go_on = asyncio.Event()
        waiting = [message(50 * KIB, more=True), message(KIB)]

        async def receive() -> Message:
            if len(waiting) == 1:
                await go_on.wait()
            return waiting.pop(0)

        sent = asyncio.create_task(upload(app, receive))
        await asyncio.sleep(0.1)  # ten times as long as a slow body is given
        assert not sent.done()
        go_on.set()
        assert await sent == (200, b"%d" % (51 * KIB))

    asyncio.run(run())


def test_a_body_that_keeps_coming_is_not_slow() -> None:
    async def run() -> None:
        app = BodyLimit(reading, 1000 * SLOW_BYTES, together=1, slow_seconds=0.2)
        left = 900

        async def receive() -> Message:
            nonlocal left
            await asyncio.sleep(0.0005)
            left -= 1
            return message(SLOW_BYTES, more=left > 0)

        status, body = await upload(app, receive)
        assert (status, int(body)) == (200, 900 * SLOW_BYTES)

    asyncio.run(run())


def test_who_waits_for_the_answer_does_not_pause() -> None:
    """Handlers go on to receive, to see whether the client is still there."""

    async def watching(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await receive()
        await PlainTextResponse("ok")(scope, receive, send)

    async def run() -> Any:
        app = BodyLimit(watching, 100, together=100, slow_seconds=0.01)
        return await upload(app, coming(message(90)))

    assert asyncio.run(run()) == (200, b"ok")


def test_what_a_request_fetches_counts_as_its_body_until_it_ends() -> None:
    async def chunks(size: int) -> AsyncIterator[bytes]:
        for _ in range(size // 10):
            yield b"x" * 10

    def too_large() -> Exception:
        return PayloadTooLarge("")

    async def fetching(scope: Scope, receive: Receive, send: Send) -> None:
        with held_briefly():
            await read_held(chunks(40), 100, too_large)
        with pytest.raises(PayloadTooLarge):
            await read_held(chunks(50), 30, too_large)
        assert app.held == 10  # the body
        try:
            await read_held(chunks(60 if scope["path"] == "/infer" else 100), 200, too_large)
        except RateLimited as error:
            await answer(scope, error)(scope, receive, send)
            return
        assert app.held == 70
        await PlainTextResponse("ok")(scope, receive, send)

    async def body_then_fetch(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await fetching(scope, receive, send)

    async def run() -> None:
        assert await upload(app, coming(message(10))) == (200, b"ok")
        assert (await upload(app, coming(message(10)), path="/more"))[0] == 429
        assert app.held == 0
        assert not app.held_by

    app = BodyLimit(body_then_fetch, 100, together=200)
    asyncio.run(run())


@pytest.mark.parametrize(("together", "weight"), [(800, 4), (400, 2), (200, 1)])
def test_json_counts_as_often_as_it_is_in_memory(together: int, weight: int) -> None:
    async def run() -> None:
        go_on = asyncio.Event()
        app = BodyLimit(held(go_on), 100, together=together)
        kind = [(b"content-type", b"application/json; charset=utf-8")]
        sent = asyncio.create_task(upload(app, coming(message(100)), path="/held", headers=kind))
        await until(lambda: app.held == 100 * weight)
        go_on.set()
        assert (await sent)[0] == 200
        assert app.held == 0

    asyncio.run(run())


def test_a_refused_upload_is_read_while_it_comes_and_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A proxy that passes a body on slowly sees the error only after it has sent the body."""
    declared = [(b"content-length", b"101")]

    async def run() -> None:
        monkeypatch.setattr(limits, "LINGER_PAUSE", 60.0)
        body = [message(1, more=True)] * 99 + [message(1)]

        async def slowly() -> Message:
            await asyncio.sleep(0.001)
            return body.pop(0)

        assert (await upload(BodyLimit(reading, 100), slowly, headers=declared))[0] == 413
        assert not body
        monkeypatch.setattr(limits, "LINGER_PAUSE", 0.001)
        silent = coming(message(1, more=True))
        assert (await upload(BodyLimit(reading, 100), silent, headers=declared))[0] == 413
        monkeypatch.setattr(limits, "LINGER_PAUSE", 60.0)
        monkeypatch.setattr(limits, "LINGER", 0.001)
        endless = [(b"content-length", b"100000000")]
        assert (await upload(BodyLimit(reading, 10**7), dripping(1), headers=endless))[0] == 413

    asyncio.run(asyncio.wait_for(run(), PATIENCE))
