"""Scheduling, with calls that finish when the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from errors import BackendTimeout, BackendUnavailable, InvalidImage, VisionLoopError
from inference import batcher as batcher_module
from inference.batcher import Batcher
from inference.prediction import InferenceItem, ItemResult


class Runner:
    """Holds every call until it is released; answers each item with its own number."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.open: list[asyncio.Future[Any]] = []

    async def __call__(self, items: list[InferenceItem]) -> list[ItemResult]:
        self.calls.append([item.model for item in items])
        gate: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.open.append(gate)
        instead = await gate
        if isinstance(instead, BaseException):
            raise instead
        if instead is not None:
            return instead
        return [ItemResult(times={"number": float(item.model)}) for item in items]

    async def release(self, instead: Any = None) -> None:
        self.open.pop(0).set_result(instead)
        await settle()


class Clock:
    """Stands for the module `time` of the batcher."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(batcher_module, "time", found)
    return found


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def item(number: int) -> InferenceItem:
    return InferenceItem(b"", str(number))


def submit(batcher: Batcher, *numbers: int) -> list[asyncio.Task[ItemResult]]:
    return [asyncio.create_task(batcher.submit(item(number))) for number in numbers]


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 10))


def test_a_lone_item_leaves_at_once() -> None:
    async def story() -> None:
        runner = Runner()
        (task,) = submit(Batcher(runner, 2, 8, 10), 7)
        await settle()
        assert runner.calls == [["7"]]
        await runner.release()
        assert (await task).times == {"number": 7}

    run(story())


def test_arrivals_gather_while_slots_are_busy_and_leave_the_moment_one_is_free() -> None:
    async def story() -> None:
        runner = Runner()
        batcher = Batcher(runner, slots=1, max_batch=3, queue_length=10)
        tasks = submit(batcher, 0)
        await settle()
        tasks += submit(batcher, 1, 2, 3, 4)
        await settle()
        assert runner.calls == [["0"]]
        assert batcher.stats.queued == 4
        await runner.release()
        assert runner.calls == [["0"], ["1", "2", "3"]]
        await runner.release()
        assert runner.calls[2:] == [["4"]]
        await runner.release()
        assert [task.result().times["number"] for task in tasks] == [0, 1, 2, 3, 4]
        stats = batcher.stats
        assert (stats.items, stats.calls, stats.queued, stats.running_calls) == (5, 3, 0, 0)

    run(story())


def test_what_arrives_together_is_split_evenly_over_free_slots() -> None:
    async def story() -> None:
        runner = Runner()
        tasks = submit(Batcher(runner, slots=3, max_batch=4, queue_length=20), *range(7))
        await settle()
        assert [len(call) for call in runner.calls] == [3, 2, 2]
        while runner.open:
            await runner.release()
        await asyncio.gather(*tasks)

    run(story())


def test_first_come_first_served() -> None:
    async def story() -> None:
        runner = Runner()
        batcher = Batcher(runner, slots=2, max_batch=2, queue_length=100)
        tasks = submit(batcher, *range(30))
        await settle()
        while runner.open:
            await runner.release()
        order = [int(number) for call in runner.calls for number in call]
        assert order == list(range(30))
        await asyncio.gather(*tasks)

    run(story())


def test_a_full_queue_refuses_with_an_estimate_of_the_wait(clock: Clock) -> None:
    async def story() -> None:
        runner = Runner()
        batcher = Batcher(runner, slots=1, max_batch=1, queue_length=2)
        tasks = submit(batcher, 0)
        await settle()
        tasks += submit(batcher, 1, 2)
        await settle()
        with pytest.raises(BackendUnavailable) as caught:
            await batcher.submit(item(3))
        assert caught.value.retry_after == 1
        assert batcher.stats.rejected == 1

        clock.now += 0.3  # the first call took this long: two more will take 0.6 s
        await runner.release()
        assert batcher.stats.views_per_second == pytest.approx(1 / 0.3)
        while runner.open:
            await runner.release()
        await asyncio.gather(*tasks)
        assert (await accepted(batcher, runner)).times == {"number": 9}

    async def accepted(batcher: Batcher, runner: Runner) -> ItemResult:
        (task,) = submit(batcher, 9)
        await settle()
        await runner.release()
        return await task

    run(story())


def test_the_views_of_waiting_items_are_counted() -> None:
    async def story() -> None:
        runner = Runner()
        batcher = Batcher(runner, slots=1, max_batch=1, queue_length=100)
        tiled = replace(item(1), views=65)
        tasks = submit(batcher, 0)
        await settle()
        tasks += [asyncio.create_task(batcher.submit(tiled)) for _ in range(2)]
        await settle()
        with pytest.raises(BackendUnavailable, match="2 requests are already waiting"):
            await batcher.submit(item(3))
        while runner.open:
            await runner.release()
        await asyncio.gather(*tasks)

    run(story())


def test_retry_after_grows_with_the_queue(clock: Clock) -> None:
    async def story() -> None:
        runner = Runner()
        batcher = Batcher(runner, slots=1, max_batch=1, queue_length=40)
        tasks = submit(batcher, *range(41))
        await settle()
        clock.now += 0.2
        await runner.release()  # five a second
        submit(batcher, 41)
        await settle()
        with pytest.raises(BackendUnavailable) as caught:
            await batcher.submit(item(99))
        assert caught.value.retry_after == 8  # 40 wait
        while runner.open:
            await runner.release()
        await asyncio.gather(*tasks)

    run(story())


def test_an_item_whose_caller_left_is_never_sent() -> None:
    async def story() -> None:
        runner = Runner()
        batcher = Batcher(runner, slots=1, max_batch=8, queue_length=10)
        tasks = submit(batcher, 0)
        await settle()
        tasks += submit(batcher, 1, 2, 3)
        await settle()
        tasks[2].cancel()
        await settle()
        assert batcher.stats.queued == 2
        assert batcher.stats.dropped == 1
        tasks[1].cancel()  # and without a turn of the loop in between
        await runner.release()
        assert runner.calls == [["0"], ["3"]]
        await runner.release()
        assert (await tasks[3]).times == {"number": 3}

    run(story())


def test_when_all_waiting_callers_left_the_slot_stays_usable() -> None:
    async def story() -> None:
        runner = Runner()
        batcher = Batcher(runner, slots=1, max_batch=2, queue_length=10)
        first = submit(batcher, 0)
        await settle()
        waiting = submit(batcher, 1, 2, 3)
        await settle()
        for task in waiting:
            task.cancel()
        await runner.release()
        last = submit(batcher, 4)
        await settle()
        assert runner.calls == [["0"], ["4"]]
        await runner.release()
        await asyncio.gather(*first, *last)

    run(story())


def test_caller_leaving_during_the_call_disturbs_no_neighbour() -> None:
    async def story() -> None:
        runner = Runner()
        tasks = submit(Batcher(runner, slots=1, max_batch=2, queue_length=10), 0, 1)
        await settle()
        tasks[0].cancel()
        await runner.release()
        assert (await tasks[1]).times == {"number": 1}

    run(story())


@pytest.mark.parametrize(
    ("failure", "expected", "retry_after"),
    [
        (aiohttp.ServerDisconnectedError(), BackendUnavailable, 1),
        (ConnectionRefusedError(), BackendUnavailable, 1),
        (TimeoutError(), BackendTimeout, None),
        (BackendUnavailable("restarting", 10), BackendUnavailable, 10),
        (RuntimeError("secret /path"), VisionLoopError, None),
        ([], VisionLoopError, None),
    ],
)
def test_a_failed_call_fails_its_own_items_only(
    failure: Any, expected: type[VisionLoopError], retry_after: float | None
) -> None:
    async def story() -> None:
        runner = Runner()
        batcher = Batcher(runner, slots=1, max_batch=2, queue_length=10)
        tasks = submit(batcher, 0, 1, 2)
        await settle()
        await runner.release(failure)
        for task in tasks[:2]:
            with pytest.raises(expected) as caught:
                await task
            assert type(caught.value) is expected
            assert caught.value.retry_after == retry_after
            assert "secret" not in caught.value.message
        await runner.release()
        assert (await tasks[2]).times == {"number": 2}
        assert batcher.stats.failed_calls == 1

    run(story())


def test_an_items_own_error_is_a_result() -> None:
    async def story() -> None:
        runner = Runner()
        tasks = submit(Batcher(runner, slots=1, max_batch=2, queue_length=10), 0, 1)
        await settle()
        bad = ItemResult(error=InvalidImage("cut"))
        await runner.release([bad, ItemResult()])
        assert await tasks[0] == bad
        assert (await tasks[1]).error is None

    run(story())


def test_a_hung_call_times_out_and_gives_its_slot_back() -> None:
    async def story() -> None:
        runner = Runner()
        batcher = Batcher(runner, slots=1, max_batch=1, queue_length=10, timeout=0.1)
        tasks = submit(batcher, 0)
        with pytest.raises(BackendTimeout):
            await tasks[0]
        await settle()
        assert batcher.stats.running_calls == 0
        again = submit(batcher, 1)
        await settle()
        runner.open.pop(0)
        await runner.release()
        assert (await again[0]).times == {"number": 1}

    run(story())


def test_closing_refuses_what_waits_and_finishes_what_runs() -> None:
    async def story() -> None:
        runner = Runner()
        batcher = Batcher(runner, slots=1, max_batch=1, queue_length=10)
        tasks = submit(batcher, 0, 1)
        await settle()
        closing = asyncio.create_task(batcher.close())
        await settle()
        with pytest.raises(BackendUnavailable):
            await tasks[1]
        with pytest.raises(BackendUnavailable):
            await batcher.submit(item(2))
        assert not closing.done()
        await runner.release()
        assert (await tasks[0]).times == {"number": 0}
        await closing
        assert runner.calls == [["0"]]

    run(story())


def test_every_call_is_observed() -> None:
    async def story() -> None:
        runner = Runner()
        seen: list[tuple[int, float]] = []
        batcher = Batcher(runner, 1, 4, 10, observe=lambda size, s: seen.append((size, s)))
        tasks = submit(batcher, 0, 1, 2)
        await settle()
        await runner.release()
        await asyncio.gather(*tasks)
        assert [size for size, _ in seen] == [3]

    run(story())
