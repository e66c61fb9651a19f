"""A drawn data set to correct, and requests that correct it."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import httpx
import numpy as np
from PIL import Image

from annotation.history import exported, newest
from tests.support.seeds import rng
from tests.support.training_app import Service

SIZE = (64, 48)
NAMES = ("car", "person", "dog")
BOX = "0.5 0.5 0.25 0.25"

FRAMES = {"train/frame_1.png": 0, "train/frame_2.png": 1, "val/frame_3.png": 2}
BEFORE = {"frame_1.png": ["car"], "frame_2.png": ["person"], "frame_3.png": ["dog"]}  # labels

Content = str | bytes | dict[str, Any] | list[Any]
Files = dict[str, Content]


def drawn(seed: int, size: tuple[int, int] = SIZE, kind: str = "PNG") -> bytes:
    """An image that no other seed draws."""
    pixels = rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def packed(files: Mapping[str, Content]) -> bytes:
    """A zip; what is no text or bytes becomes JSON."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            text = content if isinstance(content, str | bytes) else json.dumps(content)
            archive.writestr(name, text)
    return buffer.getvalue()


def street(images: Mapping[str, int], names: tuple[str, ...] = NAMES) -> dict[str, Content]:
    """A data set of an object each: path below images/ → class id. The images' seeds are their
    places, from 0."""
    files: dict[str, Content] = {
        "data.yaml": f"train: images/train\nval: images/val\nnames: {list(names)}\n"
    }
    for seed, (path, cls) in enumerate(images.items()):
        files[f"images/{path}"] = drawn(seed)
        files[f"labels/{path.rpartition('.')[0]}.txt"] = f"{cls} {BOX}\n"
    return files


def upload(service: Service, files: Mapping[str, Content]) -> str:
    sent = {"file": ("set.zip", packed(files))}
    answer = service.call(service.app, "POST", "/api/datasets", files=sent)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def correct(
    service: Service, dataset: str, files: Mapping[str, Content] | bytes, **query: Any
) -> httpx.Response:
    """Send a zip."""
    data = files if isinstance(files, bytes) else packed(files)
    path = f"/api/datasets/{dataset}/annotations"
    sent = {"file": ("sent.zip", data)}
    answer: httpx.Response = service.call(service.app, "POST", path, files=sent, params=query)
    return answer


def labels(service: Service, dataset: str) -> dict[str, list[str]]:
    """File name → the classes that the newest revision says are in the image."""
    found = exported(service.gateway.datasets, dataset, newest(service.gateway.datasets, dataset))
    return {
        picture.name.rpartition("/")[2]: sorted(o.label for o in picture.annotations.objects)
        for picture in found.records
    }


def state(service: Service, dataset: str) -> Any:
    """Everything that a refused correction must leave as it is."""
    store, folder = service.gateway.annotated, service.gateway.datasets.folder / dataset
    row = store.find(f"upload:{dataset}")
    return (
        row
        and (
            row.changes,
            [(p.content, p.by, p.annotations) for p in store.entries.records(row.id)],
        ),
        sorted(path.relative_to(folder) for path in folder.rglob("*")),
        sorted((service.gateway.settings.home / "uploads").glob("*")),
    )


def coco(
    images: Mapping[str, list[str]],
    size: tuple[int, int] = SIZE,
    box: tuple[float, ...] = (8, 8, 20, 20),
) -> dict[str, Any]:
    """A COCO document: file name → the classes of its objects."""
    names = list(NAMES)
    rows = [
        {"id": number, "file_name": name, "width": size[0], "height": size[1]}
        for number, name in enumerate(images, 1)
    ]
    objects = [
        {"image_id": number, "category_id": names.index(label) + 1, "bbox": list(box)}
        for number, found in enumerate(images.values(), 1)
        for label in found
    ]
    return {
        "images": rows,
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, 1)],
        "annotations": [{"id": i, "iscrowd": 0, **row} for i, row in enumerate(objects, 1)],
    }


def task(image: str, label: str | None = "dog", **more: Any) -> dict[str, Any]:
    """A finished task of Label Studio."""
    region = {
        "id": "a", "type": "rectanglelabels", "from_name": "label", "to_name": "image",
        "original_width": SIZE[0], "original_height": SIZE[1], "image_rotation": 0,
        "value": {"x": 10, "y": 10, "width": 30, "height": 30, "rotation": 0,
                  "rectanglelabels": [label]},
    }  # fmt: skip
    made = [{"id": 1, "result": [region] if label else []}]
    return {"id": 1, "data": {"image": image}, "annotations": made, **more}


def labelme(image: str, label: str | None = "dog", size: tuple[int, int] = SIZE) -> dict[str, Any]:
    shape = {"label": label, "shape_type": "rectangle", "points": [[5, 5], [25, 25]]}
    return {
        "shapes": [shape] if label else [], "imagePath": image, "imageData": None,
        "imageWidth": size[0], "imageHeight": size[1],
    }  # fmt: skip


def voc(image: str, label: str | None = "dog", size: tuple[int, int] = SIZE) -> str:
    box = "<bndbox><xmin>5</xmin><ymin>5</ymin><xmax>25</xmax><ymax>25</ymax></bndbox>"
    found = f"<object><name>{label}</name>{box}</object>" if label else ""
    width, height = size
    return (
        f"<annotation><filename>{image}</filename><size><width>{width}</width>"
        f"<height>{height}</height><depth>3</depth></size>{found}</annotation>"
    )


def cvat(images: Mapping[str, str | None], size: tuple[int, int] = SIZE) -> str:
    rows = []
    for number, (name, label) in enumerate(images.items()):
        box = f'<box label="{label}" xtl="5" ytl="5" xbr="25" ybr="25"/>' if label else ""
        sides = f'width="{size[0]}" height="{size[1]}"'
        rows.append(f'<image id="{number}" name="{name}" {sides}>{box}</image>')
    return f"<annotations><version>1.1</version>{''.join(rows)}</annotations>"
