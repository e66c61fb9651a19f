"""The whole server, from outside. These tests share one and leave it as they found it."""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import bentoml
import httpx
import pytest
from bentoml.exceptions import NotFound
from PIL import Image
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from tests.support.closeness import assert_answers_close
from tests.support.patience import PATIENCE, wait_until
from tests.support.seeds import derived
from tests.support.serving import Server

DETECTOR = "traffic_signs_yolov8n"
CLASSIFIER = "traffic_signs_mobilenet_v2"

Picture = Callable[..., bytes]


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
        yield client


def infer(client: httpx.Client, image: bytes, **fields: Any) -> httpx.Response:
    return client.post("/infer", files={"image": ("a.jpg", image)}, data=fields)


def test_detection_answers_as_the_contract_says(client: httpx.Client, picture: Picture) -> None:
    answer = infer(client, picture(400, 300), confidence=0.0001, max_det=3).json()
    assert answer["model_id"] == f"{DETECTOR}:{answer['model_version']}"
    assert answer["image"] == {"width": 400, "height": 300}
    assert answer["inference_time"] > 0
    assert "image_result" not in answer
    assert 0 < len(answer["predictions"]) <= 3
    scores = [seen["confidence"] for seen in answer["predictions"]]
    assert scores == sorted(scores, reverse=True)
    for seen in answer["predictions"]:
        assert set(seen) == {"label", "class_id", "confidence", "bounding_box"}
        box = seen["bounding_box"]
        assert 0 <= box["x1"] <= box["x2"] <= 400
        assert 0 <= box["y1"] <= box["y2"] <= 300


def test_classification_has_no_boxes_and_names_the_best_first(
    client: httpx.Client, picture: Picture
) -> None:
    seen = infer(client, picture(64, 64), model_id=CLASSIFIER).json()["predictions"]
    assert seen[0]["confidence"] == max(row["confidence"] for row in seen)
    assert all(set(row) == {"label", "class_id", "confidence"} for row in seen)


def test_every_way_in_gives_the_same_answer(
    server: Server, client: httpx.Client, picture: Picture, tmp_path: Path
) -> None:
    image = picture()
    options = {"model_id": DETECTOR, "confidence": 0.0001, "max_det": 5}
    text = base64.b64encode(image).decode()
    path = tmp_path / "a.jpg"
    path.write_bytes(image)
    with bentoml.SyncHTTPClient(server.url, timeout=PATIENCE) as native:
        answers = [
            infer(client, image, **options).json(),
            client.post("/infer/base64", json={"image_base64": text} | options).json(),
            client.post(
                "/infer/base64", json={"image_base64": f"data:image/jpeg;base64,{text}"} | options
            ).json(),
            native.predict(image=path, **options),
        ]
    for answer in answers:
        answer.pop("inference_time")
    assert answers[0]["predictions"]
    assert all(answer == answers[0] for answer in answers)


def test_drawn_boxes_come_as_a_picture_of_the_same_size(
    client: httpx.Client, picture: Picture
) -> None:
    answer = infer(client, picture(320, 200), draw_boxes="true", confidence=0.0001).json()
    head, _, text = answer["image_result"].partition(",")
    assert head == "data:image/jpeg;base64"
    assert Image.open(BytesIO(base64.b64decode(text))).size == (320, 200)


def test_bentoml_client_meets_our_errors(server: Server, picture: Picture, tmp_path: Path) -> None:
    path = tmp_path / ("long" * 50 + ".jpg")
    path.write_bytes(picture())
    with bentoml.SyncHTTPClient(server.url, timeout=PATIENCE) as native:
        with pytest.raises(NotFound, match="MODEL_NOT_FOUND"):
            native.predict(image=path, model_id="nope")
        assert native.predict(image=path)["model_id"].startswith(DETECTOR)


