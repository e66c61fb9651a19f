"""Live counts, kept pictures and shadows of a whole server."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bentoml
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from database import Database
from models_store.registry import Registry
from models_store.store import ModelStore
from monitoring.kept_images import KeptImages
from settings import Settings
from tests.support.patience import PATIENCE, wait_until
from tests.support.serving import Server
from tests.support.small_models import make_model

CLASSIFIER = "traffic_signs_mobilenet_v2"
Picture = Callable[..., bytes]


@pytest.fixture(scope="module")
def ids(new_home: Callable[[], Path]) -> dict[str, str]:
    return {}


@pytest.fixture(scope="module")
def live_server(new_home: Callable[[], Path], ids: dict[str, str]) -> Iterator[Server]:
    """It serves a small random model; `twin` is equal to it, `other` is not."""
    home = new_home()
    registry = Registry(Database(Settings(home=home / "home")), ModelStore(home / "bento"))
    source = {"kind": "train", "class_counts": {"round": 50, "square": 30, "star": 20}}
    for seed, names in enumerate((("used", "twin"), ("other",))):
        make_model(home / f"model{seed}", "detect", 64, seed=seed)
        for name in names:
            ids[name] = registry.publish(home / f"model{seed}", name, source).id
    registry.activate("used")
    registry.database.close()
    server = Server(home, VISIONLOOP_KEEP_BELOW="0.999")
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def client(live_server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live_server.url, timeout=PATIENCE) as client:
        yield client


def infer(client: httpx.Client, image: bytes, **fields: Any) -> dict[str, Any]:
    answer = client.post("/infer", files={"image": ("a.jpg", image)}, data=fields)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def shadow(client: httpx.Client) -> dict[str, Any]:
    return dict(client.get("/models/shadow").json()["shadow"])


def put(client: httpx.Client, **choice: Any) -> httpx.Response:
    return client.post("/models/shadow", json=choice)


def settled(client: httpx.Client, seen: int) -> dict[str, Any]:
    """The shadow once so many copies are through."""

    def through() -> dict[str, Any] | None:
        found = shadow(client)
        return found if found["run"] + found["dropped"] + found["failed"] >= seen else None

    return dict(wait_until(through, 0.1))


def samples(client: httpx.Client, family: str) -> dict[tuple[str, ...], float]:
    """Values by the name's ending, the model, and the other labels by their names."""
    text = client.get("/metrics", headers={"Accept": "text/plain"}).text
    return {
        (
            sample.name.removeprefix(family),
            *(sample.labels[n] for n in sorted(sample.labels, key=lambda n: (n != "model", n))),
        ): sample.value
        for found in parse(text)
        if found.name == family
        for sample in found.samples
    }


