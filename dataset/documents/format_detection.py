"""Detects the format of uploaded files: a supported annotation format, a known but unsupported
one (with advice what to export instead), or no annotations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from formats.annotations import Format

Text = Literal["labels", "classes", "prose"]

DEEPEST = 5  # levels of a JSON document that are searched for annotation keys
WIDEST = 50  # members per level that are searched
CLASS_LISTS = frozenset(
    {"classes.txt", "labels.txt", "names.txt", "class_names.txt", "predefined_classes.txt"}
)
IMAGE_LISTS = frozenset(
    {"train", "training", "val", "valid", "validation", "test", "testing", "trainval", "default"}
)
LABEL_FOLDERS = frozenset({"labels", "obj_train_data", "obj_valid_data", "obj_test_data"})
MOST_TEXT = 64 * 2**20  # maximum bytes of a label file

_WORDS = re.compile(
    "annotations?|bbox|bndbox|box|boxes|coordinates|labels?|objects?|points|polygons?|"
    "rectangles?|regions?|rle|segmentation|shapes?|xmax|xmin",
    re.I,
)
_XML_WORDS = re.compile(r"<(object|bndbox|box|polygon|image|label|annotation|track|point)\b", re.I)
_TABLE = re.compile(
    r"\b(annotation\w*|bbox\w*|label\w*|region_\w+|class|xmin|x_min|xmax|polygon\w*|imageid)\b",
    re.I,
)

JSON_LIST = 'export as "JSON" (not JSON-MIN), COCO or YOLO'
FOREIGN_XML = {
    "annotationset": "Export as Pascal VOC, COCO or YOLO.",
    "dataset": "This looks like dlib's imglab. Export as Pascal VOC, COCO or YOLO.",
}


def format_of(document: Any) -> Format | None:
    """The format of a JSON document; None if it is not supported."""
    first = document[0] if isinstance(document, list) and document else document
    if not isinstance(first, Mapping):
        return None
    if "shapes" in first and "tracks" not in first:
        return "labelme"
    if isinstance(first.get("data"), Mapping) and (isinstance(document, list) or _is_task(first)):
        return "label_studio"
    if "images" in first and "categories" in first and foreign_json(document) is None:
        return "coco"
    if isinstance(document, list):
        return None
    return "yolo" if "labels" in document else None


def _is_task(document: Mapping[str, Any]) -> bool:
    return any(key in document for key in ("annotations", "completions", "predictions"))


def foreign_json(document: Any) -> str | None:
    """The name of a known but unsupported format, with advice what to export instead; else None."""
    one = document if isinstance(document, Mapping) else {}
    rows = [row for row in document if isinstance(row, Mapping)] if _is_list(document) else []
    row: Mapping[str, Any] = rows[0] if rows else {}
    inner = one.get("annotations") or row.get("annotations")
    first = inner[0] if _is_list(inner) and inner and isinstance(inner[0], Mapping) else {}
    if "_via_img_metadata" in one or _is_via(one):
        return "a project of the VGG Image Annotator (VIA): export as COCO in its menu Annotation"
    if "caption" in first and not {"bbox", "segmentation"} & first.keys():
        return "a COCO captions document, which has no objects: send the instances document"
    if "segments_info" in first:
        return (
            "a COCO panoptic document, whose masks are separate images: send the instances document"
        )
    if "image_id" in row and ("bbox" in row or "segmentation" in row):
        return (
            "a list of COCO results, which names neither images nor categories: send a whole "
            "document with 'images', 'categories' and 'annotations'"
        )
    if "annotation_id" in row or _is_min(row):
        return (
            "Label Studio's JSON-MIN format, which does not contain all data of the tasks: "
            f"{JSON_LIST}"
        )
    if "image" in row and _is_list(row.get("annotations")):
        return "a Create ML document: export as COCO, Pascal VOC or YOLO"
    if "Labeled Data" in row or "data_row" in row or "data_row" in one:
        return "a Labelbox document: convert it to COCO"
    if "classTitle" in _members(one.get("objects")) or ("tags" in one and "objects" in one):
        return "a Supervisely document: export as COCO, Pascal VOC or YOLO"
    if "frames" in one or _is_list(row.get("labels")):
        return "a BDD100K or Scalabel document: convert it to COCO"
    if "shapes" in row and "tracks" in row:
        return 'a backup of CVAT: export as "CVAT for images 1.1" or COCO'
    if _is_list(one.get("items")) and "categories" in one:
        return "a Datumaro document: export as COCO, Pascal VOC or YOLO"
    if "asset" in one and "regions" in one:
        return "a VoTT document: export as Pascal VOC"
    return None


def foreign_xml(start: str) -> str:
    """Advice what to export instead of an XML document that is neither Pascal VOC nor CVAT."""
    root = re.search(r"<([A-Za-z_][\w.-]*)", re.sub(r"<[?!].*?>", "", start, flags=re.S))
    return FOREIGN_XML.get(root[1].lower() if root else "", "Export as COCO, Pascal VOC or YOLO.")


def is_annotation_json(document: Any, depth: int = DEEPEST) -> bool:
    """Whether a JSON document of unknown format may contain annotations."""
    if isinstance(document, Mapping):
        some = list(islice(document.items(), WIDEST))
        if any(_WORDS.fullmatch(str(key)) for key, _ in some):
            return True
        return depth > 0 and any(is_annotation_json(value, depth - 1) for _, value in some)
    if _is_list(document):
        return depth > 0 and any(is_annotation_json(one, depth - 1) for one in document[:WIDEST])
    return False


def is_annotation_xml(text: str) -> bool:
    """Whether an XML document of unknown format may contain annotations."""
    return _XML_WORDS.search(text) is not None


def is_annotation_table(text: str) -> bool:
    """Whether a CSV file has a column name that is typical of annotations."""
    return _TABLE.search(text.lstrip("\ufeff").partition("\n")[0]) is not None


def names_in_json(path: Path, document: Any) -> list[str] | None:
    """The class names in order of id from a file such as the notes.json of Label Studio's YOLO
    export; None if it is no such file."""
    if isinstance(document, Mapping) and _is_list(document.get("categories")):
        rows = document["categories"]
        if "images" in document or not all(isinstance(row, Mapping) for row in rows):
            return None
        ids = {row.get("id"): row.get("name") for row in rows if isinstance(row.get("id"), int)}
        if set(ids) == set(range(len(rows))) and all(isinstance(v, str) for v in ids.values()):
            return [ids[number] for number in range(len(rows))]
        return None
    named = re.search("class|label|names|categor", path.stem, re.I)
    if named and _is_list(document) and all(isinstance(one, str) for one in document):
        return list(document)
    return None


def text_kind(path: PurePosixPath, text: str, stems: frozenset[str]) -> Text:
    """The kind of a text file: YOLO labels, a class list, or other text ("prose").

    Args:
        path: Path in the zip.
        text: Content of the file.
        stems: File names of the zip's images without suffix.
    """
    lines = [line.split() for line in text.splitlines() if line.strip()]
    numbers = all(all(map(_is_number, line)) for line in lines)
    folders = [part.lower() in LABEL_FOLDERS for part in path.parts[:-1]]
    named = path.suffix.lower() in (".names", ".labels") or path.name.lower() in CLASS_LISTS
    if numbers and any(len(line) >= 5 for line in lines):
        return "labels"
    if numbers and any(folders[:-1]):  # labels/train/classes.txt labels an image "classes"
        return "labels"
    if named and (lines or not any(folders)):
        return "classes"
    if "ImageSets" in path.parts:
        return "prose"
    if any(folders) or path.stem in stems:
        return "labels"
    if path.stem.lower() in IMAGE_LISTS or is_about_files(path.name):
        return "prose"
    return "labels" if numbers else "prose"


_COMMA = re.compile(r"[-+]?\d+,\d+(e[-+]?\d+)?", re.I)


def foreign_lines(text: str) -> str | None:
    """The unsupported format that label lines are in, with advice how to convert it; else None."""
    for line in islice((line.split() for line in text.splitlines()), 1000):
        if _has_commas(line):
            return "numbers with a decimal comma: write them with a decimal point"
        count = sum(map(_is_number, line))
        if count < 4 or count == len(line):
            continue
        if len(line) >= 9 and all(map(_is_number, line[:8])):
            return (
                "lines in DOTA's format (eight numbers, then the class): convert them to YOLO's "
                "format"
            )
        if len(line) in (15, 16) and not _is_number(line[0]):
            return (
                "lines in KITTI's format (the class, then 14 numbers): convert them to YOLO's "
                "format or COCO"
            )
        if not _is_number(line[0]):
            return (
                "lines that begin with a class name: in YOLO's format they begin with the class id"
            )
    return None


def is_about_files(name: str) -> bool:
    """Whether a text file's name is that of documentation, such as a README or a licence."""
    stem = PurePosixPath(name).stem
    return re.match(r"(readme|licen[cs]e|notes?|requirements|changelog)\b", stem, re.I) is not None


def _has_commas(line: Sequence[str]) -> bool:
    """Whether a line is a label line with decimal commas."""
    numbers = [value.replace(",", ".") for value in line]
    return len(line) >= 5 and all(map(_is_number, numbers)) and any(map(_COMMA.fullmatch, line))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _is_via(document: Mapping[str, Any]) -> bool:
    """Whether a document is VIA's: file name and size → an object with `regions`."""
    some = list(islice(document.values(), 3))
    return bool(some) and all(
        isinstance(value, Mapping) and "regions" in value and "filename" in value for value in some
    )


def _is_min(row: Mapping[str, Any]) -> bool:
    """Whether a row is a JSON-MIN task, which has its data and control values as siblings."""
    kinds = ("rectanglelabels", "polygonlabels", "keypointlabels", "brushlabels")
    return any(
        isinstance(one, Mapping) and any(kind in one for kind in kinds)
        for value in row.values()
        if _is_list(value)
        for one in value
    )


def _members(value: Any) -> Mapping[str, Any]:
    first = value[0] if _is_list(value) and value else None
    return first if isinstance(first, Mapping) else {}
