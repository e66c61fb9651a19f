"""`/api/auto_annotate` through a server."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bentoml
import httpx
import pytest
from bentoml.exceptions import BentoMLException
from PIL import Image

from database import Database
from formats.annotation_tools import TOOLS
from formats.annotations import Annotations
from formats.coco import from_coco
from formats.label_studio import from_label_studio
from formats.labelme import from_labelme
from formats.yolo import from_yolo
from models_store.description import Task
from models_store.registry import Registry
from models_store.store import ModelStore
from settings import Settings
from tests.support.closeness import assert_answers_close
from tests.support.patience import PATIENCE
from tests.support.serving import Server
from tests.support.small_models import make_model

Picture = Callable[..., bytes]

DETECTOR = "traffic_signs_yolov8n"
CLASSIFIER = "traffic_signs_mobilenet_v2"
LOW = "0.0001"


@pytest.fixture(scope="module")
def annotating(
    new_home: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server with a small segmentation and a small pose model besides the starters."""
    server = Server(new_home())
    settings = Settings.model_validate({"home": server.home / "home"})
    models = Registry(Database(settings), ModelStore(server.home / "bento"))
    tasks: tuple[Task, ...] = ("segment", "pose")
    for task in tasks:
        folder = tmp_path_factory.mktemp(task)
        make_model(folder, task)
        models.publish(folder, f"small_{task}", {"kind": "import"}, promote=task == "pose")
    models.database.close()
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def client(annotating: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=annotating.url, timeout=PATIENCE) as client:
        yield client


def annotate(client: httpx.Client, image: bytes, tool: str, **fields: Any) -> httpx.Response:
    files = {"image": ("C:\\pictures\\street 1.jpg", image)}
    return client.post("/api/auto_annotate", files=files, data={"tool": tool, **fields})


def test_tools_are_listed(client: httpx.Client) -> None:
    tools = client.get("/api/tools").json()
    assert [tool["value"] for tool in tools] == list(TOOLS)
    assert all(set(tool) == {"value", "label"} for tool in tools)


def test_boxes_come_as_regions_in_percent(client: httpx.Client, picture: Picture) -> None:
    image = picture(400, 300)
    seen = client.post(
        "/infer", files={"image": image}, data={"confidence": LOW, "iou": "0.5"}
    ).json()["predictions"]
    answer = annotate(client, image, "object_detection", confidence=LOW, iou="0.5").json()
    assert set(answer) >= {"annotations", "annotated_image", "database_info"}
    assert answer["annotated_image"] is None
    assert answer["model_id"].startswith(f"{DETECTOR}:")
    assert len(answer["annotations"]) == answer["database_info"]["annotation_count"] == len(seen)
    assert seen
    for region, found in zip(answer["annotations"], seen, strict=True):
        box, value = found["bounding_box"], region["value"]
        assert (region["type"], region["from_name"], region["to_name"]) == (
            "rectanglelabels", "tag", "img",
        )  # fmt: skip
        assert value["rectanglelabels"] == [found["label"]]
        assert region["score"] == pytest.approx(found["confidence"], abs=1e-4)
        assert value["x"] == pytest.approx(box["x1"] / 4, abs=1e-3)
        assert value["height"] == pytest.approx((box["y2"] - box["y1"]) / 3, abs=1e-3)
    assert answer["document"]["data"]["image"] == "street 1.jpg"


def test_the_same_file_is_one_picture_in_the_database(
    client: httpx.Client, picture: Picture
) -> None:
    ids = [
        annotate(client, image, "object_detection").json()["database_info"]["image_id"]
        for image in (picture(seed=8), picture(seed=9), picture(seed=8))
    ]
    assert ids[0] == ids[2] != ids[1]


