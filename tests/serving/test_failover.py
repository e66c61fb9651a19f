"""What clients see when the process of a runner ends: nothing, unless their image ended it."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
import pytest

from errors import BackendUnavailable, VisionLoopError
from inference.prediction import InferenceItem, ItemResult
from serving import failover, runner_client
from serving.envelope import Envelope
from serving.failover import Trials
from serving.gateways.peers import has_ended
from serving.idle import IdleTracker
from serving.runner_client import Runner, stand_in_for_each_other
from settings import Settings
from tests.support.patience import PATIENCE, until

POISON = b"poison"
_pids = itertools.count(1)


class Machine:
    """The proxy of a runner whose process ends and is started again, as real ones do."""

    def __init__(self, ended: set[int], restart: float) -> None:
        self.ended = ended
        self.restart = restart
        self.deaths = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.loads = asyncio.Event()
        self.loads.set()
        self.loaded = {"a:1", "old:1", "huge:1"}
        self.deadly: set[str] = set()  # models whose load ends the process
        self.log: list[Any] = []
        self.up = asyncio.Event()
        self._flying: set[asyncio.Future[None]] = set()
        self._start()

    def _start(self) -> None:
        self.pid = next(_pids)
        self.up.set()

    def kill(self) -> None:
        """Every call in flight is lost; a new process is up after `restart` seconds."""
        self.deaths += 1
        self.up.clear()
        self.ended.add(self.pid)
        for call in self._flying:
            if not call.done():
                call.set_exception(aiohttp.ServerDisconnectedError())
        asyncio.get_running_loop().call_later(self.restart, self._start)

    async def call(self, method: str, *args: Any) -> Any:
        await self.up.wait()  # the supervisor holds the socket: calls queue
        lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._flying.add(lost)
        work = asyncio.ensure_future(self._run(method, *args))
        try:
            await asyncio.wait({lost, work}, return_when=asyncio.FIRST_COMPLETED)
            if lost.done():
                lost.result()
            return work.result()
        finally:
            self._flying.discard(lost)
            lost.cancel()
            work.cancel()

    async def _run(self, method: str, *args: Any) -> Any:
        if method == "status":
            return {"process": self.pid, "engines": {}}
        if method == "warm":
            self.log.append(args[0])
            return Envelope(None)
        if method == "load":
            self.log.append(f"load {args[0]}")
            await self.loads.wait()
            if args[0] in self.deadly:
                self.kill()
                await asyncio.Event().wait()
            self.loaded.add(args[0])
            return Envelope(None)
        items: list[InferenceItem] = args[0].content
        self.log.append([item.image for item in items])
        await self.gate.wait()
        cold = [item.defers and item.model not in self.loaded for item in items]
        deadly = (item.model in self.deadly and not item.defers for item in items)
        if any(deadly) or any(item.image == POISON for item in items):
            self.kill()
            await asyncio.Event().wait()
        return Envelope([ItemResult(times={"n": len(items)}, loading=one) for one in cold])


class Pair:
    """Two runners as the gateway has them, and their machines."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, restart: float) -> None:
        ended: set[int] = set()
        monkeypatch.setattr(runner_client, "has_ended", ended.__contains__)
        settings = Settings(request_timeout=PATIENCE, device="cpu", sessions=2, max_batch=2)
        self.machines = [Machine(ended, restart), Machine(ended, restart)]
        self.detector, self.annotator = (
            Runner(name, machine, settings, IdleTracker())
            for name, machine in zip(("detector", "annotator"), self.machines, strict=True)
        )
        stand_in_for_each_other(self.detector, self.annotator)

    async def __aenter__(self) -> Pair:
        for runner in (self.detector, self.annotator):
            runner.start()
            await runner.wait_until_up()
        return self

    async def __aexit__(self, *_: object) -> None:
        for runner in (self.detector, self.annotator):
            await runner.stop()


Run = Callable[[Callable[[Pair], Coroutine[Any, Any, None]], float], None]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    def with_pair(story: Callable[[Pair], Coroutine[Any, Any, None]], restart: float) -> None:
        async def main() -> None:
            async with asyncio.timeout(PATIENCE), Pair(monkeypatch, restart) as pair:
                await story(pair)

        asyncio.run(main())

    return with_pair


def item(image: bytes, model: str = "a:1") -> InferenceItem:
    return InferenceItem(image, model)


def test_images_in_flight_are_tried_again_alone_by_the_other_runner(run: Run) -> None:
    async def story(pair: Pair) -> None:
        first, second = pair.machines
        first.gate.clear()
        asked = [asyncio.create_task(pair.detector.predict(item(b"%d" % i))) for i in range(4)]
        await until(lambda: sum(map(len, first.log)) == 4)
        first.kill()
        assert all(result.error is None for result in await asyncio.gather(*asked))
        assert sorted(second.log) == [[b"0"], [b"1"], [b"2"], [b"3"]]

    run(story, 1000)


def test_the_other_runner_serves_until_this_one_is_back_and_warm(run: Run) -> None:
    async def story(pair: Pair) -> None:
        first, second = pair.machines
        await pair.detector.predict(item(b"before", "old:1"))
        first.log.clear()
        first.kill()
        results = [await pair.detector.predict(item(b"%d" % i)) for i in range(20)]
        assert all(result.error is None for result in results)
        assert second.log == [[b"%d" % i] for i in range(20)]
        await until(lambda: pair.detector._warmed)
        assert first.log[0] == "old:1"
        first.log.clear()
        await pair.detector.predict(item(b"after"))
        assert first.log == [[b"after"]]

    run(story, 0.3)


