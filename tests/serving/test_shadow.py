"""What a shadow costs the live traffic: nothing that waits, and nothing when there is no time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from api.middleware.metrics import Measured
from database import Database
from errors import BackendUnavailable, NotFound, ValidationFailed
from inference.agreement import Agreement, Comparison
from inference.prediction import InferenceItem, ItemResult, Prediction
from models_store.registry import Registry
from models_store.store import ModelStore
from serving import shadow as shadowing
from serving.deferred import afterwards
from serving.idle import IdleTracker
from serving.shadow import Shadowing
from settings import Settings
from tests.support.patience import PATIENCE, until
from tests.support.small_models import NAMES, make_model

ITEM = InferenceItem(b"picture", "live:1", confidence=0.4, draw=True)
SEEN = ItemResult(
    Prediction(
        "detect",
        NAMES,
        64,
        64,
        np.array([0], np.int64),
        np.array([0.9], np.float32),
        np.array([[0, 0, 9, 9]], np.float32),
    ),
    times={"inference": 4.0, "preprocess": 1.0},
)
AGREED = Comparison(Agreement(Counter(a=1), Counter(a=1), Counter(a=1)), times={"inference": 7.0})


class Runner:
    """An Annotator that is slow while `gate` is closed, and heeds the third order to halt."""

    def __init__(self) -> None:
        self.idle = IdleTracker()
        self.orders = 0
        self.halted = asyncio.Event()
        self.asked: list[InferenceItem] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.answer: Comparison | Exception = AGREED

    async def warm(self, tag: str) -> None:
        pass

    async def compare(self, item: InferenceItem, live: Prediction) -> Comparison:
        self.asked.append(item)
        opened, halted = (asyncio.ensure_future(e.wait()) for e in (self.gate, self.halted))
        await asyncio.wait([opened, halted], return_when=asyncio.FIRST_COMPLETED)
        if not opened.done():
            self.halted.clear()
            return Comparison()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def halt(self) -> None:
        self.orders += 1
        if self.orders == 3:
            self.halted.set()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("models") / "detect"
    make_model(found, "detect", 32)
    return found


@pytest.fixture
def registry(tmp_path: Path, folder: Path) -> Iterator[Registry]:
    """`live` is active; `candidate` has two versions."""
    settings = Settings(home=tmp_path / "home", device="cpu", sessions=2)
    found = Registry(Database(settings), ModelStore(tmp_path / "bento"))
    for name in ("live", "candidate", "candidate"):
        found.publish(folder, name, {"kind": "import"})
    found.activate("live")
    yield found
    found.database.close()


Story = Callable[[Shadowing, Runner], Coroutine[Any, Any, None]]
Play = Callable[..., None]  # plays a story; further arguments are those of `Shadowing`


@pytest.fixture
def play(registry: Registry) -> Play:
    def run(story: Story, **options: Any) -> None:
        async def whole() -> None:
            runner: Any = Runner()
            shadow = Shadowing(registry, runner, tick=0.05, **options)
            shadow.start()
            try:
                await story(shadow, runner)
            finally:
                runner.gate.set()
                await shadow.stop()

        asyncio.run(asyncio.wait_for(whole(), PATIENCE))

    return run


async def figures(shadow: Shadowing, **wanted: int) -> dict[str, Any]:
    """The stored figures, once they are as wanted."""
    while True:
        row = await shadow.newest()
        assert row is not None
        if all(row.figures.get(name, 0) == count for name, count in wanted.items()):
            return row.figures
        await asyncio.sleep(0.02)


def test_copies_are_compared_with_the_same_thresholds_and_undrawn(
    play: Play, registry: Registry
) -> None:
    async def story(shadow: Shadowing, runner: Runner) -> None:
        await shadow.begin("candidate", 1.0, None)
        for _ in range(3):
            shadow.offer(ITEM, SEEN)
        found = await figures(shadow, seen=3, run=3)
        assert found["classes"] == {side: {"a": 3} for side in ("live", "candidate", "matched")}
        assert (found["agreement"], found["live_ms"], found["candidate_ms"]) == (3, 15, 21)
        [item] = set(runner.asked)
        assert item.model == registry.get("candidate").id
        assert (item.image, item.confidence, item.draw) == (b"picture", 0.4, False)

    play(story)


def test_while_answers_are_due_copies_wait_and_only_the_newest_few(
    play: Play,
) -> None:
    async def story(shadow: Shadowing, runner: Runner) -> None:
        await shadow.begin("candidate", 1.0, None)
        pictures = [str(i).encode() for i in range(shadowing.QUEUE + 3)]
        with runner.idle.busy():
            for picture in pictures:
                shadow.offer(replace(ITEM, image=picture), SEEN)
            await asyncio.sleep(3 * shadowing.PAUSE)
            assert runner.asked == []
        await figures(shadow, seen=len(pictures), run=shadowing.QUEUE, dropped=3)
        assert [item.image for item in runner.asked] == pictures[3:]

    play(story)


def test_a_copy_under_way_stops_for_an_answer_that_is_due(play: Play) -> None:
    async def story(shadow: Shadowing, runner: Runner) -> None:
        await shadow.begin("candidate", 1.0, None)
        runner.gate.clear()
        shadow.offer(ITEM, SEEN)
        await until(lambda: len(runner.asked) == 1)
        assert runner.orders == 0
        with runner.idle.busy():
            await figures(shadow, dropped=1, run=0)
            assert runner.orders == 3  # the first ones came too early, as they may
            shadow.offer(ITEM, SEEN)
        runner.gate.set()
        await figures(shadow, dropped=1, run=1)
        assert runner.orders == 3

    play(story)


def test_failures_are_counted_and_the_next_copy_has_its_turn(
    play: Play,
) -> None:
    async def story(shadow: Shadowing, runner: Runner) -> None:
        await shadow.begin("candidate", 1.0, None)
        runner.answer = BackendUnavailable("The annotator is being restarted.")
        shadow.offer(ITEM, SEEN)
        await figures(shadow, failed=1)
        runner.answer = AGREED
        shadow.offer(ITEM, SEEN)
        await figures(shadow, failed=1, run=1)

    play(story)


def test_a_fraction_is_chosen_by_chance(play: Play) -> None:
    chances = iter([0.1, 0.24, 0.25, 0.9])

    async def story(shadow: Shadowing, runner: Runner) -> None:
        await shadow.begin("candidate", 0.25, None)
        for _ in range(4):
            shadow.offer(ITEM, SEEN)
        await figures(shadow, seen=4, run=2, dropped=0)

    play(story, chance=lambda: next(chances))


def test_whose_answers_fit(play: Play, registry: Registry) -> None:
    first, second = (model for model in registry.list() if model.name == "candidate")
    live = registry.get("live")

    async def story(shadow: Shadowing, runner: Runner) -> None:
        def fit() -> list[bool]:
            return [shadow.fits(model) for model in (live, first, second)]

        assert fit() == [False] * 3
        await shadow.begin(first.id, 1, None)
        assert fit() == [True, False, True]
        await shadow.begin(first.id, 1, "live")
        assert fit() == [True, False, False]
        await shadow.begin(first.id, 1, second.id)
        assert fit() == [False, False, True]
        await shadow.end()
        assert fit() == [False] * 3
        with pytest.raises(NotFound):
            await shadow.end()
        with pytest.raises(ValidationFailed, match="already"):
            await shadow.begin("live", 1, None)

    play(story)


@pytest.mark.parametrize(
    ("change", "because"),
    [
        (lambda registry, model: registry.delete(model), "deleted"),
        (lambda registry, model: registry.promote(model), "promoted"),
        (lambda registry, model: registry.activate(model), "activated"),
    ],
    ids=["deleted", "promoted", "activated"],
)
def test_a_candidate_that_is_none_any_more_ends_the_shadow(
    play: Play,
    registry: Registry,
    change: Callable[[Registry, str], Any],
    because: str,
) -> None:
    model = registry.get("candidate").id

    async def story(shadow: Shadowing, runner: Runner) -> None:
        row = await shadow.begin(model, 1.0, None)
        shadow.offer(ITEM, SEEN)
        await figures(shadow, run=1)
        await asyncio.to_thread(change, registry, model)
        await until(lambda: not shadow.fits(registry.get("live")))  # by itself
        ended = await shadow.newest()
        assert ended is not None
        assert (ended.number, ended.ended_because, ended.figures["run"]) == (row.number, because, 1)

    play(story)


def test_a_promoted_candidate_stays_where_it_was_promoted_before(
    play: Play, registry: Registry
) -> None:
    model = registry.promote("candidate").id

    async def story(shadow: Shadowing, runner: Runner) -> None:
        await shadow.begin(model, 1.0, None)
        await shadow.look()
        assert shadow.fits(registry.get("live"))

    play(story)


def test_it_goes_on_after_a_restart(play: Play, registry: Registry) -> None:
    async def before(shadow: Shadowing, runner: Runner) -> None:
        await shadow.begin("candidate", 1.0, None)
        shadow.offer(ITEM, SEEN)
        await figures(shadow, seen=1, run=1)  # a copy under way ends with the server

    async def after(shadow: Shadowing, runner: Runner) -> None:
        await until(lambda: shadow.fits(registry.get("live")))
        shadow.offer(ITEM, SEEN)
        await figures(shadow, seen=2, run=2)

    play(before)
    play(after)


def test_what_follows_an_answer_waits_for_its_last_byte() -> None:
    order: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def handler() -> None:
            afterwards(lambda: order.append("afterwards"))

        await asyncio.create_task(handler())
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    async def send(message: Any) -> None:
        order.append(message["type"])

    async def run() -> None:
        scope: Any = {"type": "http", "method": "GET", "path": "/"}
        await Measured(app)(scope, None, send)  # type: ignore[arg-type]
        await asyncio.create_task(app(scope, None, send))  # its own context: none to wait for

    asyncio.run(run())
    assert order[:3] == ["http.response.start", "http.response.body", "afterwards"]
