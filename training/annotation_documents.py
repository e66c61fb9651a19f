"""Annotations as people send them: documents of four formats, alone or in a zip with pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from errors import ValidationFailed
from inference.annotations import Annotation, Annotations
from inference.coco import from_coco
from inference.label_studio import from_label_studio
from inference.labelme import from_labelme
from inference.yolo_labels import from_yolo
from training import dataset_yaml
from training.dataset_formats import FORMATS, Format
from training.image_files import SUFFIXES

Size = tuple[int, int]
BIGGEST = 512 * 2**20  # bytes of one document
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # how Label Studio begins the names of uploads
_CONTENT = re.compile(r"[0-9a-f]{64}")

SHAPES = (
    "Label Studio's list of tasks, a COCO document with images and annotations, a LabelMe "
    "document or a list of them, or for YOLO {names, labels: {image: lines}}"
)


@dataclass(frozen=True)
class Marks:
    """What is said of one picture.

    Attributes:
        name: The picture's, or its path.
        content: SHA-256 of its file, where that is known.
        read: What is said, given the picture's width and height.
    """

    name: str
    read: Callable[[Size], Annotations]
    content: str = ""


@dataclass(frozen=True)
class Sent:
    """What came: marks, and pictures by their names."""

    marks: Sequence[Marks]
    pictures: Mapping[str, Path]


def from_json(
    document: Any, form: Format | None, names: Sequence[str], points: Sequence[str]
) -> list[Marks]:
    """The marks of a document.

    Args:
        document: Parsed JSON.
        form: Of which format; None: what it looks like.
        names, points: Of the data set, for YOLO lines without names of their own.

    Raises:
        ValidationFailed: It is of no format, or not of that one.
    """
    looks = _form_of(document)
    if looks is None or form not in (None, looks):
        wanted = form or " or ".join(FORMATS)
        raise ValidationFailed(f"The annotations are no {wanted} document. Send {SHAPES}.")
    if looks == "coco":
        return [_read_already(found) for found in from_coco(document)]
    if looks == "labelme":
        every = document if isinstance(document, list) else [document]
        return [_read_already(from_labelme(one, points)) for one in every]
    if looks == "yolo":
        return _yolo_json(document, names, points)
    return [mark for task in document for mark in _task(task, points)]


def from_folder(
    folder: Path, form: Format | None, names: Sequence[str], points: Sequence[str]
) -> Sent:
    """The marks and pictures of an unpacked zip: JSON documents, YOLO's label files beside a
    data.yaml or classes.txt, or a folder of pictures per class.

    Raises:
        ValidationFailed, DatasetInvalid: There are no annotations in it, or they cannot be read.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    pictures = {
        path.relative_to(folder).as_posix(): path
        for path in files
        if path.suffix.lower() in SUFFIXES
    }
    contents = {name: sha256(path.read_bytes()).hexdigest() for name, path in pictures.items()}
    marks: list[Marks] = []
    for path in files:
        if path.suffix.lower() == ".json" and form != "yolo":
            document = parse(path.read_bytes(), path.name)
            if _form_of(document) is not None:
                marks += from_json(document, form, names, points)
    if not marks and form in (None, "yolo"):
        marks = list(_yolo_files(folder, files, names, points)) or list(_class_folders(pictures))
    if not marks:
        raise ValidationFailed(
            f"The zip holds no {form or 'annotations'} that can be read. Pack {SHAPES} as .json "
            "files; or label files with a data.yaml or classes.txt."
        )
    return Sent([_with_content(mark, contents) for mark in marks], pictures)


def parse(data: bytes, name: str) -> Any:
    """A JSON document. Raises ValidationFailed."""
    if len(data) > BIGGEST:
        raise ValidationFailed(f"{name} is over {BIGGEST // 2**20} MiB.")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        reason = str(error)[:80]
        raise ValidationFailed(f"{name} is not valid JSON: {reason}.") from None


def plain_name(name: str) -> str:
    """The file name in a path or address, without what Label Studio puts before it."""
    parts = urlsplit(name)
    local = parse_qs(parts.query).get("d")  # /data/local-files/?d=folder/image.jpg
    path = local[0] if local else parts.path if parts.scheme else name
    last = PurePosixPath(unquote(path).replace("\\", "/")).name
    return _UPLOADED.sub("", last)


def _form_of(document: Any) -> Format | None:
    first = document[0] if isinstance(document, list) and document else document
    if not isinstance(first, Mapping):
        return None
    if "shapes" in first:
        return "labelme"
    if isinstance(document, list):
        return "label_studio" if "data" in first else None
    if "images" in document and "annotations" in document and "categories" in document:
        return "coco"
    return "yolo" if "labels" in document else None