def test_when_both_are_away_images_wait(run: Run) -> None:
    async def story(pair: Pair) -> None:
        for machine in pair.machines:
            machine.gate.clear()
        asked = [asyncio.create_task(pair.detector.predict(item(b"%d" % i))) for i in range(4)]
        asked += [asyncio.create_task(pair.annotator.predict(item(b"%d" % i))) for i in range(4)]
        await until(lambda: all(sum(map(len, one.log)) == 4 for one in pair.machines))
        for machine in pair.machines:
            machine.kill()
            machine.gate.set()
        late = asyncio.create_task(pair.detector.predict(item(b"late")))
        assert all(result.error is None for result in await asyncio.gather(*asked, late))

    run(story, 0.3)


def test_an_image_that_ends_a_second_process_is_refused_and_no_other(run: Run) -> None:
    async def story(pair: Pair) -> None:
        images = [b"a", POISON, b"b", b"c", b"d", b"e", POISON]
        asked = [asyncio.create_task(pair.detector.predict(item(image))) for image in images]
        results = await asyncio.gather(*asked, return_exceptions=True)
        for image, result in zip(images, results, strict=True):
            assert isinstance(result, ItemResult)
            assert (result.error is not None) == (image == POISON)
        assert sum(machine.deaths for machine in pair.machines) == 2
        with pytest.raises(VisionLoopError, match="refused for 10 minutes") as refused:
            await pair.annotator.predict(item(POISON))
        assert refused.value.status == 500
        assert sum(machine.deaths for machine in pair.machines) == 2

    run(story, 0.1)


def test_a_model_that_ends_its_process_is_not_loaded_for_ever(run: Run) -> None:
    async def story(pair: Pair) -> None:
        first, _ = pair.machines
        await pair.detector.predict(item(b"x", "huge:1"))
        call = first._run

        async def dying(method: str, *args: Any) -> Any:
            if method == "warm":
                first.kill()
                await asyncio.Event().wait()
            return await call(method, *args)

        first._run = dying  # type: ignore[method-assign]
        first.kill()
        await until(lambda: first.deaths == 2)
        await until(lambda: pair.detector._warmed)
        assert first.deaths == 2

    run(story, 0.1)


def test_images_wait_for_their_model_in_the_process_that_predicts(run: Run) -> None:
    async def story(pair: Pair) -> None:
        first, second = pair.machines
        first.loads.clear()
        asked = [asyncio.create_task(pair.detector.predict(item(b"c", "cold:1"))) for _ in "12"]
        await until(lambda: "load cold:1" in first.log)
        results = [await pair.detector.predict(item(b"%d" % i)) for i in range(20)]
        assert all(result.error is None for result in results)
        assert not any(task.done() for task in asked)
        first.kill()  # each is tried alone, as the load may have been the cause
        assert all(r.error is None and not r.loading for r in await asyncio.gather(*asked))
        assert second.log.count([b"c"]) == 2

    run(story, 1000)


def test_a_model_whose_load_ends_the_process_ends_two_and_refuses_its_images(run: Run) -> None:
    async def story(pair: Pair) -> None:
        for machine in pair.machines:
            machine.deadly.add("huge:2")
        result = await pair.detector.predict(item(b"x", "huge:2"))
        assert "refused for 10 minutes" in str(result.error)
        assert sum(machine.deaths for machine in pair.machines) == 2
        assert (await pair.detector.predict(item(b"y"))).error is None

    run(story, 0.1)


def test_during_a_shutdown_nobody_waits_for_a_process_that_has_ended(run: Run) -> None:
    async def story(pair: Pair) -> None:
        for machine in pair.machines:
            machine.gate.clear()
        asked = asyncio.create_task(pair.detector.predict(item(b"x")))
        await until(lambda: pair.machines[0].log)
        for runner in (pair.detector, pair.annotator):
            runner.begin_shutdown()
        pair.machines[1].kill()
        await until(lambda: not pair.annotator.up)
        pair.machines[0].kill()
        assert isinstance((await asked).error, BackendUnavailable)

    run(story, 1000)


def test_a_connection_that_was_idle_too_long_is_no_death(run: Run) -> None:
    async def story(pair: Pair) -> None:
        first, second = pair.machines
        call = first.call
        stale = iter([aiohttp.ServerDisconnectedError()])

        async def once(method: str, *args: Any) -> Any:
            if method == "predict_batch":
                for error in stale:
                    raise error
            return await call(method, *args)

        first.call = once  # type: ignore[method-assign]
        assert (await pair.detector.predict(item(b"x"))).error is None
        assert (first.log, second.log) == ([[b"x"]], [])

    run(story, 1000)


def test_a_refusal_is_of_one_image_with_one_model_and_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(failover.time, "monotonic", lambda: now)
    trials = Trials()
    trials.refuse(item(b"x"))
    assert trials.refusal(item(b"x")) is not None
    assert trials.refusal(item(b"y")) is None
    assert trials.refusal(item(b"x", "b:1")) is None
    now = failover.REFUSED_SECONDS
    assert trials.refusal(item(b"x")) is None


def test_a_process_has_ended_before_its_parent_has_waited_for_it() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert not has_ended(process.pid)
    process.kill()
    asyncio.run(until(lambda: has_ended(process.pid)))
    process.communicate()
    assert has_ended(process.pid)
