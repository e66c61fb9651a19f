"""Reads YOLO label files of a zip, and finds the class list that their ids refer to."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from dataset.documents.format_detection import foreign_lines
from dataset.documents.image_names import content_named
from dataset.documents.submission import DescribedImage, Size
from errors import ValidationFailed
from formats.annotations import Annotations, with_area
from formats.coordinates import SLACK, Stated, are_corners, over_the_edge
from formats.yolo import from_yolo

SHOWN = 12  # maximum number of class names in a note
CORNERS = (
    "seem to be x1 y1 x2 y2: read as centre and size, too many of them extend beyond the image. "
    "Write each line as: class x_centre y_centre width height."
)

_NUMBERED = re.compile(r"(\d{1,9})\s*[:\s]\s*(\S.*)")
_POSES = (2, 3)


@dataclass(frozen=True)
class ClassList:
    """The classes that a file lists.

    Attributes:
        path: Path of the file in the zip.
        names: Class names in order of id; empty if the file gives only their number.
        points: Names of the keypoints.
        numbers: Numbers per keypoint in a label line, 2 or 3.
        whole: The file describes a complete dataset, as a data.yaml does.
    """

    path: str
    names: tuple[str, ...]
    points: tuple[str, ...] = ()
    numbers: int = 3
    whole: bool = False


def decoded(data: bytes) -> str:
    """A file decoded as UTF-8, or as UTF-16 with a byte order mark; bad bytes become U+FFFD."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    return data.decode("utf-8-sig", "replace")


def names_of(path: str, text: str) -> ClassList:
    """Reads a list with one class per line; lines may begin with the id.

    Raises:
        ValidationFailed: It is not UTF-8, or an empty line makes the ids ambiguous.
    """
    if "\ufffd" in text or "\0" in text:
        raise ValidationFailed(f"{path} is not UTF-8 text. Save it as UTF-8.")
    lines = [line.strip() for line in text.rstrip().splitlines()]
    for number, line in enumerate(lines, 1):
        if not line:
            raise ValidationFailed(
                f"{path}: line {number} is empty, so the ids of the classes after it are unclear. "
                "Remove it, or name the class."
            )
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    ids = [int(match[1]) for match in numbered if match]
    if lines and ids == list(range(len(lines))):
        lines = [match[2].strip() for match in numbered if match]
    first = {name: i for i, name in reversed(list(enumerate(lines)))}
    unique = (n if first[n] == i else f"{n} ({i})" for i, n in enumerate(lines))
    return ClassList(path, tuple(unique))  # a repeated name gets its id appended


def read_labels(
    texts: Mapping[str, str],
    lists: Sequence[ClassList],
    names: Sequence[str],
    points: Sequence[str],
    notes: list[str],
) -> Iterator[DescribedImage]:
    """Reads label files.

    Args:
        texts: Path of the label file in the zip → its text.
        lists: The class lists of the zip.
        names, points: Class and keypoint names of the dataset, used without a class list.
        notes: Receives a sentence if the dataset's class order was assumed.

    Raises:
        ValidationFailed: Two class lists contradict each other, or there is none.
    """
    _refuse_two(lists)
    _refuse_corners(texts)
    assumed = []
    for path, text in texts.items():
        found = _nearest(path, lists)
        if found is None:
            assumed.append(path)
            found = ClassList("", tuple(names), tuple(points))
        found = found if found.points else ClassList(found.path, found.names, tuple(points))
        refuse_foreign(path, text, found.points)
        yield _lines(path, text, found)
    if assumed:
        notes.append(_assumed(f"{len(assumed)} label files", assumed[0], names))


def read_json(
    document: Mapping[str, Any],
    file: str,
    names: Sequence[str],
    points: Sequence[str],
    notes: list[str],
) -> list[DescribedImage]:
    """Reads a JSON document `{names, labels: {image: lines}}`.

    The other arguments are those of `read_labels`.

    Raises:
        ValidationFailed: The document has another structure.
    """
    labels, image = document["labels"], document.get("image")
    labels = {image: labels} if isinstance(labels, str) and isinstance(image, str) else labels
    own, points = document.get("names"), document.get("keypoint_names") or points
    if not isinstance(labels, Mapping) or not all(isinstance(v, str) for v in labels.values()):
        raise ValidationFailed(
            f"{file}: 'labels' must be an object: image → the text of its label file."
        )
    if not _texts(own or ()) or not _texts(points):
        raise ValidationFailed(f"{file}: 'names' and 'keypoint_names' must be lists of texts.")
    if not own and any(text.strip() for text in labels.values()):
        notes.append(_assumed(f"'labels' of {file}", file, names))
    classes = ClassList(file, tuple(own or names), tuple(points))
    _refuse_corners({f"{file}, {name}": text for name, text in labels.items()})
    for name, text in labels.items():
        refuse_foreign(f"{file}, {name}", text, classes.points)
    return [_lines(str(name), text, classes, stem=False) for name, text in labels.items()]