JPEG = b"\xff\xd8\xff\xe0"
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code"),
    [
        ("POST", "/infer", {}, 400, "NO_FILE_UPLOADED"),
        ("POST", "/infer", {"files": {"other": b"x"}}, 400, "NO_FILE_UPLOADED"),
        ("POST", "/infer", {"data": {"image": "a.jpg"}}, 400, "NO_FILE_UPLOADED"),
        ("POST", "/infer", {"files": {"image": ("", b"")}}, 400, "NO_FILE_UPLOADED"),
        ("POST", "/infer", {"files": {"image": ("a.jpg", b"")}}, 400, "INVALID_IMAGE_FORMAT"),
        ("POST", "/infer", {"files": {"image": b"<html>"}}, 400, "INVALID_IMAGE_FORMAT"),
        ("POST", "/infer", {"files": {"image": JPEG}}, 400, "INVALID_IMAGE_FORMAT"),
        ("POST", "/infer", {"json": {"image": "x"}}, 400, "VALIDATION_ERROR"),
        ("POST", "/infer", {"content": JPEG}, 400, "VALIDATION_ERROR"),
        (
            "POST",
            "/infer",
            {"content": b"--x", "headers": {"Content-Type": "multipart/form-data"}},
            400,
            "VALIDATION_ERROR",
        ),
        ("POST", "/infer", {"data": {"image_url": "http://x"}}, 403, "FORBIDDEN"),
        (
            "POST",
            "/infer",
            {"data": {"image_url": "http://x"}, "files": {"image": JPEG}},
            400,
            "VALIDATION_ERROR",
        ),
        ("POST", "/infer", {"files": {"image": b"\0" * 5_000_000}}, 413, "PAYLOAD_TOO_LARGE"),
        ("POST", "/infer/base64", {"json": {}}, 400, "NO_FILE_UPLOADED"),
        ("POST", "/infer/base64", {"json": []}, 400, "VALIDATION_ERROR"),
        ("POST", "/infer/base64", {"content": b"{", "headers": JSON}, 400, "VALIDATION_ERROR"),
        ("POST", "/infer/base64", {"content": b"{}"}, 400, "VALIDATION_ERROR"),
        (
            "POST",
            "/infer/base64",
            {"json": {"image_base64": "no!"}},
            400,
            "INVALID_IMAGE_FORMAT",
        ),
        (
            "POST",
            "/infer/base64",
            {"json": {"image_base64": "data:image/png,x"}},
            400,
            "INVALID_IMAGE_FORMAT",
        ),
        ("POST", "/predict", {}, 400, "VALIDATION_ERROR"),
        (
            "POST",
            "/predict",
            {
                "content": b"--x\r\n[]--x--\r\n",
                "headers": {"Content-Type": "multipart/form-data; boundary=x"},
            },
            400,
            "VALIDATION_ERROR",
        ),
        (
            "POST",
            "/predict",
            {"files": {"image": JPEG, "model_id": b"\xff\xfe\xfd"}},
            400,
            "VALIDATION_ERROR",
        ),
        ("POST", "/predict", {"data": {"image": "http://x"}}, 400, "VALIDATION_ERROR"),
        ("POST", "/predict", {"json": {"image": "/etc/passwd"}}, 400, "VALIDATION_ERROR"),
        ("POST", "/predict", {"files": {"image": JPEG}}, 400, "INVALID_IMAGE_FORMAT"),
        ("POST", "/predict", {"files": {"image": b"\0" * 5_000_000}}, 413, "PAYLOAD_TOO_LARGE"),
        ("GET", "/predict", {}, 405, "METHOD_NOT_ALLOWED"),
        ("TRACE", "/livez", {}, 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/readyz", {}, 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/models/nope", {}, 404, "MODEL_NOT_FOUND"),
        ("GET", "/models/nope:1", {}, 404, "MODEL_NOT_FOUND"),
        ("GET", "/models/%2e%2e", {}, 404, "MODEL_NOT_FOUND"),
        ("GET", "/models/ü%00", {}, 400, "VALIDATION_ERROR"),
        ("DELETE", "/models/nope", {}, 404, "MODEL_NOT_FOUND"),
        ("DELETE", f"/models/{DETECTOR}", {}, 409, "CONFLICT"),
        ("POST", "/models/active", {"json": {"model_id": "nope"}}, 404, "MODEL_NOT_FOUND"),
        ("POST", "/models/active", {"json": {}}, 400, "VALIDATION_ERROR"),
        ("POST", "/models/active", {"json": {"model_id": 7}}, 400, "VALIDATION_ERROR"),
        ("POST", "/models/active", {"content": b"x"}, 400, "VALIDATION_ERROR"),
        ("GET", "/metrics/nope", {}, 404, "MODEL_NOT_FOUND"),
        ("GET", "/nowhere", {}, 404, "NOT_FOUND"),
        ("GET", "/docs.json", {}, 404, "NOT_FOUND"),
        ("PUT", f"/models/{DETECTOR}", {}, 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/infer", {}, 405, "METHOD_NOT_ALLOWED"),
    ],
)
def test_errors(
    client: httpx.Client, method: str, path: str, options: dict[str, Any], status: int, code: str
) -> None:
    answer = client.request(method, path, **options)
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code)
    assert set(body) == {"error", "code", "message", "detail", "request_id"}
    assert body["detail"] == body["message"]


