"""`/stats` in this process."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from errors import BackendUnavailable
from serving.operations.counters import Counters
from tests.support.training_app import Service


class StandIn:
    """A runner with one model loaded, or one that is down."""

    batchers: tuple[Any, ...] = ()

    def __init__(self, up: bool) -> None:
        self.up = up
        self.asked = 0

    async def status(self) -> dict[str, Any]:
        self.asked += 1
        if not self.up:
            raise BackendUnavailable("It is down.")
        return {"engines": {"signs:1": "onnxruntime"}}


@pytest.fixture
def runners(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = {"detector": StandIn(True), "annotator": StandIn(False)}
    service.gateway.runners.update(found)
    return found


def test_what_operators_look_at_is_in_one_answer(service: Service, runners: dict[str, Any]) -> None:
    job = service.start()
    window = service.gateway.sampler.window
    window.add(100.0, Counters(), 0)
    window.add(110.0, Counters(images=Counter({"signs:1": 50}), requests=20), 3)
    found = service.get("/stats")
    [step] = found["steps"]
    assert (step["images_per_second"], step["requests_per_second"], step["queued"]) == (5, 2, 3)
    assert found["jobs"]["queued"] == 1
    assert found["loaded"] == [
        {"model_id": "signs:1", "runner": "detector", "engine": "onnxruntime"}
    ]
    assert [(runner["runner"], runner["up"]) for runner in found["runners"]] == [
        ("detector", True),
        ("annotator", False),
    ]
    assert found["processes"]
    assert all(one["resident_bytes"] > 0 for one in found["processes"])
    assert {disk["folder"] for disk in found["disks"]} >= {"VISIONLOOP_HOME"}
    assert found["gpus"] == []
    assert found["drift"] == []
    service.jobs.request_cancel(job.id)


def test_many_clients_cost_as_much_as_one(service: Service, runners: dict[str, Any]) -> None:
    for _ in range(5):
        service.get("/stats")
    assert runners["detector"].asked == 1
