"""One drawn set of images and boxes as annotation tools pack it: path in the zip → bytes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from tests.support.seeds import rng

Entries = dict[str, bytes]
CLASSES = ("car", "dog", "cat")
SIZE = (64, 48)  # width, height
NOTES = {"categories": [{"id": i, "name": n} for i, n in enumerate(CLASSES)], "info": {}}


@dataclass(frozen=True)
class Shown:
    """An image and its boxes: class, x, y, width, height in pixels."""

    name: str
    split: str
    boxes: tuple[tuple[str, int, int, int, int], ...]
    data: bytes


def image(seed: int, form: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    noise = rng(seed).integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)
    Image.fromarray(noise).save(buffer, form)
    return buffer.getvalue()


def shown(count: int = 8, val: int = 2) -> list[Shown]:
    """The last `val` belong to val; the first has no object."""
    made = []
    for i in range(count):
        label = CLASSES[i % 2]  # nothing is a cat
        boxes = ((label, 4 + i, 6, 20, 16), ("dog", 30, 20 + i, 24, 12)) if i else ()
        split = "val" if i >= count - val else "train"
        made.append(Shown(f"p {i}.jpg", split, boxes, image(i)))
    return made


def coco(images: list[Shown], folder: str = "", classes: tuple[str, ...] = CLASSES) -> Any:
    rows = [
        {"id": i, "file_name": f"{folder}{one.name}", "width": SIZE[0], "height": SIZE[1]}
        for i, one in enumerate(images, 10)
    ]
    annotations = [
        {"image_id": i, "category_id": classes.index(label) + 1, "bbox": box,
         "area": box[2] * box[3], "segmentation": [], "iscrowd": 0}
        for i, one in enumerate(images, 10)
        for label, *box in one.boxes
    ]  # fmt: skip
    return {
        "images": rows,
        "annotations": [row | {"id": i} for i, row in enumerate(annotations, 1)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(classes, 1)],
    }


def yolo(one: Shown) -> bytes:
    lines = []
    for label, x, y, w, h in one.boxes:
        numbers = (x + w / 2) / SIZE[0], (y + h / 2) / SIZE[1], w / SIZE[0], h / SIZE[1]
        lines.append(f"{CLASSES.index(label)} {' '.join(f'{n:.6f}' for n in numbers)}\n")
    return "".join(lines).encode()


def voc(one: Shown) -> bytes:
    objects = "".join(
        f"<object><name>{label}</name><difficult>0</difficult><bndbox><xmin>{x}</xmin>"
        f"<ymin>{y}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
        for label, x, y, w, h in one.boxes
    )
    return (
        f"<annotation><folder>JPEGImages</folder><filename>{one.name}</filename><size><width>"
        f"{SIZE[0]}</width><height>{SIZE[1]}</height><depth>3</depth></size>{objects}</annotation>"
    ).encode()


def labelme(one: Shown) -> bytes:
    shapes: list[dict[str, Any]] = [
        {"label": label, "points": [[x, y], [x + w, y + h]], "group_id": None,
         "shape_type": "rectangle", "flags": {}}
        for label, x, y, w, h in one.boxes
    ]  # fmt: skip
    return json.dumps(
        {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": one.name,
         "imageData": None, "imageHeight": SIZE[1], "imageWidth": SIZE[0]}
    ).encode()  # fmt: skip


def cvat(images: list[Shown], subsets: bool = False) -> bytes:
    rows = ""
    for i, one in enumerate(images):
        boxes = "".join(
            f'<box label="{label}" occluded="0" xtl="{x}" ytl="{y}" xbr="{x + w}" ybr="{y + h}" '
            'z_order="0"></box>'
            for label, x, y, w, h in one.boxes
        )
        subset = f' subset="{one.split.title()}"' if subsets else ""
        rows += (
            f'<image id="{i}" name="{one.name}"{subset} width="{SIZE[0]}" height="{SIZE[1]}">'
            f"{boxes}</image>"
        )
    return f"<annotations><version>1.1</version>{rows}</annotations>".encode()


def tasks(images: list[Shown]) -> Any:
    made = []
    for i, one in enumerate(images, 1):
        results = [
            {"id": f"r{j}", "type": "rectanglelabels", "from_name": "label", "to_name": "image",
             "original_width": SIZE[0], "original_height": SIZE[1], "image_rotation": 0,
             "value": {"x": 100 * x / SIZE[0], "y": 100 * y / SIZE[1], "width": 100 * w / SIZE[0],
                       "height": 100 * h / SIZE[1], "rotation": 0, "rectanglelabels": [label]}}
            for j, (label, x, y, w, h) in enumerate(one.boxes)
        ]  # fmt: skip
        address = f"/data/upload/1/{i:08x}-{one.name}"
        annotations = [{"id": i, "result": results, "was_cancelled": False}]
        made.append({"id": i, "data": {"image": address}, "annotations": annotations})
    return made


def together(images: list[Shown], folder: str = "") -> Entries:
    return {f"{folder}{one.name}": one.data for one in images}


def per_split(images: list[Shown], form: str, val: str = "val") -> Entries:
    """`form` has {split} and perhaps {name}."""
    named = {"train": "train", "val": val}
    return {form.format(split=named[one.split], name=one.name): one.data for one in images}


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


def of_split(images: list[Shown], split: str) -> list[Shown]:
    return [one for one in images if one.split == split]


def stem(one: Shown) -> str:
    return one.name.rpartition(".")[0]


def lines(names: list[str]) -> bytes:
    return "".join(f"{name}\n" for name in names).encode()


def _roboflow_coco(images: list[Shown]) -> Entries:
    above = ("things", *CLASSES)
    made: Entries = {"README.dataset.txt": b"# things\nhello"}
    for split, folder in (("train", "train"), ("val", "valid")):
        some = of_split(images, split)
        document = coco(some, classes=above)
        document["categories"] = [
            {"id": i, "name": name, "supercategory": "things" if i > 1 else "none"}
            for i, name in enumerate(above, 1)
        ]
        made |= together(some, f"{folder}/")
        made[f"{folder}/_annotations.coco.json"] = dumped(document)
    return made


def _cvat_yolo(images: list[Shown]) -> Entries:
    made = {
        "obj.data": b"classes = 3\ntrain = data/train.txt\nvalid = data/valid.txt\n"
        b"names = data/obj.names\nbackup = backup/\n",
        "obj.names": lines(list(CLASSES)),
    }
    for split, folder, file in (
        ("train", "obj_train_data", "train"),
        ("val", "obj_valid_data", "valid"),
    ):
        some = of_split(images, split)
        made[f"{file}.txt"] = lines([f"data/{folder}/{one.name}" for one in some])
        made |= together(some, f"{folder}/")
        made |= {f"{folder}/{stem(one)}.txt": yolo(one) for one in some}
    return made  # fmt: skip


def _voc_sets(images: list[Shown]) -> Entries:
    made = together(images, "VOC2007/JPEGImages/")
    made |= {f"VOC2007/Annotations/{stem(one)}.xml": voc(one) for one in images}
    for split in ("train", "val"):
        names = [stem(one) for one in of_split(images, split)]
        made[f"VOC2007/ImageSets/Main/{split}.txt"] = lines(names)
    made["VOC2007/ImageSets/Main/trainval.txt"] = lines([stem(one) for one in images])
    return made


def _several_coco(images: list[Shown]) -> Entries:
    made = per_split(images, "{split}2017/{name}")
    for split in ("train", "val"):
        document = coco(of_split(images, split))
        made[f"annotations/instances_{split}2017.json"] = dumped(document)
    return made


def _cvat_xml_images(images: list[Shown]) -> Entries:
    return {"annotations.xml": cvat(images), **together(images, "images/")}


# What a zip holds → its entries, the form that is found, and whether it states the splits
ZIPS: dict[str, tuple[Callable[[list[Shown]], Entries], str, bool]] = {
    "roboflow coco": (_roboflow_coco, "coco", True),
    "cvat coco": (
        lambda images: {
            "annotations/instances_default.json": dumped(coco(images)),
            **together(images, "images/default/"),
        },
        "coco", False,
    ),
    "coco 2017": (_several_coco, "coco", True),
    "label studio coco": (
        lambda images: {
            "result.json": dumped(coco(images, "images/")),
            **together(images, "images/"),
        },
        "coco", False,
    ),
    "coco in one folder": (
        lambda images: {"c.json": dumped(coco(images)), **together(images)}, "coco", False,
    ),
    "labelme": (
        lambda images: together(images) | {f"{stem(o)}.json": labelme(o) for o in images},
        "labelme", False,
    ),
    "labelme in splits": (
        lambda images: per_split(images, "{split}/{name}")
        | {f"{o.split}/{stem(o)}.json": labelme(o) for o in images},
        "labelme", True,
    ),
    "voc with sets": (_voc_sets, "voc", True),
    "voc beside": (
        lambda images: together(images) | {f"{stem(o)}.xml": voc(o) for o in images}, "voc", False,
    ),
    "cvat for images": (_cvat_xml_images, "cvat_xml", False),
    "cvat with subsets": (
        lambda images: {
            "annotations.xml": cvat(images, subsets=True),
            **per_split(images, "images/{split}/{name}"),
        },
        "cvat_xml", True,
    ),
    "cvat yolo": (_cvat_yolo, "yolo", True),
    "yolo with names beside": (
        lambda images: together(images, "images/")
        | {f"labels/{stem(o)}.txt": yolo(o) for o in images}
        | {"labels/classes.txt": lines(list(CLASSES))},
        "yolo", False,
    ),
    "label studio yolo": (
        lambda images: together(images, "images/")
        | {f"labels/{stem(o)}.txt": yolo(o) for o in images}
        | {"classes.txt": lines(list(CLASSES)), "notes.json": dumped(NOTES)},
        "yolo", False,
    ),
    "label studio json": (
        lambda images: {"project-1.json": dumped(tasks(images)), **together(images, "upload/")},
        "label_studio", False,
    ),
    "ultralytics": (
        lambda images: per_split(images, "images/{split}/{name}")
        | {f"labels/{o.split}/{stem(o)}.txt": yolo(o) for o in images}
        | {"data.yaml": b"train: images/train\nval: images/val\nnames: [car, dog, cat]\n"},
        "yolo", True,
    ),
    "roboflow yolo": (
        lambda images: per_split(images, "{split}/images/{name}", "valid")
        | {f"{'valid' if o.split == 'val' else 'train'}/labels/{stem(o)}.txt": yolo(o)
           for o in images}
        | {"data.yaml": b"train: ../train/images\nval: ../valid/images\nnc: 3\n"
                        b"names: ['car', 'dog', 'cat']\n"},
        "yolo", True,
    ),
}  # fmt: skip
