"""Annotation tools through the whole server, with the requests that the real ones send.

The bodies are those of Label Studio 1.23.2, X-AnyLabeling 4.2.1 and CVAT's lambda manager.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from database import Database
from models_store.registry import Registry
from models_store.store import ModelStore
from settings import Settings
from tests.support.patience import PATIENCE, wait_until
from tests.support.serving import Server
from tests.support.small_models import make_model

Picture = Callable[..., bytes]

TOKEN, ADMIN = "a-token", "an-admin-token"
PROJECT = {
    "id": 7,
    "title": "Street signs",
    "created_at": "2026-11-22T03:28:08.397300Z",
    "label_config": "",
}
CONFIG = """<View><Image name="photo" value="$image"/>
<RectangleLabels name="sign" toName="photo" model_score_threshold="0.0001">{labels}
</RectangleLabels></View>"""


@pytest.fixture(scope="module")
def tools(
    new_home: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server with tokens, and a small pose model besides the starters."""
    server = Server(new_home(), VISIONLOOP_TOKEN=TOKEN, VISIONLOOP_ADMIN_TOKEN=ADMIN)
    settings = Settings.model_validate({"home": server.home / "home"})
    models = Registry(Database(settings), ModelStore(server.home / "bento"))
    folder = tmp_path_factory.mktemp("pose")
    make_model(folder, "pose")
    models.publish(folder, "small_pose", {"kind": "import"}, promote=True)
    models.database.close()
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def client(tools: Server) -> Iterator[httpx.Client]:
    """Label Studio sends its token as the password of HTTP Basic."""
    with httpx.Client(base_url=tools.url, timeout=PATIENCE, auth=("x", ADMIN)) as client:
        yield client


