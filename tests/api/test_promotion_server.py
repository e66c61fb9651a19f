"""Evaluate, look, compare, promote, roll back: one server, one story in several parts.

The models are the starter classifier, and copies of it that are blind to a class.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from database import Database
from models_store.registry import Registry
from models_store.store import ModelStore
from settings import Settings
from synthetic.scenes import write_classification_set
from synthetic.signs import CLASS_NAMES
from tests.support.blinded_models import blinded
from tests.support.patience import PATIENCE, wait_until
from tests.support.serving import Server

STARTER, NAME = "traffic_signs_mobilenet_v2", "signs"
CLIENTS, SHARE = 8, 6  # and how many requests each sends after a change


@dataclass
class Stage:
    client: httpx.Client
    registry: Registry
    data: Path
    folder: Path  # for models that are made
    good: str = ""
    worse: str = ""  # blind to `hidden`
    hidden: str = ""

    def publish(self, *hidden: str) -> str:
        """A version of NAME that never answers these classes."""
        source = self.registry.get(STARTER).path
        made = blinded(source, self.folder / f"{len(list(self.folder.iterdir()))}", hidden)
        return self.registry.publish(made, NAME, {"kind": "import"}).id

    def ask(self, method: str, path: str, expected: int = 200, **options: Any) -> Any:
        answer = self.client.request(method, path, **options)
        assert answer.status_code == expected, answer.text
        return answer.json()

    def finished(self, job_id: str) -> dict[str, Any]:
        wait_until(lambda: self.ask("GET", f"/jobs/{job_id}")["finished_at"] is not None, 0.2)
        job = self.ask("GET", f"/jobs/{job_id}")
        logs = self.ask("GET", f"/jobs/{job_id}/logs")["logs"]
        assert job["status"] == "completed", (job["error"], logs)
        return dict(job)

    def evaluate(self, model_id: str) -> dict[str, Any]:
        body = {"dataset_path": str(self.data), "split": "val"}
        started = self.ask("POST", f"/metrics/{model_id}/evaluate", 202, json=body)
        assert started["status"] == "success"
        return self.finished(started["job_id"])

    def under_load(self, change: Callable[[], Any], picture: bytes) -> tuple[Any, Counter[str]]:
        """What `change` answers in the midst of requests, and which models answered those.

        They go on until it is done, however long it takes, and beyond.
        """

        def infer(_: int) -> str:
            answer = self.client.post(
                "/infer", files={"image": ("x.jpg", picture)}, data={"model_id": NAME}
            )
            assert answer.status_code == 200, answer.text
            return str(answer.json()["model_id"])

        def infer_on(_: int) -> list[str]:
            answered = [infer(0)]
            while not changed.done():
                answered.append(infer(0))
            return [*answered, *(infer(0) for _ in range(SHARE))]

        with ThreadPoolExecutor(CLIENTS + 1) as threads:
            first = list(threads.map(infer, range(CLIENTS)))
            changed = threads.submit(change)
            rest = [name for names in threads.map(infer_on, range(CLIENTS)) for name in names]
            return changed.result(), Counter(first + rest)


@pytest.fixture(scope="module")
def stage(
    new_home: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    home = new_home()
    data = write_classification_set(
        home / "home" / "datasets" / "close-ups", 4 * len(CLASS_NAMES), 5, 64, lambda i: i >= 1
    )
    server = Server(home).start()
    registry = Registry(Database(Settings(home=home / "home")), ModelStore(home / "bento"))
    try:
        with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
            yield Stage(client, registry, data, tmp_path_factory.mktemp("made"))
    finally:
        registry.database.close()
        server.stop()


def a_model_is_evaluated_by_a_job_and_shown_in_every_way(stage: Stage) -> None:
    stage.good = good = stage.publish()
    assert stage.ask("GET", f"/metrics/{good}")["metrics"] == {}
    stage.ask("GET", f"/metrics/{good}/report", 404)
    job = stage.evaluate(good)
    assert (job["kind"], job["base_model"], job["progress"]) == ("evaluation", good, 100.0)

    metrics = stage.ask("GET", f"/metrics/{good}")["metrics"]
    assert {"accuracy", "precision", "recall", "f1_score", "inference_time", "last_updated"} <= set(
        metrics
    )
    listed = stage.ask("GET", "/metrics")["models_metrics"]
    assert metrics in [entry["metrics"] for entry in listed if entry["model_id"] == good]
    [row] = stage.ask("GET", f"/metrics/{good}/history")["evaluations"]
    assert (row["job_id"], row["dataset"], row["split"]) == (job["job_id"], "close-ups", "val")

    report = stage.ask("GET", f"/metrics/{good}/report", params={"evaluation": row["evaluation"]})
    assert report["figures"]["accuracy"] == metrics["accuracy"]
    assert report["dataset"]["images"] == 3 * len(CLASS_NAMES)
    for choice in ({"dataset": "close-ups"}, {"dataset": str(stage.data)}, {"split": "val"}):
        stage.ask("GET", f"/metrics/{good}/report", params=choice)
    for choice in ({"dataset": "other"}, {"split": "test"}, {"evaluation": "x"}):
        stage.ask("GET", f"/metrics/{good}/report", 404, params=choice)
    right = {entry["name"]: entry["accuracy"] for entry in report["classes"]}
    stage.hidden = max(right, key=lambda name: right[name])

    page = stage.client.get(f"/metrics/{good}/report.html")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "worst images" in page.text
    assert not re.search(r"https?:|<script|<link", page.text)
    for name in report["plots"]:
        plot = stage.client.get(f"/metrics/{good}/plots/{name}.png")
        assert (plot.status_code, plot.content[:4]) == (200, b"\x89PNG")
    for name in ("nonsense", "..%2Freport", "..%2F..%2Fvisionloop"):
        answer = stage.client.get(f"/metrics/{good}/plots/{name}.png")
        assert answer.status_code == 404
    assert (
        "plots/confusion.png" in stage.client.get(f"/metrics/{good}/plots/x.png").json()["message"]
    )
    worst = stage.client.get(f"/metrics/{good}/{report['worst'][0]['file']}")
    assert (worst.status_code, worst.content[:2]) == (200, b"\xff\xd8")


def two_are_compared_once_both_were_evaluated(stage: Stage) -> None:
    stage.worse = stage.publish(stage.hidden)
    both = {"a": stage.good, "b": stage.worse}
    refused = stage.ask("GET", "/metrics/compare", 409, params=both)
    assert f"POST /metrics/{stage.worse}/evaluate" in refused["message"]
    assert "close-ups" in refused["message"]
    stage.evaluate(stage.worse)
    found = stage.ask("GET", "/metrics/compare", params=both | {"dataset": "close-ups"})
    assert found["figures"]["accuracy"]["delta"] < 0
    rows = {row["name"]: row["delta"]["accuracy"] for row in found["classes"]}
    assert min(rows, key=lambda name: rows[name]) == stage.hidden
    interval = found["intervals"]["accuracy"]
    assert interval["low"] <= interval["difference"] <= interval["high"]
    assert found["images"]["broken_images"][0]["image"].startswith(f"val/{stage.hidden}/")
    assert found["a"]["evaluation"] != found["b"]["evaluation"]
    assert stage.ask("GET", "/metrics/compare", params=both)["seconds"] == found["seconds"]
    stage.ask("GET", "/metrics/compare", 404, params=both | {"a": "cats"})
    stage.ask("GET", "/metrics/compare", 409, params=both | {"split": "test"})


def the_first_is_promoted_and_a_worse_one_refused_with_the_class_named(stage: Stage) -> None:
    gate = {"gate": {"dataset": str(stage.data), "metric": "accuracy"}}
    first = stage.ask("POST", f"/models/{stage.good}/promote", json=gate)
    assert stage.ask("GET", f"/models/{NAME}/decisions")["rolls_back_to"] is None
    assert (first["status"], first["reasons"]) == (
        "promoted",
        [f"No version of '{NAME}' is promoted yet: nothing was compared."],
    )
    said = f"'{NAME}' means {stage.good} now; it is the first promoted version."
    assert (first["message"], first["previous"]) == (said, None)
    answer = stage.ask("POST", f"/models/{stage.worse}/promote", json=gate)
    assert (answer["status"], answer["promoted"]) == ("refused", False)
    assert answer["message"] == f"{stage.worse} is not promoted: '{NAME}' still means {stage.good}."
    assert (next(iter(answer)), answer["previous"]) == ("message", stage.good)
    assert any(f"'{stage.hidden}' regressed from" in reason for reason in answer["reasons"])
    assert answer["comparison"]["figures"]["accuracy"]["delta"] < 0
    assert stage.ask("GET", f"/models/{stage.good}")["promoted"]
    stage.ask("POST", f"/models/{stage.worse}/rollback", 400)
    broken = {"gate": {"dataset": "/etc", "metric": "mask_mAP50"}, "force": True}
    forced = stage.ask("POST", f"/models/{stage.worse}/promote", json=broken)
    assert (forced["status"], forced["forced"]) == ("promoted", True)
    assert "not compared with the promoted version: '/etc' is outside" in forced["reasons"][0]
    stage.ask("POST", f"/models/{NAME}/rollback")
    forced = stage.ask("POST", f"/models/{stage.worse}/promote", json=gate | {"force": True})
    assert (forced["status"], forced["forced"]) == ("promoted", True)
    decided = stage.ask("GET", f"/models/{NAME}/decisions")
    assert decided["rolls_back_to"] == stage.good
    [newest, _, _, refused, _] = decided["decisions"]
    assert (newest["action"], newest["forced"], refused["action"]) == ("promoted", True, "refused")
    assert newest["by"].startswith("API, address")
    assert refused["gate"]["max_class_drop"] == 0.05
    assert set(refused["evaluations"]) == {"candidate", "promoted"}


def a_preview_says_what_would_happen_and_leaves_no_trace(stage: Stage) -> None:
    """The worse one is promoted now; the good one was promoted before it."""
    decisions = stage.ask("GET", f"/models/{NAME}/decisions")
    body: dict[str, Any] = {"dry_run": True, "gate": {"max_class_drop": 0.5}}
    answer = stage.ask("POST", f"/models/{stage.good}/promote", json=body)
    assert (answer["status"], answer["would_promote"]) == ("preview", True)
    assert (answer["replaces"], answer["regressed"]) == (stage.worse, [])
    body["gate"]["min_gain"] = 0.999
    refused = stage.ask("POST", f"/models/{stage.good}/promote", json=body)
    assert (refused["would_promote"], refused["replaces"]) == (False, None)
    assert "at least +0.999 is required" in refused["reasons"][0]
    assert f"would still mean {stage.worse}" in refused["message"]
    assert stage.ask("GET", f"/models/{NAME}/decisions") == decisions
    assert stage.ask("GET", f"/models/{NAME}")["id"] == stage.worse


def a_better_one_is_evaluated_by_a_job_and_promoted(stage: Stage) -> None:
    """The worse one is promoted now; the new one was never evaluated. Seeing a class again takes
    an image or two away from its likes."""
    better = stage.publish()
    gate = {"dataset": str(stage.data), "max_class_drop": 0.5}
    answer = stage.ask("POST", f"/models/{better}/promote", 202, json={"gate": gate})
    assert (answer["status"], answer["promoted"]) == ("evaluating", False)
    same = stage.ask("POST", f"/models/{better}/promote", 202, json={"gate": gate})
    assert same["job_id"] == answer["job_id"]
    busy = stage.client.delete(f"/models/{better}")
    needed = stage.client.delete(f"/models/{stage.worse}")
    job = stage.finished(answer["job_id"])
    logs = stage.ask("GET", f"/jobs/{answer['job_id']}/logs")["logs"]
    assert "the first requests will wait" not in str(logs)
    assert needed.status_code == 409
    assert (job["kind"], job["mode"]) == ("evaluation", "gate")
    assert busy.status_code == 409
    decided = stage.ask("GET", f"/models/{NAME}/decisions")["decisions"][0]
    assert (decided["action"], decided["job_id"]) == ("promoted", job["job_id"]), decided
    # the gateway sees what jobs do within a second
    wait_until(lambda: stage.ask("GET", f"/models/{NAME}")["id"] == better)
    again = stage.ask("POST", f"/models/{better}/promote", json={"gate": {}})
    assert "already" in again["reasons"][0]
    stage.ask("POST", f"/models/{NAME}/rollback")


def promotion_and_rollback_reach_running_traffic_without_an_error(
    stage: Stage, picture: Callable[..., bytes]
) -> None:
    image = picture(96, 96)
    path, gate = f"/models/{stage.good}/promote", {"gate": {"max_class_drop": 0.5}}
    promoted, answered = stage.under_load(lambda: stage.ask("POST", path, json=gate), image)
    assert promoted["status"] == "promoted", promoted
    assert set(answered) == {stage.worse, stage.good}
    back, answered = stage.under_load(lambda: stage.ask("POST", f"/models/{NAME}/rollback"), image)
    assert back["model"]["id"] == stage.worse
    assert set(answered) == {stage.worse, stage.good}
    assert answered.total() > CLIENTS * SHARE


def what_cannot_be_is_told(stage: Stage) -> None:
    promote = f"/models/{stage.good}/promote"
    for body, sentence in (
        ({"gate": {"metric": "beauty"}}, "beauty"),
        ({"gate": {"min_gain": 7}}, "gate.min_gain"),
        ({"gate": {"colour": 1}}, "gate: Unknown field 'colour'"),
        ({"gate": {"dataset": "/etc"}}, "/etc"),
    ):
        answer = stage.client.post(promote, json=body)
        assert answer.status_code in (400, 403), answer.text
        assert sentence in answer.json()["message"]
    stage.ask("POST", "/models/cats/rollback", 404)
    stage.ask("GET", "/models/cats/decisions", 404)
    stage.ask("POST", f"/models/{STARTER}/rollback", 409)
    stage.ask("POST", "/metrics/cats/evaluate", 404)
    nothing = stage.client.post(f"/metrics/{stage.good}/evaluate")
    assert nothing.status_code == 400
    assert "dataset_path" in nothing.json()["message"]


def evaluations_go_with_their_model_and_every_call_is_documented(stage: Stage) -> None:
    [kept, gone] = [
        stage.ask("GET", f"/metrics/{model}/history")["evaluations"][0]["evaluation"]
        for model in (stage.worse, stage.good)
    ]
    assert stage.client.delete(f"/models/{stage.good}").status_code == 204
    folder = stage.registry.settings.home / "evaluations"
    assert (folder / kept).is_dir()
    assert not (folder / gone).exists()
    stage.ask("GET", f"/metrics/{stage.good}/history", 404)
    paths = stage.ask("GET", "/openapi.json")["paths"]
    assert {
        "/metrics/compare",
        "/metrics/{model_id}/evaluate",
        "/metrics/{model_id}/report.html",
        "/metrics/{model_id}/plots/{name}.png",
        "/models/{model_id}/promote",
        "/models/{name}/rollback",
        "/models/{name}/decisions",
    } <= set(paths)
    assert "202" in paths["/models/{model_id}/promote"]["post"]["responses"]


def test_the_story_of_a_promotion(stage: Stage, picture: Callable[..., bytes]) -> None:
    """Each part goes on where the one before ended."""
    a_model_is_evaluated_by_a_job_and_shown_in_every_way(stage)
    two_are_compared_once_both_were_evaluated(stage)
    the_first_is_promoted_and_a_worse_one_refused_with_the_class_named(stage)
    a_preview_says_what_would_happen_and_leaves_no_trace(stage)
    a_better_one_is_evaluated_by_a_job_and_promoted(stage)
    promotion_and_rollback_reach_running_traffic_without_an_error(stage, picture)
    what_cannot_be_is_told(stage)
    evaluations_go_with_their_model_and_every_call_is_documented(stage)