READ: dict[str, Callable[[dict[str, Any], dict[str, Any]], Annotations]] = {
    "label_studio": lambda a, size: from_label_studio(
        a["annotations"], size=(size["width"], size["height"])
    ),
    "coco": lambda a, _: from_coco(a["document"])[0],
    "labelme": lambda a, _: from_labelme(a["document"]),
    "yolo": lambda a, size: from_yolo(
        a["document"]["labels"], a["document"]["names"], (size["width"], size["height"]),
        keypoint_names=a["document"]["keypoint_names"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("tool", "model", "confidence"),
    [
        ("object_detection", "", LOW),
        ("object_detection", "small_segment", "0.001"),
        ("image_segmentation", "small_segment", "0.001"),
        ("keypoint_detection", "", "0.05"),
        ("image_classification", "", "0"),
    ],
)
def test_every_tool_answers_in_every_format(
    client: httpx.Client, picture: Picture, tool: str, model: str, confidence: str
) -> None:
    counts = set()
    for form, read in READ.items():
        answer = annotate(
            client, picture(200, 160), tool, model=model, format=form, confidence=confidence
        )
        if (tool, form) == ("image_classification", "coco"):
            assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR")
            continue
        body = answer.json()
        assert body["format"] == form
        found = read(json.loads(json.dumps(body)), body["image"])
        counts |= {len(found), body["database_info"]["annotation_count"]}
        if tool == "object_detection":
            assert all(o.box is not None for o in found.objects)
        if tool == "image_segmentation":
            assert all(o.parts for o in found.objects)
        if tool == "keypoint_detection":
            assert all(o.box for o in found.objects)
    assert len(counts) == 1
    assert counts != {0}


def test_the_picture_comes_back_drawn_when_asked_for(
    client: httpx.Client, picture: Picture
) -> None:
    answer = annotate(client, picture(90, 60), "object_detection", return_annotated_image="1")
    data = base64.b64decode(answer.json()["annotated_image"].partition(",")[2])
    assert Image.open(io.BytesIO(data)).size == (90, 60)


@pytest.mark.parametrize(
    ("fields", "status", "code", "words"),
    [
        ({"tool": "image_segmentation"}, 404, "MODEL_NOT_FOUND", "segmentation"),
        ({"tool": "image_segmentation", "model": DETECTOR}, 404, "MODEL_NOT_FOUND", "segmentation"),
        ({"tool": "object_detection", "model": "x"}, 404, "MODEL_NOT_FOUND", "'x'"),
        ({"tool": "magic"}, 400, "VALIDATION_ERROR", "'tool' must be one of"),
        ({}, 400, "VALIDATION_ERROR", "'tool' is required"),
        ({"tool": "object_detection", "format": "voc"}, 400, "VALIDATION_ERROR", "'format'"),
        ({"tool": "object_detection", "tiles": "1"}, 400, "VALIDATION_ERROR", "'tiles'"),
        ({"tool": "object_detection", "confidence": "2"}, 400, "VALIDATION_ERROR", "'confidence'"),
    ],
)
def test_errors_name_what_is_wrong(
    client: httpx.Client, picture: Picture, fields: dict[str, str], status: int, code: str,
    words: str,
) -> None:  # fmt: skip
    answer = client.post("/api/auto_annotate", files={"image": picture()}, data=fields)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert words in answer.json()["message"]


def test_pictures_that_are_none_are_refused(client: httpx.Client, picture: Picture) -> None:
    cut = annotate(client, picture(900, 700)[:4000], "object_detection")
    assert (cut.status_code, cut.json()["code"]) == (400, "INVALID_IMAGE_FORMAT")
    missing = client.post("/api/auto_annotate", data={"tool": "object_detection"})
    assert (missing.status_code, missing.json()["code"]) == (400, "NO_FILE_UPLOADED")
    url = {"tool": "object_detection", "image_url": "http://example.org/a.jpg"}
    refused = client.post("/api/auto_annotate", data=url)
    assert (refused.status_code, refused.json()["code"]) == (403, "FORBIDDEN")


def test_bentomls_client_gets_the_same(
    annotating: Server, client: httpx.Client, picture: Picture, tmp_path: Path
) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(picture())
    options: dict[str, Any] = {
        "tool": "object_detection",
        "format": "yolo",
        "confidence": 0.0001,
        "tiles": "2",
    }
    with bentoml.SyncHTTPClient(annotating.url, timeout=PATIENCE) as native:
        mine = native.annotate(image=file, **options)
        with pytest.raises(BentoMLException, match="MODEL_NOT_FOUND"):
            native.annotate(image=file, tool="image_segmentation")
    theirs = annotate(client, picture(), **options).json()
    assert_answers_close(mine["annotations"], theirs["annotations"])
    assert mine["annotations"]
