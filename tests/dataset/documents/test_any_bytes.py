"""Every parser of clients' bytes: whatever the bytes, it reads them or raises an error of ours."""

from __future__ import annotations

import base64
import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dataset import data_yaml, image_lists, label_files
from dataset.documents import yolo_labels
from dataset.documents.reader import from_folder, from_json, parse
from dataset.issues import Findings
from dataset.label_files import LabelFormat
from errors import ValidationFailed, VisionLoopError
from formats import rle
from formats.annotations import Annotation, AnnotationPart, Annotations, Keypoint
from formats.brush import decode_brush
from formats.coco import to_coco
from formats.cvat_xml import from_cvat_xml
from formats.cvat_xml_writer import to_cvat_xml
from formats.label_studio import to_label_studio, to_task
from formats.label_studio_config import parse_label_config
from formats.labelme import from_labelme, to_labelme
from formats.voc import from_voc, to_voc
from formats.xml_documents import xml_format
from formats.yolo import from_yolo
from serving.base64_images import from_base64
from tests.support.examples import EXAMPLES
from tests.support.mangled import mangled

pytestmark = pytest.mark.properties

SQUARE = ((1.0, 1.0), (6.0, 1.0), (6.0, 6.0), (1.0, 6.0))
FOUND = Annotations(
    "a.png",
    20,
    10,
    (
        Annotation("dog", box=(1, 2, 12, 9)),
        Annotation("cat", parts=(AnnotationPart(SQUARE),)),
        Annotation("dog", box=(0, 0, 9, 9), keypoints=(Keypoint("nose", 5, 6, 1),)),
    ),
)
BOXES = Annotations("a.png", 20, 10, FOUND.objects[:2])
LINES = "0 0.5 0.5 0.25 0.25\n1 0.1 0.1 0.3 0.1 0.3 0.3\n"
YAML = b"path: .\ntrain: images/train\nval: images/val\nnames: {0: dog, 1: cat}\nnc: 2\n"
CONFIG = (
    "<View><Image name='img' value='$image'/><RectangleLabels name='l' toName='img'>"
    "<Label value='dog'/></RectangleLabels></View>"
)


def png(mode: str = "L", size: tuple[int, int] = (6, 6)) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 255 if mode == "L" else (255, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def masked(data: bytes) -> Any:
    shape = {
        "label": "dog",
        "shape_type": "mask",
        "points": [[0, 0], [5, 5]],
        "mask": base64.b64encode(data).decode(),
    }
    return {"shapes": [shape], "imagePath": "a.png", "imageWidth": 20, "imageHeight": 10}


def text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def of_document(data: bytes) -> Any:
    return from_json(parse(data, "The body"), None, ["dog", "cat"], ["nose"])


def labels(data: bytes) -> Any:
    for task, keypoints in (("detect", None), ("segment", None), ("pose", (1, 3))):
        label_files.parse(data, LabelFormat(task, 2, keypoints))  # type: ignore[arg-type]
    lists = [yolo_labels.names_of("classes.txt", yolo_labels.decoded(data))]
    list(yolo_labels.read_labels({"a.txt": yolo_labels.decoded(data)}, lists, [], [], []))
    return from_yolo(text(data), ["dog", "cat"], (20, 10))


TASK = to_task(FOUND, to_label_studio(FOUND), "m:1")
PARSERS: dict[str, tuple[bytes, Callable[[bytes], Any]]] = {
    "coco": (json.dumps(to_coco([FOUND], ("dog", "cat"), ("nose",))).encode(), of_document),
    "coco with rle": (
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "a.png", "width": 6, "height": 6}],
                "categories": [{"id": 1, "name": "dog"}],
                "annotations": [
                    {
                        "id": 1,
                        "image_id": 1,
                        "category_id": 1,
                        "iscrowd": 1,
                        "bbox": [0, 0, 6, 6],
                        "segmentation": rle.encode(np.ones((6, 6), bool)),
                    }
                ],
            }
        ).encode(),
        of_document,
    ),
    "labelme": (json.dumps(to_labelme(FOUND)).encode(), of_document),
    "labelme's mask": (png(), lambda data: from_labelme(masked(data))),
    "label studio": (json.dumps([TASK]).encode(), of_document),
    "yolo in json": (
        json.dumps({"labels": {"a": LINES}, "names": ["dog", "cat"]}).encode(),
        of_document,
    ),
    "voc": (to_voc(BOXES).encode(), from_voc),
    "cvat": (to_cvat_xml([FOUND], ("dog", "cat"), ("nose",)).encode(), from_cvat_xml),
    "the root of xml": (to_voc(BOXES).encode(), xml_format),
    "labelling configuration": (CONFIG.encode(), lambda data: parse_label_config(text(data))),
    "rle": (b"06?2Oo", lambda data: rle.decode({"size": [6, 6], "counts": data})),
    "rle as text": (b"06?2Oo", lambda data: rle.decode({"size": [6, 6], "counts": text(data)})),
    "brush": (bytes([0, 0, 0, 144, 59, 51, 51, 128]), lambda data: decode_brush(list(data), 6, 6)),
    "labels": (LINES.encode(), labels),
    "base64": (base64.b64encode(png()), lambda data: from_base64(text(data))),
    "a data URI": (
        b"data:image/png;base64," + base64.b64encode(png()),
        lambda data: from_base64(text(data)),
    ),
}


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_reads_what_is_not_mangled(name: str) -> None:
    data, read = PARSERS[name]
    if name not in ("rle", "rle as text", "brush", "labels"):
        read(data)


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.data())
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
def test_bytes_are_read_or_refused(name: str, data: st.DataObject) -> None:
    whole, read = PARSERS[name]
    with contextlib.suppress(VisionLoopError):
        read(data.draw(mangled(whole) | st.binary(max_size=60)))