def _read_already(found: Annotations) -> Marks:
    def read(size: Size) -> Annotations:
        if size != (found.width, found.height):
            raise ValidationFailed(
                f"'{found.image[:100]}' is {size[0]} × {size[1]} here; the annotations are for "
                f"{found.width} × {found.height}."
            )
        return found

    return Marks(found.image, read, _content_of(found.image))


def _task(task: Any, points: Sequence[str]) -> Iterator[Marks]:
    """Of a Label Studio task its newest annotation that counts."""
    try:
        data = task["data"]
        name = next(v for v in (data.get("image"), *data.values()) if isinstance(v, str) and v)
        made = [one for one in task.get("annotations") or () if not one.get("was_cancelled")]
        if not made:
            return
        newest = max(made, key=lambda one: (bool(one.get("ground_truth")), _stamp(one)))
        regions = list(newest["result"])
        content = str((task.get("meta") or {}).get("content") or "") or _content_of(name)
    except (KeyError, TypeError, AttributeError, StopIteration):
        raise ValidationFailed(
            "A Label Studio task lacks 'data' with the picture, or its annotations lack 'result'."
        ) from None
    yield Marks(name, lambda size: from_label_studio(regions, name, size, points), content)


def _stamp(annotation: Mapping[str, Any]) -> str:
    return str(annotation.get("updated_at") or annotation.get("created_at") or "")


def _yolo_json(
    document: Mapping[str, Any], names: Sequence[str], points: Sequence[str]
) -> list[Marks]:
    labels, image = document["labels"], document.get("image")
    labels = {image: labels} if isinstance(labels, str) and isinstance(image, str) else labels
    names, points = document.get("names") or names, document.get("keypoint_names") or points
    if not isinstance(labels, Mapping) or not all(isinstance(v, str) for v in labels.values()):
        raise ValidationFailed("'labels' must be an object: image → the text of its label file.")
    if not _texts(names) or not _texts(points):
        raise ValidationFailed("'names' and 'keypoint_names' must be lists of texts.")
    return [_lines(str(name), text, tuple(names), points) for name, text in labels.items()]


def _texts(values: Any) -> bool:
    return isinstance(values, (list, tuple)) and all(isinstance(value, str) for value in values)


def _yolo_files(
    folder: Path, files: Sequence[Path], names: Sequence[str], points: Sequence[str]
) -> Iterator[Marks]:
    described = dataset_yaml.find_yaml(folder)
    listed = folder / "classes.txt"
    numbers = 3
    if described is not None:
        names, points, numbers = dataset_yaml.names_in(described)
    elif listed.is_file():
        lines = listed.read_text("utf-8-sig", "replace").splitlines()
        names = [line.strip() for line in lines if line.strip()]
    for path in files:
        if path.suffix.lower() == ".txt" and path != listed:
            name = path.relative_to(folder).with_suffix("").as_posix()
            text = path.read_text("utf-8-sig", "replace")
            yield _lines(name, text, tuple(names), points, numbers)


def _lines(
    name: str, text: str, names: Sequence[str], points: Sequence[str], numbers: int = 3
) -> Marks:
    def read(size: Size) -> Annotations:
        try:
            return from_yolo(text, names, size, name, points, numbers)
        except ValidationFailed as error:
            raise ValidationFailed(f"{name[:100]}: {error.message}") from None

    return Marks(name, read, _content_of(name))


def _class_folders(pictures: Mapping[str, Path]) -> Iterator[Marks]:
    for name in pictures:
        label = PurePosixPath(name).parent.name
        if label:
            yield _of_class(name, label)


def _of_class(name: str, label: str) -> Marks:
    return Marks(name, lambda size: Annotations(name, *size, (Annotation(label),)))


def _with_content(marks: Marks, contents: Mapping[str, str]) -> Marks:
    """With the content of the zip's picture that it is named after, the nearest of that name."""
    if marks.content:
        return marks
    wanted = image_stem(marks.name)
    fitting = [name for name in contents if image_stem(name) == wanted]
    path = PurePosixPath(marks.name.replace("/labels/", "/images/"))
    exact = [
        name
        for name in fitting
        if str(PurePosixPath("x", name).with_suffix("")).endswith(
            str(PurePosixPath("x", *path.parts[-2:]).with_suffix(""))[1:]
        )
    ]
    chosen = exact if len(exact) == 1 else fitting
    if len(chosen) != 1:
        return marks
    return Marks(marks.name, marks.read, contents[chosen[0]])


def image_stem(name: str) -> str:
    """The file name in a path or address without the suffix of a picture, if it has one."""
    return without_suffix(plain_name(name))


def without_suffix(name: str) -> str:
    """A path without the suffix of a picture, if it has one: `frame.001` is no `frame`."""
    suffix = PurePosixPath(name).suffix
    return name[: -len(suffix)] if suffix.lower() in SUFFIXES else name


def _content_of(name: str) -> str:
    stem = image_stem(name)
    return stem if _CONTENT.fullmatch(stem) else ""
