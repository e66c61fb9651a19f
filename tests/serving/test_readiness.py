"""What `/readyz` says while the service cannot predict; runners and registry are stand-ins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from database import Database
from errors import BackendUnavailable, DatabaseBusy, VisionLoopError
from models_store.registry import Registry
from models_store.versions import ModelVersion
from serving.gateway import Gateway
from settings import Settings


class StandInRunner:
    def __init__(self, up: bool = True, started: bool = True) -> None:
        self.up, self.started = up, started

    async def status(self) -> dict[str, Any]:
        if not self.up:
            raise BackendUnavailable("The runner does not answer.")
        return {}


class StandInRegistry(Registry):
    """A registry whose active model is fixed, or cannot be found."""

    found: VisionLoopError | None = None
    here = True

    def active(self) -> ModelVersion:
        if self.found is not None:
            raise self.found
        model: Any = SimpleNamespace(id="signs:1", is_here=self.here)
        return model


Make = Callable[..., Gateway]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    opened = []

    def gateway(
        detector: StandInRunner | None = None,
        annotator: StandInRunner | None = None,
        registry: type[Registry] = StandInRegistry,
        **settings: Any,
    ) -> Gateway:
        chosen = Settings(home=tmp_path / "home", **settings)
        opened.append(Database(chosen))
        runners: Any = {
            "detector": detector or StandInRunner(),
            "annotator": annotator or StandInRunner(),
        }
        made = Gateway(chosen, registry(opened[-1]), runners)
        made._tried.set()
        return made

    yield gateway
    for database in opened:
        database.close()


def missing(gateway: Gateway) -> list[tuple[str, str]]:
    """Kind and name of what is missing; each has a reason and a remedy."""
    with pytest.raises(BackendUnavailable) as caught:
        asyncio.run(gateway.check_ready())
    body = caught.value.to_json()
    assert body["code"] == "BACKEND_UNAVAILABLE"
    assert all(one["reason"] and one["remedy"] for one in body["missing"])
    assert all(one["reason"] in body["message"] for one in body["missing"])
    return [(one["what"], one["name"]) for one in body["missing"]]


def test_nothing_is_missing_with_a_runner_and_a_model(make: Make) -> None:
    asyncio.run(make().check_ready())
    asyncio.run(make(annotator=StandInRunner(up=False)).check_ready())  # the other stands in


def test_runners_that_have_not_started_are_named(make: Make) -> None:
    away = StandInRunner(up=False, started=False)
    assert missing(make(annotator=away)) == [("runner", "annotator")]
    assert missing(make(away, away)) == [("runner", "detector"), ("runner", "annotator")]


def test_runners_that_are_all_down_are_named(make: Make) -> None:
    down = StandInRunner(up=False)
    assert missing(make(down, down)) == [("runner", "detector"), ("runner", "annotator")]


def test_a_home_without_models_says_how_to_get_one(make: Make) -> None:
    assert missing(make(registry=Registry)) == [("model", "")]


def test_the_model_that_loads_or_cannot_serve_is_named(make: Make) -> None:
    gateway = make()
    gateway._tried.clear()
    assert missing(gateway) == [("model", "signs:1")]
    gateway._note_unusable("signs:1", VisionLoopError("Its files are damaged."))
    assert missing(gateway) == [("model", "signs:1")]


def test_a_model_that_is_downloaded_says_so_and_why_it_is_not(make: Make) -> None:
    gateway = make()
    gateway._tried.clear()
    assert isinstance(gateway.registry, StandInRegistry)
    gateway.registry.here = False
    with pytest.raises(BackendUnavailable, match="is being downloaded from the object store"):
        asyncio.run(gateway.check_ready())
    gateway._delayed = "The object store cannot be reached."
    with pytest.raises(BackendUnavailable, match="The object store cannot be reached"):
        asyncio.run(gateway.check_ready())


def test_a_database_that_cannot_be_read_is_named(make: Make) -> None:
    class Locked(StandInRegistry):
        found = DatabaseBusy("The database is locked.", 5)

    assert missing(make(registry=Locked)) == [("database", "")]


def test_a_full_disk_is_named_beside_what_is_missing_but_is_no_reason(make: Make) -> None:
    full = {"disk_reserve": 2**60}
    asyncio.run(make(**full).check_ready())
    down = StandInRunner(up=False)
    assert missing(make(down, down, **full))[-1] == ("disk", "VISIONLOOP_HOME")