def uri(image: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"


def labels(client: httpx.Client) -> list[str]:
    found: list[str] = client.get("/models/traffic_signs_yolov8n").json()["classes"]
    return found


def config(*names: str) -> str:
    return CONFIG.format(labels="".join(f'<Label value="{name}"/>' for name in names))


def predict(client: httpx.Client, config: str, *images: str) -> httpx.Response:
    body = {
        "tasks": [
            {"id": i, "data": {"image": image}, "annotations": [], "predictions": []}
            for i, image in enumerate(images)
        ],
        "project": "7.1795318088",
        "label_config": config,
        "params": {"login": None, "password": None, "context": None},
    }
    return client.post("/label-studio/predict", json=body)


def event(client: httpx.Client, action: str, **content: Any) -> httpx.Response:
    return client.post("/label-studio/webhook", json={"action": action, **content})


def annotation(number: int, label: str, **more: Any) -> dict[str, Any]:
    region = {
        "id": f"{number}-{label}",
        "type": "rectanglelabels",
        "from_name": "sign",
        "to_name": "photo",
        "original_width": 320,
        "original_height": 240,
        "image_rotation": 0,
        "value": {"x": 10, "y": 10, "width": 20, "height": 30, "rotation": 0}
        | {"rectanglelabels": [label]},
    }
    stamp = "2026-11-22T03:29:00.000000Z"
    return {"id": number, "result": [region], "updated_at": stamp, "was_cancelled": False} | more


def until(client: httpx.Client, objects: int) -> dict[str, Any]:
    """The project's data set once it holds so many objects."""

    def found() -> Any:
        for card in client.get("/api/datasets").json()["datasets"]:
            if sum(split["objects"] for split in card["splits"].values()) == objects:
                return card
        return None

    return dict(wait_until(found, 0.3))


# --- Label Studio


def test_label_studio_is_told_that_this_is_here(client: httpx.Client) -> None:
    for path in ("/health", "", "/"):
        answer = client.get(f"/label-studio{path}")
        assert answer.json() == {"status": "UP", "model_class": "VisionLoop"}
    assert httpx.get(f"{client.base_url}/label-studio/health", timeout=PATIENCE).status_code == 401


def test_setup_names_the_models_that_will_predict(client: httpx.Client) -> None:
    body = {
        "project": "7.1795318088",
        "schema": config("stop"),
        "hostname": "http://localhost:8080",
        "access_token": "0123",
        "extra_params": None,
    }
    answer = client.post("/label-studio/setup", json=body).json()
    assert answer["model_version"].startswith("traffic_signs_yolov8n:")
    assert answer["model_version"] in client.get("/label-studio/versions").json()["versions"]
    wrong = client.post("/label-studio/setup", json=body | {"schema": config("Automobile")}).json()
    assert wrong["model_version"] == "no model fits"
    assert "Automobile" in wrong["message"]
    text = client.post("/label-studio/setup", json=body | {"extra_params": '{"epochs": 3}'})
    assert text.status_code == 200
    use = {"Authorization": f"Token {TOKEN}"}
    asked = body | {"extra_params": {"promote": "auto"}}
    kept = httpx.post(
        f"{client.base_url}/label-studio/setup", json=asked, headers=use, timeout=PATIENCE
    ).json()
    assert "admin token" in kept["message"]
    for extra in ("no json", "[1]", {"epochs": "many"}):
        answer = client.post("/label-studio/setup", json=body | {"extra_params": extra})
        assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR")


def test_regions_lie_where_infer_sees_them(client: httpx.Client, picture: Picture) -> None:
    image = picture(320, 240, seed=3)
    seen = client.post("/infer", files={"image": image}, data={"confidence": "0.0001"}).json()[
        "predictions"
    ]
    answer = predict(client, config(*labels(client)), uri(image), uri(picture(seed=4))).json()
    first, _ = answer["results"]
    assert first["model_version"] == answer["model_version"]
    assert len(first["result"]) == len(seen) > 0
    for region, thing in zip(first["result"], seen, strict=True):
        box, value = thing["bounding_box"], region["value"]
        assert (region["from_name"], region["to_name"]) == ("sign", "photo")
        assert (region["original_width"], region["original_height"]) == (320, 240)
        assert value["rectanglelabels"] == [thing["label"]]
        assert value["x"] == pytest.approx(box["x1"] / 3.2, abs=1e-3)
        assert value["height"] == pytest.approx((box["y2"] - box["y1"]) / 2.4, abs=1e-3)
    assert 0 < first["score"] <= 1


def test_labels_that_are_no_class_are_told_once(client: httpx.Client, picture: Picture) -> None:
    answer = predict(client, config("Automobile"), uri(picture()), uri(picture())).json()
    assert len(answer["results"]) == 2
    assert "Automobile" in answer["message"]
    assert "predicted_values" in answer["message"]
    for result in answer["results"]:
        assert result["result"] == []
        assert "'message' beside 'results'" in result["message"]


def test_one_picture_that_fails_does_not_fail_the_others(
    client: httpx.Client, picture: Picture
) -> None:
    answer = predict(client, config("stop"), uri(picture()), "/data/upload/1/a.jpg", uri(b"?"))
    good, host, broken = answer.json()["results"]
    assert good["model_version"].startswith("traffic_signs_yolov8n:")
    assert (host["model_version"], broken["model_version"]) == ("failed", "failed")
    assert "VISIONLOOP_LABEL_STUDIO_URL" in host["message"]
    alone = predict(client, config("stop"), "http://10.0.0.1/a.jpg")
    assert (alone.status_code, alone.json()["code"]) == (403, "FORBIDDEN")


def test_several_controls_are_filled_by_several_models(
    client: httpx.Client, picture: Picture
) -> None:
    names = labels(client)
    inside = "".join(f'<Choice value="{name}"/>' for name in names)
    both = config(*names).replace(
        "</View>", f'<Choices name="kind" toName="photo">{inside}</Choices></View>'
    )
    answer = predict(client, both, uri(picture(seed=3))).json()
    assert len(answer["model_version"].split("+")) == 2
    kinds = {(r["type"], r["from_name"]) for r in answer["results"][0]["result"]}
    assert ("choices", "kind") in kinds
    assert ("rectanglelabels", "sign") in kinds


def test_annotations_flow_into_a_data_set(client: httpx.Client, picture: Picture) -> None:
    project = PROJECT | {"label_config": config("stop", "Cow")}
    for number in range(6):
        task = {"id": number, "data": {"image": uri(picture(320, 240, seed=50 + number))}}
        label = "Cow" if number % 2 else "stop"
        created = event(
            client, "ANNOTATION_CREATED", annotation=annotation(number, label), task=task,
            project=project,
        )  # fmt: skip
        assert created.status_code == 201, created.text
    card = until(client, 6)
    assert (card["name"], card["task"], card["usable"]) == ("Street signs", "detect", True)
    assert set(card["classes"]) == {"stop", "Cow"}
    assert card["id"] == created.json()["dataset"]

    more = annotation(0, "stop", updated_at="2026-11-22T03:30:00.000000Z")
    more["result"] = [*more["result"], *annotation(0, "Cow")["result"]]
    task = {"id": 0, "data": {"image": uri(picture(320, 240, seed=50))}}
    event(client, "ANNOTATION_UPDATED", annotation=more, task=task, project=project)
    until(client, 7)
    late = annotation(0, "Cow", updated_at="2026-11-22T03:29:30.000000Z")  # an older one, overtaken
    event(client, "ANNOTATION_UPDATED", annotation=late, task=task, project=project)
    event(client, "ANNOTATIONS_DELETED", annotations=[{"id": 5}], project=project)
    until(client, 6)
    event(client, "TASKS_DELETED", tasks=[{"id": 4}], project=project)
    until(client, 5)
    skipped = annotation(3, "Cow", was_cancelled=True)
    event(client, "ANNOTATION_UPDATED", annotation=skipped, task=task, project=project)
    until(client, 4)

    for action in ("START_TRAINING", "TASKS_DELETED"):
        refused = httpx.post(
            f"{client.base_url}/label-studio/webhook",
            json={"action": action, "project": project, "tasks": [{"id": 0}]},
            headers={"Authorization": f"Token {TOKEN}"},
            timeout=PATIENCE,
        )
        assert (refused.status_code, refused.json()["code"]) == (403, "FORBIDDEN")

    brush = annotation(1, "Cow", updated_at="2026-11-22T03:31:00.000000Z")
    brush["result"].append({"id": "z", "type": "vectorlabels", "value": {"vectorlabels": ["Cow"]}})
    task = {"id": 1, "data": {"image": uri(picture(320, 240, seed=51))}}
    told = event(client, "ANNOTATION_UPDATED", annotation=brush, task=task, project=project)
    assert "vectorlabels" in told.json()["message"]
    until(client, 3)  # a picture that is only half known trains nothing
    (held,) = client.get(f"/api/datasets/{card['id']}/waiting").json()["waiting"]
    assert (held["annotation"], held["task"]) == ("1", "1")
    assert "vectorlabels" in held["reason"]
    answer = event(client, "START_TRAINING", project=project)
    assert answer.status_code == 201, answer.text
    job = client.get(f"/jobs/{answer.json()['job']}").json()
    assert (job["mode"], job["task"]) == ("incremental", "detect")
    assert job["base_model"].startswith("traffic_signs_yolov8n:")
    client.post(f"/jobs/{job['job_id']}/cancel")


def test_pulling_a_project_needs_its_address_and_the_admin_token(client: httpx.Client) -> None:
    answer = client.post("/label-studio/pull/7")
    assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")
    assert "VISIONLOOP_LABEL_STUDIO_URL" in answer.json()["message"]
    use = {"Authorization": f"Token {TOKEN}"}
    answer = httpx.post(f"{client.base_url}/label-studio/pull/7", headers=use, timeout=PATIENCE)
    assert "admin token" in answer.json()["message"]


def test_without_annotations_there_is_nothing_to_train_on(client: httpx.Client) -> None:
    answer = event(client, "START_TRAINING", project=PROJECT | {"id": 99})
    assert answer.status_code == 400
    assert "webhook" in answer.json()["message"]


@pytest.mark.parametrize(
    "body",
    [
        {"action": "ANNOTATION_CREATED"},
        {"action": "ANNOTATION_CREATED", "project": PROJECT},
        {"action": "ANNOTATION_CREATED", "project": PROJECT, "annotation": {"id": 1}, "task": {}},
        {"action": "PROJECT_UPDATED", "project": PROJECT},
        {"action": "LABEL_LINK_CREATED"},
        {},
    ],
)
def test_other_events_are_answered_in_our_form(client: httpx.Client, body: dict[str, Any]) -> None:
    answer = client.post("/label-studio/webhook", json=body)
    assert answer.status_code in (201, 400)
    assert "message" in answer.json()


# --- X-AnyLabeling


def headers() -> dict[str, str]:
    return {"Content-Type": "application/json", "Token": TOKEN}


def test_x_anylabeling_lists_models_with_their_widgets(tools: Server) -> None:
    health = httpx.get(f"{tools.url}/health", timeout=PATIENCE).json()  # without a token
    assert (health["status"], set(health)) == ("healthy", {"status", "models_loaded", "timestamp"})
    models = httpx.get(f"{tools.url}/v1/models", headers=headers(), timeout=PATIENCE).json()
    assert models["success"] is True
    assert len(models["data"]) == health["models_loaded"]
    first = next(iter(models["data"]))
    assert first.startswith("traffic_signs_yolov8n:")  # the active one
    info = models["data"][first]
    assert {"name": "edit_conf", "value": 0.25} in info["widgets"]
    assert info["batch_processing_mode"] == "default"
    assert "stop" in info["classes"]
    one = httpx.get(
        f"{tools.url}/v1/models/{first}/info", headers=headers(), timeout=PATIENCE
    ).json()
    assert one["data"]["display_name"] == info["display_name"]


def test_x_anylabeling_gets_shapes(tools: Server, picture: Picture) -> None:
    image = picture(320, 240, seed=3)
    models = httpx.get(f"{tools.url}/v1/models", headers=headers(), timeout=PATIENCE).json()["data"]
    for model, info in models.items():
        params = {"conf_threshold": 0.0001, "iou_threshold": 0.5, "epsilon_factor": 0.001}
        body = {"model": model, "image": uri(image), "params": params}
        answer = httpx.post(
            f"{tools.url}/v1/predict", headers=headers(), json=body, timeout=PATIENCE
        )
        data = answer.json()["data"]
        assert answer.json()["success"] is True
        assert data["replace"] is None
        kinds = {shape["shape_type"] for shape in data["shapes"]}
        assert kinds <= set(info["capabilities"]["shape_types"])
        assert bool(data["description"]) == ("classification" in info["display_name"])
        for shape in data["shapes"]:
            count = {"rectangle": 4, "point": 1}[shape["shape_type"]]
            assert len(shape["points"]) == count
    detector = next(iter(models))
    body = {"model": detector, "image": uri(image), "params": params | {"filter_classes": ["stop"]}}
    answer = httpx.post(f"{tools.url}/v1/predict", headers=headers(), json=body, timeout=PATIENCE)
    assert {shape["label"] for shape in answer.json()["data"]["shapes"]} <= {"stop"}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model": "none", "image": "AAAA"}, 404, "MODEL_NOT_FOUND"),
        ({"model": "", "image": "AAAA"}, 400, "INVALID_IMAGE_FORMAT"),
        ({"model": ""}, 400, "NO_FILE_UPLOADED"),
        ({"model": "", "image": "AAAA", "params": {"conf_threshold": 7}}, 400, "VALIDATION_ERROR"),
    ],
)
def test_x_anylabeling_is_refused_with_a_status(
    tools: Server, body: dict[str, Any], status: int, code: str
) -> None:
    answer = httpx.post(f"{tools.url}/v1/predict", headers=headers(), json=body, timeout=PATIENCE)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