@pytest.mark.parametrize(
    ("field", "value", "legal"),
    [
        ("confidence", "7", "0 to 1"),
        ("confidence", "-0.1", "0 to 1"),
        ("confidence", "nan", "0 to 1"),
        ("confidence", "abc", "0 to 1"),
        ("iou", "inf", "0 to 1"),
        ("max_det", "0", "1 to 1000"),
        ("max_det", "1.5", "1 to 1000"),
        ("draw_boxes", "perhaps", "true or false"),
        ("model_id", "x" * 300, "name"),
    ],
)
def test_a_bad_option_is_named_with_its_legal_values(
    client: httpx.Client, picture: Picture, field: str, value: str, legal: str
) -> None:
    text = base64.b64encode(picture()).decode()
    answers = [
        infer(client, picture(), **{field: value}),
        client.post("/infer/base64", json={"image_base64": text, field: value}),
        client.post("/predict", files={"image": picture()}, data={field: value}),
    ]
    for answer in answers:
        assert answer.status_code == 400
        assert answer.json()["code"] == "VALIDATION_ERROR"
        assert field in answer.json()["message"]
        assert legal in answer.json()["message"]


def test_all_methods_of_a_path_are_named(client: httpx.Client) -> None:
    assert client.put(f"/models/{DETECTOR}").headers["Allow"] == "DELETE, GET"


def test_an_endless_upload_is_refused_on_the_way(server: Server) -> None:
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        while sent < 10_000:
            sent += 1
            yield b"\0" * 65536

    with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
        answer = client.post("/infer", content=chunks())
    assert answer.json()["code"] == "PAYLOAD_TOO_LARGE"
    assert 64 <= sent < 1000  # 4 MiB are allowed, as much again is thrown away, some is buffered


def test_models_are_listed_and_found_by_name_and_id(client: httpx.Client) -> None:
    models = {model["name"]: model for model in client.get("/models").json()["models"]}
    assert {DETECTOR, CLASSIFIER} <= set(models)
    active = client.get("/models/active").json()["active_model"]
    assert active["name"] == DETECTOR
    for name in (DETECTOR, CLASSIFIER):
        one = client.get(f"/models/{models[name]['id']}").json()
        assert one == client.get(f"/models/{name}").json()
        may_come = {"engine", "letterbox"}  # once it is loaded
        shown = models[name].keys() - may_come
        assert one.keys() - may_come - shown == {"engines"}  # too long for a list
        assert all(one[key] == models[name][key] for key in shown)
        assert client.get(f"/models/{name}%3A{one['version']}").json()["id"] == one["id"]


def test_switching_the_active_model_needs_no_restart(
    client: httpx.Client, picture: Picture
) -> None:
    try:
        switched = client.post("/models/active", json={"model_id": CLASSIFIER})
        assert switched.json()["active_model"]["name"] == CLASSIFIER
        assert infer(client, picture()).json()["model_id"].startswith(CLASSIFIER)
    finally:
        client.post("/models/active", json={"model_id": DETECTOR})
    assert infer(client, picture()).json()["model_id"].startswith(DETECTOR)


def test_metrics_speak_to_prometheus_and_to_people(client: httpx.Client, picture: Picture) -> None:
    infer(client, picture())
    listed = client.get("/metrics").json()["models_metrics"]
    assert {row["model_name"] for row in listed} >= {DETECTOR, CLASSIFIER}
    assert all(isinstance(row["metrics"], dict) for row in listed)
    one = client.get(f"/metrics/{DETECTOR}").json()
    assert one in listed

    text = client.get("/metrics", headers={"Accept": "text/plain;version=0.0.4"})
    assert "Accept" in text.headers["Vary"].split(", ")
    assert text.headers["Content-Type"].startswith("text/plain")
    families = {family.name: family for family in plain(text.text)}
    routes = {sample.labels["route"] for sample in families["visionloop_requests"].samples}
    assert "/infer" in routes
    assert not any(":" in route for route in routes)
    assert families["visionloop_runner_up"].samples[0].value == 1
    assert families["visionloop_backup_last_success_timestamp_seconds"].samples[0].value == 0

    wanted = {"Accept": "application/openmetrics-text; version=1.0.0"}
    text = client.get("/metrics", headers=wanted)
    assert text.headers["Content-Type"].startswith("application/openmetrics-text")
    assert "visionloop_batch_size" in {family.name for family in openmetrics(text.text)}


