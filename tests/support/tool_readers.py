"""Run by the interpreter that has supervision and datumaro (`make test-tools` makes it), not by
ours: reads a data set with a tool, tells what it found, and writes it with the same tool.

    python tool_readers.py TOOL FORM FOLDER OUT

prints JSON, image without suffix → [[label, x1, y1, x2, y2], …]; OUT gets the tool's own export.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

Found = dict[str, list[list[Any]]]


def main() -> None:
    tool, form, folder, out = sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
    out.mkdir(parents=True, exist_ok=True)
    found = {"supervision": with_supervision, "datumaro": with_datumaro}[tool](form, folder, out)
    print(json.dumps(found))


def with_supervision(form: str, folder: Path, out: Path) -> Found:
    import supervision as sv

    found: Found = {}
    for split in ("train", "val"):
        images = str(folder / ("JPEGImages" if form == "voc" else f"images/{split}"))
        if form == "coco":
            path = folder / f"annotations/instances_{split}.json"
            loaded = sv.DetectionDataset.from_coco(images, str(path))
        elif form == "yolo":
            labels, listed = folder / f"labels/{split}", folder / "data.yaml"
            loaded = sv.DetectionDataset.from_yolo(images, str(labels), str(listed))
        elif form == "labelme":
            loaded = sv.DetectionDataset.from_labelme(images, images)
        else:
            loaded = sv.DetectionDataset.from_pascal_voc(images, str(folder / "Annotations"))
        for path, _, marks in loaded:
            found[Path(path).stem] = [
                [loaded.classes[kind], *map(float, box)]
                for kind, box in zip(marks.class_id, marks.xyxy, strict=True)
            ]
        target = out / split
        if form == "coco":
            loaded.as_coco(str(target / "images"), str(target / "annotations.json"))
        elif form == "yolo":
            images_out, labels_out = str(target / "images"), str(target / "labels")
            loaded.as_yolo(images_out, labels_out, str(target / "data.yaml"))
        elif form == "labelme":
            loaded.as_labelme(str(target), str(target))
        else:
            loaded.as_pascal_voc(str(target / "JPEGImages"), str(target / "Annotations"))
        if form == "voc":
            break  # both splits are in one folder
    return found


def with_datumaro(form: str, folder: Path, out: Path) -> Found:
    import datumaro

    names = {"coco": "coco_instances", "voc": "voc_detection", "cvat": "cvat", "yolo": "yolo"}
    writes = names | {"yolo": "yolo_ultralytics"}
    loaded = datumaro.Dataset.import_from(str(folder), names[form])
    labels = loaded.categories()[datumaro.AnnotationType.label]
    found: Found = {}
    for item in loaded:
        one: dict[Any, list[Any]] = {}  # a COCO object is a polygon and its box there, of one group
        for place, mark in enumerate(item.annotations):
            if hasattr(mark, "get_bbox"):
                x, y, w, h = mark.get_bbox()
                one[mark.group or f"alone {place}"] = [labels[mark.label].name, x, y, x + w, y + h]
        found[Path(item.id).name] = list(one.values())
    loaded.export(str(out), writes[form], save_media=True)
    return found


if __name__ == "__main__":
    main()