def niceness(pid: int) -> list[int]:
    """Of each thread (Linux)."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return [int(stat.rpartition(")")[2].split()[16]) for stat in stats]


def no_shadow_at_first(client: httpx.Client) -> None:
    assert client.get("/models/shadow").json() == {"shadow": None}
    assert client.delete("/models/shadow").status_code == 404


def a_shadow_needs_something_to_be_compared_with(client: httpx.Client, ids: dict[str, str]) -> None:
    for choice, words in (
        ({"model_id": CLASSIFIER}, "classification"),
        ({"model_id": ids["used"]}, "already answers live traffic"),
        ({"model_id": "traffic_signs_yolov8n"}, "no class name in common"),
        ({"model_id": ids["other"], "fraction": 0}, "fraction"),
    ):
        answer = put(client, **choice)
        assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR")
        assert words in answer.json()["message"]
    assert put(client, model_id="nope").status_code == 404
    assert client.get("/models/shadow").json() == {"shadow": None}


def a_twin_in_the_shadow_agrees(
    live_server: Server, client: httpx.Client, ids: dict[str, str], picture: Picture, tmp_path: Path
) -> None:
    answer = put(client, model_id="twin")
    assert answer.status_code == 200, answer.text
    assert answer.json()["shadow"]["model_id"] == ids["twin"]
    for seed in range(6):
        seen = infer(client, picture(160, 120, seed), confidence=0.1)
        assert seen["model_id"] == ids["used"]
        settled(client, seed + 1)
    assert infer(client, picture(), model_id="other")["model_id"] == ids["other"]
    settled(client, 7)  # what is due next would end its copy
    infer(client, picture(), model_id=CLASSIFIER)  # of another type
    infer(client, picture(), model_id="twin")  # its own
    settled(client, 7)
    path = tmp_path / "a.jpg"
    path.write_bytes(picture())
    with bentoml.SyncHTTPClient(live_server.url, timeout=PATIENCE) as native:
        native.predict(image=path, model_id="used")
    found = settled(client, 8)
    assert (found["seen"], found["run"], found["failed"]) == (8, 8, 0), found
    assert found["state"] == "running"
    assert found["agreement"] > 7 / 8 - 0.001  # `other` may see something else
    assert found["live_time"] > 0
    assert found["candidate_time"] > 0
    assert {row["name"] for row in found["classes"]} <= {"round", "square", "star"}
    assert samples(client, "visionloop_shadow_seen") == {("_total", ids["twin"]): 8}
    assert samples(client, "visionloop_shadow_images") == {("_total", ids["twin"], "run"): 8}
    agreed = samples(client, "visionloop_shadow_agreement_ratio")
    assert agreed["_count", ids["twin"]] == 8
    ours = os.nice(0)
    assert sorted(niceness(live_server.workers()["Annotator"].pid))[-2:] == [ours, 19]
    assert set(niceness(live_server.workers()["Detector"].pid)) == {ours}


def another_model_in_its_place_agrees_less(
    client: httpx.Client, ids: dict[str, str], picture: Picture
) -> None:
    assert put(client, model_id="other", against="used").status_code == 200
    for seed in range(3):
        infer(client, picture(160, 120, seed))
        settled(client, seed + 1)
    found = shadow(client)
    assert (found["model_id"], found["against"]) == (ids["other"], "used")
    assert found["run"] == 3
    assert found["agreement"] < 0.9


def live_counts_and_drift(client: httpx.Client, ids: dict[str, str], picture: Picture) -> None:
    before = client.get(f"/models/{ids['used']}/live").json()
    answers = [infer(client, picture(160, 120, seed), model_id="used") for seed in range(5)]
    after = client.get(f"/models/{ids['used']}/live").json()
    labels = [seen["label"] for answer in answers for seen in answer["predictions"]]
    assert labels
    assert after["images"] == before["images"] + 5
    assert after["predictions"] == before["predictions"] + len(labels)
    for old, new in zip(before["classes"], after["classes"], strict=True):
        assert new["count"] == old["count"] + labels.count(new["name"])
        assert new["training_count"] == {"round": 50, "square": 30, "star": 20}[new["name"]]
    assert sum(after["confidence"]["counts"]) == after["predictions"]
    assert len(after["confidence"]["edges"]) == len(after["confidence"]["counts"]) + 1
    assert after["drift"]["index"] > 0
    assert after["drift"]["verdict"]
    assert sum(hour["images"] for hour in after["by_hour"]) == after["images"]

    assert samples(client, "visionloop_predictions")["_total", ids["used"]] == after["predictions"]
    by_class = samples(client, "visionloop_class_predictions")
    for row in after["classes"]:
        assert by_class.get(("_total", ids["used"], row["name"]), 0) == row["count"]
    histogram = samples(client, "visionloop_confidence_ratio")
    assert histogram["_count", ids["used"]] == after["predictions"]
    drift = samples(client, "visionloop_population_stability_index")
    assert drift["", ids["used"]] == pytest.approx(after["drift"]["index"], abs=1e-4)

    starter = client.get("/models/traffic_signs_yolov8n/live").json()
    assert (starter["images"], starter["drift"]["index"]) == (0, None)
    assert client.get(f"/models/{ids['used']}/live?hours=0").status_code == 400
    assert client.get("/models/nope/live").status_code == 404


def low_confidence_pictures_are_kept_once(
    live_server: Server, client: httpx.Client, ids: dict[str, str], picture: Picture
) -> None:
    image = picture(200, 200, 77)
    for _ in range(3):
        infer(client, image, model_id="used", draw_boxes="true")

    def stored() -> KeptImages | None:
        kept = KeptImages(Settings(home=live_server.home / "home"))
        there = any(kept.open(found.id) == image for found in kept.list(ids["used"]))
        return kept if there else None

    kept = wait_until(stored, 0.1)
    found = next(found for found in kept.list() if kept.open(found.id) == image)
    assert sum(kept.open(other.id) == image for other in kept.list()) == 1
    assert found.answer["predictions"]
    assert "image_result" not in found.answer
    assert 0 < found.confidence < 0.999
    shown = client.get(f"/models/{ids['used']}/live").json()["kept"]
    assert shown["images"] == len(kept.list(ids["used"]))
    assert shown["below"] == 0.999
    path = f"/models/{ids['used']}/live/kept"
    listed = client.get(path).json()["kept"]
    assert found.id in [row["id"] for row in listed]
    assert client.get(listed[-1]["url"]).status_code == 200
    assert client.delete(path, params={"image": "none"}).status_code == 404
    assert client.delete(path, params={"image": found.id}).status_code == 204
    assert found.id not in [row["id"] for row in client.get(path).json()["kept"]]
    assert client.delete(path).status_code == 204
    assert client.get(path).json() == {"kept": []}


def counts_and_the_shadow_outlive_a_restart(
    live_server: Server, ids: dict[str, str], picture: Picture
) -> None:
    with httpx.Client(base_url=live_server.url, timeout=PATIENCE) as client:
        infer(client, picture(), model_id="used")
        counts = client.get(f"/models/{ids['used']}/live").json()
        infer(client, picture(), model_id="used")  # not asked for: noted by the stop
        known = settled(client, shadow(client)["seen"])
    live_server.stop()
    live_server.environment |= {"VISIONLOOP_KEEP_BELOW": "0"}
    live_server.start()
    with httpx.Client(base_url=live_server.url, timeout=PATIENCE) as client:
        again = client.get(f"/models/{ids['used']}/live").json()
        assert again["images"] == counts["images"] + 1
        assert again["kept"]["images"] == counts["kept"]["images"]
        assert shadow(client) == known
        infer(client, picture(200, 200, 78), model_id="used")
        assert settled(client, known["seen"] + 1)["run"] == known["run"] + 1
        off = client.get(f"/models/{ids['used']}/live").json()
        assert off["kept"] == again["kept"]
        assert off["kept"]["below"] == 0


def an_activated_candidate_is_no_shadow_and_a_deleted_one_neither(
    client: httpx.Client, ids: dict[str, str]
) -> None:
    assert client.post("/models/active", json={"model_id": "other"}).status_code == 200
    found = shadow(client)
    assert (found["state"], found["ended_because"]) == ("ended", "activated")
    assert put(client, model_id="twin").status_code == 200
    assert client.delete(f"/models/{ids['twin']}").status_code == 204
    found = shadow(client)
    assert (found["state"], found["ended_because"]) == ("ended", "deleted")
    assert found["ended_at"]
    assert put(client, model_id="used").status_code == 200
    assert client.delete("/models/shadow").json()["shadow"]["ended_because"] == "stopped"
    assert client.delete("/models/shadow").status_code == 404


@pytest.mark.slow
def test_the_story_of_a_shadow(
    client: httpx.Client, ids: dict[str, str], live_server: Server, picture: Picture, tmp_path: Path
) -> None:
    """Each part goes on where the one before ended."""
    no_shadow_at_first(client)
    a_shadow_needs_something_to_be_compared_with(client, ids)
    a_twin_in_the_shadow_agrees(live_server, client, ids, picture, tmp_path)
    another_model_in_its_place_agrees_less(client, ids, picture)
    live_counts_and_drift(client, ids, picture)
    low_confidence_pictures_are_kept_once(live_server, client, ids, picture)
    counts_and_the_shadow_outlive_a_restart(live_server, ids, picture)
    an_activated_candidate_is_no_shadow_and_a_deleted_one_neither(client, ids)