# --- CVAT


def nuclio(name: str) -> dict[str, str]:
    return {
        "x-nuclio-project-name": "cvat",
        "x-nuclio-function-namespace": "nuclio",
        "x-nuclio-invoke-via": "domain-name",
        "x-nuclio-function-name": name,
        "x-nuclio-path": "/",
    }


def test_cvat_sees_every_model_as_a_detector(client: httpx.Client) -> None:
    functions = client.get("/api/functions").json()
    assert {"traffic_signs_yolov8n", "small_pose", "small_pose.skeleton"} <= set(functions)
    for name, function in functions.items():
        assert function == client.get(f"/api/functions/{name}").json()
        assert function["metadata"]["name"] == name
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_.-")  # CVAT's own routes
        about = function["metadata"]["annotations"]
        assert about["type"] == "detector"
        spec = json.loads(about["spec"])
        assert len({label["name"] for label in spec}) == len(spec)
        assert isinstance(function["spec"]["description"], str)
        assert isinstance(function["status"]["httpPort"], int)


def test_cvat_gets_flat_pixels(client: httpx.Client, picture: Picture) -> None:
    image = picture(320, 240, seed=3)
    seen = client.post("/infer", files={"image": image}, data={"confidence": "0.0001"}).json()[
        "predictions"
    ]
    body = {"threshold": 0.0001, "image": base64.b64encode(image).decode()}

    def invoke(name: str) -> Any:
        answer = client.post("/api/function_invocations", json=body, headers=nuclio(name))
        assert answer.status_code == 200, answer.text
        return answer.json()

    items = invoke("traffic_signs_yolov8n")
    assert [item["label"] for item in items] == [thing["label"] for thing in seen]
    for item, thing in zip(items, seen, strict=True):
        assert item["type"] == "rectangle"
        assert item["points"] == pytest.approx(list(thing["bounding_box"].values()), abs=0.01)
    assert {item["type"] for item in invoke("traffic_signs_mobilenet_v2")} == {"tag"}
    assert {item["type"] for item in invoke("small_pose")} <= {"points"}
    assert {item["type"] for item in invoke("small_pose.skeleton")} <= {"skeleton"}


@pytest.mark.parametrize(
    ("name", "body", "status", "code"),
    [
        ("", {"image": "AAAA"}, 400, "VALIDATION_ERROR"),
        ("none", {"image": "AAAA"}, 404, "MODEL_NOT_FOUND"),
        ("traffic_signs_yolov8n.skeleton", {"image": "AAAA"}, 404, "MODEL_NOT_FOUND"),
        ("traffic_signs_yolov8n", {}, 400, "NO_FILE_UPLOADED"),
        ("traffic_signs_yolov8n", {"image": "AAAA"}, 400, "INVALID_IMAGE_FORMAT"),
        ("traffic_signs_yolov8n", {"image": "AAAA", "threshold": 2}, 400, "VALIDATION_ERROR"),
    ],
)
def test_cvat_is_refused_with_a_status(
    client: httpx.Client, name: str, body: dict[str, Any], status: int, code: str
) -> None:
    answer = client.post("/api/function_invocations", json=body, headers=nuclio(name))
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert client.get("/api/functions/none").status_code == 404