FILES: dict[str, bytes] = {
    "data.yaml": YAML,
    "list.txt": b"images/train/a.png\n./images/val/b.png\n",
    "classes.txt": b"dog\ncat\n",
    "labels/train/a.txt": LINES.encode(),
    "annotations.xml": PARSERS["cvat"][0],
    "a.xml": PARSERS["voc"][0],
    "instances.json": PARSERS["coco"][0],
    "a.json": PARSERS["labelme"][0],
    "tasks.json": PARSERS["label studio"][0],
    "label_config.xml": CONFIG.encode(),
}


def read_all(folder: Path) -> None:
    """Everything that looks at an unpacked upload."""
    findings = Findings()
    for read in (
        lambda: from_folder(folder, None, [], []),
        lambda: data_yaml.images(
            data_yaml.describe(folder / "data.yaml", [folder], findings), [folder], findings
        ),
        lambda: data_yaml.names_in(folder / "data.yaml"),
        lambda: image_lists.listed(folder / "list.txt", folder, [folder], findings),
    ):
        with contextlib.suppress(VisionLoopError):
            read()


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
@settings(max_examples=max(EXAMPLES // 4, 20), suppress_health_check=list(HealthCheck))
def test_a_folder_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("folder")
    for path in ("images/train/a.png", "images/val/b.png"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(png("RGB", (20, 10)))
    for path in (name, *(("data.yaml",) if name.startswith(("labels", "list")) else ())):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        content = FILES[path]
        if path == "data.yaml" and name == "list.txt":
            content = content.replace(b"images/train", b"list.txt")
        (folder / path).write_bytes(data.draw(mangled(content)) if path == name else content)
    read_all(folder)


@given(st.text("ab\0\ud800\n:[]{}&*!'\"-# \t,?|>%@`", max_size=40))
@settings(max_examples=EXAMPLES)
def test_any_text_is_a_yaml_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: str
) -> None:
    file = tmp_path_factory.mktemp("yaml") / "data.yaml"
    file.write_bytes(content.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(VisionLoopError):
        data_yaml.load(file)


def test_packed_counts_end_at_a_bound() -> None:
    """Each byte that goes on makes the number longer: a megabyte would take minutes."""
    with pytest.raises(ValidationFailed, match="run lengths"):
        rle.decode({"size": [6, 6], "counts": "o" * 1_000_000})
