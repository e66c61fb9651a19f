"""YOLO's label files of a zip, and whose class ids they use."""

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

SHOWN = 12  # classes in a note
CORNERS = (
    "look like x1 y1 x2 y2: read as they should be written, too many of them reach over the "
    "image's edge. Write the centre, width and height: class x y w h."
)

_NUMBERED = re.compile(r"(\d+)\s*[:\s]\s*(\S.*)")
_POSES = (2, 3)


@dataclass(frozen=True)
class ClassList:
    """The classes by their ids, as a file has them.

    Attributes:
        path: Of the file, in the zip.
        names: In the order of their ids; empty: it says only how many.
        points: Names of the keypoints.
        numbers: Of each keypoint in a line.
        whole: It describes a whole dataset, as a data.yaml does.
    """

    path: str
    names: tuple[str, ...]
    points: tuple[str, ...] = ()
    numbers: int = 3
    whole: bool = False


def decoded(data: bytes) -> str:
    """The text of a file; what is neither UTF-8 nor marked as UTF-16 has U+FFFD in it."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    return data.decode("utf-8-sig", "replace")


def names_of(path: str, text: str) -> ClassList:
    """A list with a class in each line; lines may begin with the ids.

    Raises:
        ValidationFailed: It is not UTF-8; a line is empty, which leaves open whether it counts.
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
    told = (n if first[n] == i else f"{n} ({i})" for i, n in enumerate(lines))
    return ClassList(path, tuple(told))  # one that stands twice gets its id, as in a data.yaml


def read_labels(
    texts: Mapping[str, str],
    lists: Sequence[ClassList],
    names: Sequence[str],
    points: Sequence[str],
    notes: list[str],
) -> Iterator[DescribedImage]:
    """What label files say.

    Args:
        texts: Path in the zip → text.
        lists: Of classes that the zip has.
        names, points: Of the dataset, for files without a list.
        notes: Gets a sentence where the dataset's own order was assumed.

    Raises:
        ValidationFailed: Two lists contradict each other; there is none.
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
    """What `{names, labels: {image: lines}}` says; the arguments are those of `read_labels`.

    Raises:
        ValidationFailed: It is not of that form.
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
    """A sentence about ids that were read in the dataset's own order.

    Raises:
        ValidationFailed: It has none.
    """
    if not names:
        raise ValidationFailed(
            f"{example}: no list of classes came with it, so its class ids mean nothing. Pack the "
            "data.yaml, classes.txt or obj.names of the same export into the zip."
        )
    order = ", ".join(f"{index} {name}" for index, name in enumerate(names[:SHOWN]))
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (
        f"No list of classes came with {what}: their ids were read in this dataset's own order "
        f"({order}{more})."
    )


def _lines(path: str, text: str, classes: ClassList, stem: bool = True) -> DescribedImage:
    """The lines of one image; `stem`: `path` is that of a label file."""
    name = re.sub(r"\.txt$", "", path, flags=re.I) if stem else path
    where = path if stem else f"'labels' of {path[:100]}"

    skipped: Counter[str] = Counter()

    def read(size: Size) -> Annotations:
        skipped.clear()  # it may be read again
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
    """Raises ValidationFailed: the lines are of a known form that is not read."""
    if form := foreign_lines(text):
        raise ValidationFailed(f"{path[:120]} has {form}.")
    if not points and (shape := _pose_shape(text)):
        raise ValidationFailed(
            f"{path[:120]} looks like poses of {shape} keypoints (a box, then x, y and 0, 1 or 2 "
            "for each), and nothing says so. Pack the data.yaml with its kpt_shape, too."
        )


def _refuse_corners(texts: Mapping[str, str]) -> None:
    """Raises ValidationFailed: the boxes of all files are written as two corners."""
    boxes = []
    for text in texts.values():
        for line in text.splitlines():
            with suppress(ValueError):  # told where the line is read
                boxes += box_of([float(number) for number in line.split()])
    if are_corners(boxes):
        raise ValidationFailed(
            f"The boxes of the label files ({next(iter(texts))[:100]}, …) {CORNERS}"
        )


def box_of(values: Sequence[float]) -> list[Stated]:
    """The box of a line that is one, as it stands there."""
    if len(values) not in (5, 6):
        return []
    x, y, w, h = values[1:5]
    bounds = x - w / 2, y - h / 2, x + w / 2, y + h / 2
    return [Stated((x, y, w, h), over_the_edge(bounds, (1, 1)) > SLACK)]


def _pose_shape(text: str) -> int:
    """How many keypoints every line has; 0: they are no poses."""
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
    """Of the lists in the folders above a label file the nearest, else any of the zip's.

    Raises:
        ValidationFailed: Two of them contradict each other.
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
        f"{_first(other)}). Keep the one that the label files were written with."
    )


def _first(one: ClassList) -> str:
    return ", ".join(one.names[:3])