def _texts(values: Any) -> bool:
    return isinstance(values, (list, tuple)) and all(isinstance(value, str) for value in values)


def _assumed(what: str, example: str, names: Sequence[str]) -> str:
    """A note that class ids were read in the dataset's class order.

    Raises:
        ValidationFailed: The dataset has no classes.
    """
    if not names:
        raise ValidationFailed(
            f"{example}: the upload has no class list, so the class ids have no meaning. Add the "
            "data.yaml, classes.txt or obj.names of the same export to the zip."
        )
    order = ", ".join(f"{index} {name}" for index, name in enumerate(names[:SHOWN]))
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (
        f"The upload has no class list for {what}, so class ids were read in the class order of "
        f"this dataset ({order}{more})."
    )


def _lines(path: str, text: str, classes: ClassList, stem: bool = True) -> DescribedImage:
    """Wraps the label lines of one image; `stem`: `path` is that of its label file."""
    name = re.sub(r"\.txt$", "", path, flags=re.I) if stem else path
    where = path if stem else f"'labels' of {path[:100]}"

    skipped: Counter[str] = Counter()

    def read(size: Size) -> Annotations:
        skipped.clear()  # `read` may be called again
        try:
            found = from_yolo(text, classes.names, size, name, classes.points, classes.numbers)
        except ValidationFailed as error:
            raise ValidationFailed(f"{where[:120]}: {error.message}") from None
        return replace(found, objects=with_area(found.objects, skipped))

    content = content_named(name)
    return DescribedImage(
        name, read, content, where=where, source="yolo", stem=stem, skipped=skipped
    )


def refuse_foreign(path: str, text: str, points: Sequence[str]) -> None:
    """Check that label lines are YOLO's.

    Raises:
        ValidationFailed: They are in another known format, or poses without a keypoint shape.
    """
    if form := foreign_lines(text):
        raise ValidationFailed(f"{path[:120]} has {form}.")
    if not points and (shape := _pose_shape(text)):
        raise ValidationFailed(
            f"{path[:120]} looks like poses of {shape} keypoints (a box, then x, y and 0, 1 or 2 "
            "for each), but no kpt_shape is given. Add the data.yaml with kpt_shape to the zip."
        )


def _refuse_corners(texts: Mapping[str, str]) -> None:
    """Check that boxes are written as centre and size.

    Raises:
        ValidationFailed: The boxes of all files look like two corners.
    """
    boxes = []
    for text in texts.values():
        for line in text.splitlines():
            with suppress(ValueError):  # reported when the line is read
                boxes += box_of([float(number) for number in line.split()])
    if are_corners(boxes):
        raise ValidationFailed(
            f"The boxes of the label files ({next(iter(texts))[:100]}, …) {CORNERS}"
        )


def box_of(values: Sequence[float]) -> list[Stated]:
    """The box of a line as it is written; empty if the line is no box."""
    if len(values) not in (5, 6):
        return []
    x, y, w, h = values[1:5]
    bounds = x - w / 2, y - h / 2, x + w / 2, y + h / 2
    return [Stated((x, y, w, h), over_the_edge(bounds, (1, 1)) > SLACK)]


def _pose_shape(text: str) -> int:
    """The number of keypoints of every line; 0 if the lines are not poses."""
    counts = set()
    for line in text.splitlines():
        values = line.split()[5:]
        if not line.strip():
            continue
        if len(values) < 3 or len(values) % 3 or set(map(_plain, values[2::3])) - set("012"):
            return 0
        counts.add(len(values) // 3)
    return counts.pop() if len(counts) == 1 else 0


def _plain(number: str) -> str:
    return re.sub(r"\.0*$", "", number)


def _refuse_two(lists: Sequence[ClassList]) -> None:
    whole = [one for one in lists if one.whole and one.names]
    for one in whole[1:]:
        if one.names != whole[0].names:
            raise _contradict(whole[0], one)


def _nearest(path: str, lists: Sequence[ClassList]) -> ClassList | None:
    """The class list in the nearest folder above a label file, else any list of the zip.

    Raises:
        ValidationFailed: Two of these lists contradict each other.
    """
    named = [one for one in lists if one.names]
    above = set(PurePosixPath(path).parents)
    over = [one for one in named if PurePosixPath(one.path).parent in above]
    fitting = sorted(over or named, key=lambda one: -len(PurePosixPath(one.path).parts))
    for one in fitting[1:]:
        if one.names != fitting[0].names:
            raise _contradict(fitting[0], one)
    with_points = [one for one in fitting if one.points]
    return next(iter(with_points or fitting), None)


def _contradict(one: ClassList, other: ClassList) -> ValidationFailed:
    return ValidationFailed(
        f"{one.path} and {other.path} give the classes different ids ({_first(one)}; "
        f"{_first(other)}). Keep only the one that matches the label files."
    )


def _first(one: ClassList) -> str:
    return ", ".join(one.names[:3])
