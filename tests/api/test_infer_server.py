"""`/infer` from outside: chosen classes, several images in a request, the drawn image itself."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import bentoml
import httpx
import pytest
from PIL import Image

from tests.support.closeness import assert_answers_close
from tests.support.patience import PATIENCE
from tests.support.serving import ROOT, Server

CLASSIFIER = "traffic_signs_mobilenet_v2"
SCENE = (ROOT / "docs" / "street_scene.jpg").read_bytes()

Picture = Callable[..., bytes]


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
        yield client


def infer(
    client: httpx.Client, *images: bytes, accept: str | None = None, **fields: Any
) -> httpx.Response:
    files = [("image", (f"{number}.jpg", image)) for number, image in enumerate(images)]
    headers = {"Accept": accept} if accept else {}
    return client.post("/infer", files=files, data=fields, headers=headers)


def found(answer: httpx.Response) -> list[Any]:
    assert answer.status_code == 200, answer.text
    rows: list[Any] = answer.json()["predictions"]
    return rows


def without_time(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "inference_time"}


# --- classes


def test_only_the_wanted_classes_come_back_and_max_det_counts_them(client: httpx.Client) -> None:
    every = found(infer(client, SCENE, confidence=0.001))
    rare = every[-1]["label"]
    ids = {row["label"]: row["class_id"] for row in every}
    other = next(label for label in ids if label != rare)
    of_it = [row for row in every if row["label"] == rare]
    assert found(infer(client, SCENE, confidence=0.001, classes=rare)) == of_it
    assert found(infer(client, SCENE, confidence=0.001, classes=str(ids[rare]))) == of_it
    assert found(infer(client, SCENE, confidence=0.001, classes=rare, max_det=1)) == of_it[:1]
    two = [row for row in every if row["label"] in (rare, other)]
    for both in (f"{rare}, {ids[other]}", [rare, other]):
        assert found(infer(client, SCENE, confidence=0.001, classes=both)) == two


def test_every_way_in_filters_alike(server: Server, client: httpx.Client, tmp_path: Path) -> None:
    label = found(infer(client, SCENE))[0]["label"]
    wanted = found(infer(client, SCENE, classes=label))
    body = {"image_base64": base64.b64encode(SCENE).decode()}
    for classes in (label, [label], wanted[0]["class_id"], [wanted[0]["class_id"]]):
        answer = client.post("/infer/base64", json=body | {"classes": classes})
        assert found(answer) == wanted
    path = tmp_path / "scene.jpg"
    path.write_bytes(SCENE)
    with bentoml.SyncHTTPClient(server.url, timeout=PATIENCE) as native:
        assert native.predict(image=path, classes=label)["predictions"] == wanted


def test_a_classifier_answers_the_probabilities_of_the_wanted_classes(
    client: httpx.Client,
) -> None:
    every = found(infer(client, SCENE, model_id=CLASSIFIER, max_det=1000))
    last = every[-2:]
    names = ",".join(row["label"] for row in last)
    some = infer(client, SCENE, model_id=CLASSIFIER, classes=names)
    assert found(some) == last


def test_an_unknown_class_is_refused_with_the_near_names(client: httpx.Client) -> None:
    answer = infer(client, SCENE, classes="stopp")
    assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR")
    assert "no class 'stopp'. Did you mean 'stop'" in answer.json()["message"]
    named = infer(client, SCENE, labels="stop")
    assert "did you mean 'classes'" in named.json()["message"]


# --- several images


def test_several_images_are_a_list_in_order(client: httpx.Client, picture: Picture) -> None:
    images = [SCENE, b"no image", picture(400, 300), b"", picture(40, 30)]
    answer = infer(client, *images, confidence=0.05, unheard_of="x")
    assert answer.status_code == 200
    entries = answer.json()
    assert [one.get("code") for one in entries] == [
        None,
        "INVALID_IMAGE_FORMAT",
        None,
        "INVALID_IMAGE_FORMAT",
        None,
    ]
    for image, entry in zip(images, entries, strict=True):
        alone = infer(client, image, confidence=0.05, unheard_of="x")
        if "error" in entry:
            assert set(entry) == {"error", "code", "message", "detail", "request_id"}
            assert entry.pop("request_id") == answer.headers["X-Request-ID"]
            assert entry.items() <= alone.json().items()
        else:
            assert "unheard_of" in entry["notes"][0]
            assert_answers_close(without_time(entry), without_time(alone.json()))


def test_as_many_images_as_are_allowed_and_one_more(client: httpx.Client, picture: Picture) -> None:
    small = picture(32, 32)
    answer = infer(client, *[small] * 32)
    assert answer.status_code == 200
    assert len(answer.json()) == 32
    for count in (33, 40):
        refused = infer(client, *[small] * count)
        assert (refused.status_code, refused.json()["code"]) == (400, "VALIDATION_ERROR")
        assert "at most 32 images" in refused.json()["message"]


def test_if_all_images_fail_the_answer_is_an_error(client: httpx.Client) -> None:
    answer = infer(client, b"one", b"two")
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_IMAGE_FORMAT")
    assert answer.json()["message"].startswith("None of the 2 images has a result. Image 1, 2: ")
    missing = infer(client, SCENE, SCENE, model_id="nope")
    assert (missing.status_code, missing.json()["code"]) == (404, "MODEL_NOT_FOUND")


def test_one_url_only_and_other_routes_take_one_image(client: httpx.Client) -> None:
    twice = client.post("/infer", data={"image_url": ["http://a.example", "http://b.example"]})
    assert (twice.status_code, twice.json()["code"]) == (400, "VALIDATION_ERROR")
    assert "Send several images as files" in twice.json()["message"]
    files = [("image", SCENE), ("image", SCENE)]
    data = {"tool": "object_detection"}
    refused = client.post("/api/auto_annotate", files=files, data=data)
    assert (refused.status_code, refused.json()["message"]) == (400, "Send one 'image'; got 2.")


# --- the image itself


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("image/jpeg", "JPEG"),
        ("image/png", "PNG"),
        ("image/webp", "WEBP"),
        ("image/*", "JPEG"),
        ("text/html, image/webp, */*;q=0.8", "WEBP"),
    ],
)
def test_the_drawn_image_comes_as_such(client: httpx.Client, accept: str, kind: str) -> None:
    plain = infer(client, SCENE)
    drawn = infer(client, SCENE, accept=accept, nonsense="1")
    assert drawn.status_code == 200
    assert drawn.headers["content-type"] == f"image/{kind.lower()}"
    assert "Accept" in drawn.headers["vary"]
    assert "Accept" in plain.headers["vary"]
    image = Image.open(BytesIO(drawn.content))
    assert (image.format, image.size) == (kind, Image.open(BytesIO(SCENE)).size)
    assert drawn.headers["x-model-id"] == plain.json()["model_id"]
    assert drawn.headers["x-model-version"] == plain.json()["model_version"]
    assert int(drawn.headers["x-prediction-count"]) == len(plain.json()["predictions"])
    assert "'nonsense'" in json.loads(drawn.headers["x-notes"])[0]


def test_what_is_drawn_is_what_draw_boxes_draws(client: httpx.Client) -> None:
    drawn = infer(client, SCENE, accept="image/jpeg").content
    uri = infer(client, SCENE, draw_boxes="true").json()["image_result"]
    assert base64.b64decode(uri.partition(",")[2]) == drawn
    body = {"image_base64": base64.b64encode(SCENE).decode()}
    answer = client.post("/infer/base64", json=body, headers={"Accept": "image/jpeg"})
    assert answer.content == drawn


def test_json_stays_for_all_others_and_errors(client: httpx.Client) -> None:
    for accept in ("*/*", "application/json, text/plain, */*", "image/png, */*", "text/html"):
        assert found(infer(client, SCENE, accept=accept))
    broken = infer(client, b"no image", accept="image/png")
    assert (broken.status_code, broken.json()["code"]) == (400, "INVALID_IMAGE_FORMAT")
    unknown = infer(client, SCENE, accept="image/gif")
    assert (unknown.status_code, unknown.json()["code"]) == (400, "VALIDATION_ERROR")
    several = infer(client, SCENE, SCENE, accept="image/png")
    assert (several.status_code, several.json()["code"]) == (400, "VALIDATION_ERROR")
    assert "holds one image; got 2" in several.json()["message"]


def test_a_page_of_another_origin_may_read_the_headers(client: httpx.Client) -> None:
    answer = client.get("/models", headers={"Origin": "https://a.example"})
    assert "X-Prediction-Count" in answer.headers["access-control-expose-headers"]
