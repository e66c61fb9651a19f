"""A runner from both sides: as the gateway calls it, and as it answers."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from starlette.responses import PlainTextResponse

from api.app import guarded
from errors import BackendTimeout, BackendUnavailable, ModelNotFound
from inference.prediction import InferenceItem, ItemResult
from inference.tiles import MANY_VIEWS
from serving import model_runner
from serving.envelope import Envelope
from serving.http_protocol import UNIX_SOCKET
from serving.idle import IdleTracker
from serving.model_runner import ModelRunner, predict_alone
from serving.runner_client import HEAVY_QUEUE, Runner
from serving.telemetry import BATCH_SIZE
from settings import Settings
from tests.support.patience import PATIENCE


class Proxy:
    """What `bentoml.depends` gives, with answers by method."""

    def __init__(self, **answers: Callable[..., Any]) -> None:
        self.answers = answers

    async def call(self, method: str, *args: Any) -> Any:
        return await self.answers[method](*args)


async def there() -> dict[str, Any]:
    return {"engines": {}}


def runner(**answers: Callable[..., Any]) -> Runner:
    settings = Settings(request_timeout=0.3, device="cpu")
    return Runner("detector", Proxy(status=there, **answers), settings, IdleTracker())


def test_an_item_waits_as_long_as_its_request_may() -> None:
    async def predict_batch(items: Any) -> Any:
        await asyncio.sleep(PATIENCE)

    async def run() -> None:
        found = runner(predict_batch=predict_batch)
        found.start()
        await found.wait_until_up()
        with pytest.raises(BackendTimeout, match=r"0\.3 seconds"):
            await asyncio.wait_for(found.predict(InferenceItem(b"", "a:1")), PATIENCE)
        await found.stop()

    asyncio.run(run())


def test_the_size_of_a_batch_is_counted() -> None:
    async def predict_batch(items: Any) -> Any:
        return Envelope([ItemResult() for _ in items.content])

    def counted() -> float:
        samples = next(iter(BATCH_SIZE.collect())).samples
        return sum(s.value for s in samples if s.name.endswith("_sum"))

    async def run() -> None:
        found = runner(predict_batch=predict_batch)
        found.start()
        await found.wait_until_up()
        before = counted()
        await asyncio.gather(*(found.predict(InferenceItem(b"", "a:1")) for _ in range(3)))
        assert counted() == before + 3
        await found.stop()

    asyncio.run(run())


def test_a_surprise_does_not_end_the_watch(caplog: pytest.LogCaptureFixture) -> None:
    surprises = iter([KeyError("surprise")])

    async def status() -> dict[str, Any]:
        for surprise in surprises:
            raise surprise
        return {}

    async def run() -> None:
        found = Runner("r", Proxy(status=status), Settings(), IdleTracker(), poll=0.01)
        found.start()
        await asyncio.wait_for(found.wait_until_up(), PATIENCE)
        await found.stop()

    asyncio.run(run())
    assert "surprise" in caplog.text


def test_a_model_that_is_not_there_is_said_by_warm_on_both_sides() -> None:
    async def run() -> None:
        service = ModelRunner()
        parcel = await service.warm("gone:1")
        assert isinstance(parcel.content, ModelNotFound)

        async def warm(tag: str) -> Any:
            return await service.warm(tag)

        with pytest.raises(ModelNotFound, match="gone:1"):
            await runner(warm=warm).warm("gone:1")

    asyncio.run(run())


def test_alone_without_any_model_each_picture_is_told(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(b"x")
    model_runner._registry.cache_clear()
    answers = asyncio.run(predict_alone(ModelRunner().runtime, [file, file]))
    assert [answer["code"] for answer in answers] == ["MODEL_NOT_FOUND"] * 2


def test_a_runner_asks_for_the_token_who_comes_over_the_network() -> None:
    app = guarded(PlainTextResponse("ok"), Settings.model_validate({"token": "t"}))

    async def ask(inside: bool | None, *headers: tuple[bytes, bytes]) -> int:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/predict", "headers": list(headers)}
        await app(scope | ({} if inside is None else {UNIX_SOCKET: inside}), receive, send)
        return int(sent[0]["status"])

    assert asyncio.run(ask(False)) == 401
    assert asyncio.run(ask(None)) == 401  # an address that is not known is no proof
    assert asyncio.run(ask(False, (b"authorization", b"Bearer t"))) == 200
    assert asyncio.run(ask(True)) == 200  # the gateway, through the socket's file
    pickled = (b"content-type", b"Application/vnd.bentoml+pickle; x=y")
    assert asyncio.run(ask(True, pickled)) == 200
    assert asyncio.run(ask(False, pickled, (b"authorization", b"Bearer t"))) == 400
    assert asyncio.run(ask(False, pickled)) == 401


def test_images_of_many_tiles_go_one_at_a_time_and_others_pass_them() -> None:
    release, running = asyncio.Event(), []

    async def predict_batch(items: Any) -> Any:
        if items.content[0].views > MANY_VIEWS:
            running.append(len(items.content))
            await release.wait()
        return Envelope([ItemResult() for _ in items.content])

    async def run() -> None:
        proxy = Proxy(status=there, predict_batch=predict_batch)
        found = Runner("annotator", proxy, Settings(device="cpu"), IdleTracker())
        found.start()
        await found.wait_until_up()
        tiled = InferenceItem(b"", "a:1", tiles=8, views=65)
        tasks = [asyncio.create_task(found.predict(tiled)) for _ in range(10)]
        for _ in range(20):
            await found.predict(InferenceItem(b"", "a:1", views=MANY_VIEWS))
        assert running == [1]
        release.set()
        await asyncio.gather(*tasks)
        assert running == [1] * 10
        await found.stop()

    asyncio.run(run())


def test_heavy_images_go_one_at_a_time_and_others_pass_them() -> None:
    release, running = asyncio.Event(), []

    async def predict_batch(items: Any) -> Any:
        if items.content[0].heavy:
            running.append(len(items.content))
            await release.wait()
        return Envelope([ItemResult() for _ in items.content])

    async def run() -> None:
        found = Runner(
            "detector",
            Proxy(status=there, predict_batch=predict_batch),
            Settings(device="cpu"),
            IdleTracker(),
        )
        found.start()
        await found.wait_until_up()
        heavy = [
            asyncio.create_task(found.predict(InferenceItem(b"", "a:1", heavy=True)))
            for _ in range(HEAVY_QUEUE + 1)
        ]
        for _ in range(20):
            await found.predict(InferenceItem(b"", "a:1"))
        assert running == [1]
        with pytest.raises(BackendUnavailable, match="8 requests are already waiting"):
            await found.predict(InferenceItem(b"", "a:1", heavy=True))
        release.set()
        await asyncio.gather(*heavy)
        assert running == [1] * (HEAVY_QUEUE + 1)
        await found.stop()

    asyncio.run(run())


def test_a_process_that_lives_but_does_not_answer_is_killed() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    answers = 0

    async def status() -> dict[str, Any]:
        nonlocal answers
        answers += 1
        if answers > 1:
            raise aiohttp.ServerDisconnectedError
        return {"engines": {}, "process": process.pid}

    async def run() -> int:
        proxy = Proxy(status=status)
        found = Runner("r", proxy, Settings(), IdleTracker(), poll=0.01, hung=0.05)
        found.start()
        await found.wait_until_up()
        found._update(answers=False)
        ended = await asyncio.wait_for(asyncio.to_thread(process.wait), PATIENCE)
        await found.stop()
        return ended

    try:
        assert asyncio.run(run()) == -signal.SIGKILL
    finally:
        process.kill()
        process.wait()