@pytest.mark.parametrize("path", ["/", "/docs", "/redoc"])
def test_pages_load_nothing_from_elsewhere(client: httpx.Client, path: str) -> None:
    page = client.get(path, headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/html")
    assert "default-src" in page.headers["Content-Security-Policy"]
    for word in page.text.replace("'", '"').split('"')[1::2]:
        assert not word.startswith(("http", "//"))
        assert not word.startswith("/")  # a proxy may have taken a prefix off
        if word.startswith(("static/", "console/")) or word in ("openapi.json", "docs"):
            assert client.get(f"/{word}").status_code == 200


def test_a_head_request_for_the_front_page_gets_its_headers(client: httpx.Client) -> None:
    for accept in ("text/html", "*/*"):
        headers = {"Accept": accept, "Accept-Encoding": "identity"}
        head, page = (client.request(m, "/", headers=headers) for m in ("HEAD", "GET"))
        assert head.status_code == 200
        assert head.content == b""
        for name in ("Content-Type", "Content-Length", "Vary"):
            assert head.headers[name] == page.headers[name]
        assert head.headers.get("ETag") == page.headers.get("ETag")


def test_the_document_describes_what_there_is(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    paths = {"/infer", "/infer/base64", "/models", "/models/active", "/models/{model_id}"}
    assert paths | {"/metrics", "/metrics/{model_id}"} <= set(document["paths"])
    for operations in document["paths"].values():
        for operation in operations.values():
            assert "422" not in operation["responses"]
            error = operation["responses"]["500"]["content"]["application/json"]["schema"]
            assert error == {"$ref": "#/components/schemas/ErrorAnswer"}
    assert {"bearer", "basic", "token"} <= set(document["components"]["securitySchemes"])


def test_head_is_answered_like_get_without_a_body(client: httpx.Client) -> None:
    answer = client.head("/models")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["Content-Length"]) == len(client.get("/models").content)
    assert client.head("/infer").status_code == 405


def test_probes(client: httpx.Client) -> None:
    assert [client.get(p).status_code for p in ("/livez", "/readyz", "/healthz")] == [200] * 3


def test_a_mixed_load_answers_each_as_if_alone(server: Server, picture: Picture) -> None:
    sizes = [(64, 64), (320, 240), (240, 320), (500, 300)]
    images = [picture(width, height, seed) for seed, (width, height) in enumerate(sizes)]
    choices: list[tuple[int, str, str]] = [
        (image, CLASSIFIER, threshold) for image in range(4) for threshold in ("0.01", "0.2")
    ]
    choices += [(1, DETECTOR, "0.0001"), (2, DETECTOR, "0.01")]

    async def run() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as client:

            async def ask(choice: tuple[int, str, str]) -> dict[str, Any]:
                image, model, confidence = choice
                answer = await client.post(
                    "/infer",
                    files={"image": images[image]},
                    data={"model_id": model, "confidence": confidence},
                )
                assert answer.status_code == 200, answer.text
                return {k: v for k, v in answer.json().items() if k != "inference_time"}

            alone = {choice: await ask(choice) for choice in choices}
            assert any(answer["predictions"] for answer in alone.values())
            order = random.Random(derived(0)).choices(choices, k=200)
            places = asyncio.Semaphore(16)

            async def asked(choice: tuple[int, str, str]) -> None:
                async with places:
                    assert_answers_close(await ask(choice), alone[choice])

            await asyncio.gather(*map(asked, order))

    asyncio.run(run())


def test_nobody_chooses_the_address_that_is_logged_and_counted(server: Server) -> None:
    told = {"X-Forwarded-For": "203.0.113.9"}
    path = "/models/unknown-but-logged"
    answer = httpx.get(f"{server.url}{path}", headers=told, timeout=PATIENCE)
    assert answer.status_code == 403  # it came through a proxy, and needs no token
    wait_until(lambda: path in server.log.read_text())
    assert "203.0.113.9" not in server.log.read_text()
