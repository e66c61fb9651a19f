"""One stream of what changes on a home."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import pytest

from api.console.changes import Change, Changes, ManyChanges
from api.console.event_hub import FOR_ONE, EventHub
from database import Database
from errors import DatabaseBusy, RateLimited
from jobs.store import JobStore
from models_store.decision_log import DecisionReason
from models_store.registry import Registry
from models_store.store import ModelStore
from serving.gateway import Gateway
from settings import Settings
from tests.support.correction_app import FRAMES, street, upload
from tests.support.patience import PATIENCE, until
from tests.support.small_models import make_model
from tests.support.training_app import Service


class Listener:
    """Reads the events as a browser does."""

    def __init__(self, hub: EventHub, last: str = "", **options: Any) -> None:
        self.text = ""
        self.last = last
        self._stream = hub.follow(last, **options)
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for piece in self._stream:
            self.text += piece

    @property
    def events(self) -> list[tuple[str, Any]]:
        found = []
        for part in self.text.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in part.split("\n") if line[:1] not in ":")
            self.last = fields.get("id", self.last)
            if "event" in fields:
                found.append((fields["event"], json.loads(fields["data"])))
        return found

    def of(self, kind: str) -> list[Any]:
        return [data for name, data in self.events if name == kind]

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def listening(gateway: Gateway, story: Callable[[EventHub, Listener], Awaitable[None]]) -> None:
    """Tell a story while a client listens."""

    async def run() -> None:
        hub = EventHub(gateway, poll=0.02, linger=0.0)
        with hub.place(5):
            await hub.listen()
            listener = Listener(hub)
            await until(lambda: "id: " in listener.text)
            await story(hub, listener)
            await listener.close()
        await until(lambda: not hub.is_looking)  # nobody listens

    asyncio.run(run())


def test_jobs_of_any_process_are_told_as_they_are_listed(service: Service) -> None:
    async def story(hub: EventHub, listener: Listener) -> None:
        other = Database(Settings(home=service.gateway.settings.home))
        job = JobStore(other).create("annotation", config={}, recipe={})
        await until(lambda: listener.of("job"))
        [queued] = listener.of("job")
        shown = (await asyncio.to_thread(service.get, "/jobs"))["jobs"][0]
        assert queued == shown
        JobStore(other).request_cancel(job.id)
        await until(lambda: listener.of("job")[-1]["status"] == "stopped")
        JobStore(other).delete(job.id)
        await until(lambda: listener.of("job_deleted") == [{"job_id": job.id}])
        other.close()

    listening(service.gateway, story)


def test_a_training_tells_its_newest_metrics(service: Service) -> None:
    job = service.start()
    claim = service.run(job)

    async def story(hub: EventHub, listener: Listener) -> None:
        for epoch in (1, 2):
            values = {"metrics": {"loss": 1 / epoch}, "current_epoch": epoch, "total_epochs": 2}
            service.jobs.note(job.id, claim, progress=40.0 * epoch, **values)
            await until(partial(lambda number: len(listener.of("progress")) == number, epoch))
        service.jobs.note(job.id, claim, progress=90.0)
        await until(lambda: listener.of("job")[-1]["progress"] == 90.0)
        rows = listener.of("progress")
        assert [row["metrics"] for row in rows] == [{"loss": 1.0}, {"loss": 0.5}]
        assert rows[1] | {"metrics": {}} == {
            "job_id": job.id, "current_epoch": 2, "total_epochs": 2, "progress": 80.0,
            "metrics": {},
        }  # fmt: skip
        service.jobs.finish(job.id, "failed")

    listening(service.gateway, story)


def test_models_are_told_with_what_happened(tmp_path: Any) -> None:
    make_model(folder := tmp_path / "detect", "detect", 32)
    settings = Settings(home=tmp_path / "home")
    registry = Registry(Database(settings), ModelStore(tmp_path / "bento"))
    runners: Any = {"detector": None, "annotator": None}
    gateway = Gateway(settings, registry, runners)

    def act() -> list[tuple[str, str]]:
        first = registry.publish(folder, "signs", {"kind": "import"}, promote=True)
        second = registry.publish(folder, "signs", {"kind": "train"})
        registry.promote(second.id)
        registry.rollback("signs")
        registry.refuse(second.id, DecisionReason(reasons=["'stop' regressed."]))
        registry.activate("signs")
        registry.delete(second.id)
        return [
            (first.id, "imported"), (second.id, "trained"), (first.id, "activated"),
            (second.id, "deleted"), (first.id, "promoted"), (second.id, "promoted"),
            (first.id, "rolled_back"), (second.id, "refused"),
        ]  # fmt: skip

    async def story(hub: EventHub, listener: Listener) -> None:
        wanted = sorted(await asyncio.to_thread(act))
        await until(lambda: sorted((m["id"], m["what"]) for m in listener.of("model")) == wanted)
        assert {model["name"] for model in listener.of("model")} == {"signs"}

    listening(gateway, story)
    registry.database.close()


def test_datasets_are_told(service: Service) -> None:
    async def story(hub: EventHub, listener: Listener) -> None:
        name = await asyncio.to_thread(upload, service, street(FRAMES))
        await until(lambda: {"id": name, "what": "created"} in listener.of("dataset"))
        await asyncio.to_thread(service.gateway.datasets.delete, name)
        await until(lambda: {"id": name, "what": "deleted"} in listener.of("dataset"))

    listening(service.gateway, story)


def number(i: int) -> Change:
    return Change("job", {"number": i})


class Script:
    """A look that finds what it is given."""

    def __init__(self) -> None:
        self.next: list[Sequence[Change] | Exception] = []

    def __call__(self) -> Callable[[], Sequence[Change]]:
        return self._look

    def _look(self) -> Sequence[Change]:
        found = self.next.pop(0) if self.next else []
        if isinstance(found, Exception):
            raise found
        return found


def scripted(
    service: Service, story: Callable[[EventHub, Script], Awaitable[None]], kept: int = 10
) -> None:
    async def run() -> None:
        script = Script()
        hub = EventHub(service.gateway, script, poll=0.005, linger=0.0, kept=kept)
        with hub.place(5):
            await hub.listen()
            await story(hub, script)
        await until(lambda: not hub.is_looking)

    asyncio.run(run())


def numbers(listener: Listener) -> list[int]:
    return [data["number"] for data in listener.of("job")]


def test_who_comes_back_misses_nothing(service: Service) -> None:
    async def story(hub: EventHub, script: Script) -> None:
        first = Listener(hub)
        await until(lambda: "id: " in first.text)
        script.next.append([number(1), number(2)])
        await until(lambda: numbers(first) == [1, 2])
        last = first.last
        await first.close()
        script.next.append([number(3)])
        await until(lambda: not script.next)
        again = Listener(hub, last)
        await until(lambda: numbers(again) == [3])
        assert not again.of("reset")
        await again.close()

    scripted(service, story)


@pytest.mark.parametrize("last", ["x", "deadbeef-1", "٣-٣", "-", "9" * 5000])
def test_an_unknown_place_to_go_on_from_is_a_reset(service: Service, last: str) -> None:
    async def story(hub: EventHub, script: Script) -> None:
        listener = Listener(hub, last)
        await until(lambda: listener.of("reset") == [{}])
        await listener.close()

    scripted(service, story)


def test_a_slow_client_gets_a_reset_and_costs_no_memory(service: Service) -> None:
    async def story(hub: EventHub, script: Script) -> None:
        slow = hub.follow()
        for _ in range(2):
            await anext(slow)
        script.next += [[number(i)] for i in range(50)]
        await until(lambda: not script.next)
        assert "event: reset" in await anext(slow)
        script.next.append([number(50)])
        assert '{"number":50}' in await anext(slow)
        await slow.aclose()  # type: ignore[attr-defined]

    scripted(service, story)


@pytest.mark.parametrize("error", [DatabaseBusy("It is locked.", 1), ManyChanges()])
def test_what_could_not_be_read_is_a_reset(service: Service, error: Exception) -> None:
    async def story(hub: EventHub, script: Script) -> None:
        listener = Listener(hub)
        await until(lambda: "id: " in listener.text)
        script.next += [error, [number(1)], [number(2)]]
        await until(lambda: 2 in numbers(listener))
        assert listener.events[0] == ("reset", {})
        await listener.close()

    scripted(service, story)


def test_a_silent_stream_has_heartbeats_and_ends(service: Service) -> None:
    async def story(hub: EventHub, script: Script) -> None:
        listener = Listener(hub, heartbeat=0.01, longest=0.2)
        await asyncio.wait_for(listener.task, PATIENCE)
        assert ": heartbeat\n\n" in listener.text

    scripted(service, story)


def test_a_stream_ends_when_the_server_does(service: Service) -> None:
    async def story(hub: EventHub, script: Script) -> None:
        listener = Listener(hub)
        await until(lambda: "id: " in listener.text)
        service.gateway.shutdown.set()
        await asyncio.wait_for(listener.task, PATIENCE)

    scripted(service, story)


def test_one_caller_has_its_share_of_the_streams(service: Service) -> None:
    hub = EventHub(service.gateway)
    places = [hub.place(100) for _ in range(FOR_ONE)]
    for place in places:
        place.__enter__()
    with pytest.raises(RateLimited, match="Close one"), hub.place(100):
        pass
    for place in places:
        place.__exit__(None, None, None)
    with hub.place(1):
        pass


def test_the_response_is_not_stored_or_held_back(service: Service) -> None:
    service.gateway.shutdown.set()
    answer = service.call(service.app, "GET", "/events")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-accel-buffering"] == "no"


def test_a_look_without_changes_finds_nothing(service: Service) -> None:
    changes = Changes(service.gateway)
    assert changes.look() == []
    assert changes.look() == []
