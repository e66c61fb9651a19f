"""Corrections of a data set: annotations matched to its pictures, taken in all or not at all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from errors import ValidationFailed, VisionLoopError
from inference.annotations import Annotation, Annotations, Keypoint, Part, Ring
from inference.images import check_header
from training.annotated_dataset import AnnotatedDataset, AnnotatedDatasets
from training.annotated_picture import AnnotatedPicture
from training.annotation_documents import Marks, Sent, plain_name

SHOWN = 20  # names in an answer
SMALLEST = 1e-3  # pixels: what is narrower is no object


@dataclass
class Taken:
    """What came of a correction.

    Attributes:
        found: Content → what is said of it.
        suffixes: Content → suffix of its file.
        names: Content → name, of pictures that are new.
        unmatched: Names that are no picture's here, or several's.
        new_classes: That the data set did not have.
    """

    found: dict[str, Annotations] = field(default_factory=dict)
    suffixes: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)
    new_classes: set[str] = field(default_factory=set)

    def to_json(self) -> dict[str, Any]:
        return {
            "annotated": len(self.found),
            "new_pictures": len(self.names),
            "unmatched_count": len(self.unmatched),
            "unmatched": self.unmatched[:SHOWN],
            "new_classes": sorted(self.new_classes),
        }


def correct(
    store: AnnotatedDatasets, dataset: AnnotatedDataset, sent: Sent, names: Sequence[str]
) -> Taken:
    """Take what a person says of a data set's pictures.

    A picture of the zip that the data set does not have is added to it.

    Args:
        store: Has the data set.
        dataset: Which one.
        sent: Marks, and pictures.
        names: Classes that it has.

    Raises:
        ValidationFailed: Nothing fits a picture; a mark is impossible. Nothing is taken.
        InvalidImage, PayloadTooLarge: A new picture cannot be read, or is too large.
    """
    matcher = _Matcher(store.pictures(dataset.id))
    taken = Taken()
    for marks in sent.marks:
        picture = matcher.match(marks)
        if picture is not None:
            size = picture.annotations.width, picture.annotations.height
            content, suffix = picture.content, picture.file.suffix
        elif (path := _new(marks, sent.pictures)) is not None:
            data = path.read_bytes()
            try:
                size = check_header(data, store.max_pixels)
                content, suffix = store.keep(dataset.id, data)
            except VisionLoopError as error:
                raise type(error)(f"{marks.name[:100]}: {error.message}") from None
            taken.names[content] = marks.name
        else:
            taken.unmatched.append(marks.name[:200])
            continue
        found = _checked(marks.read(size), marks.name, size)
        taken.found[content], taken.suffixes[content] = found, suffix
        taken.new_classes |= {thing.label for thing in found.objects} - set(names)
    if not taken.found:
        shown = ", ".join(taken.unmatched[:3]) or "none"
        raise ValidationFailed(
            f"No annotation fits a picture of '{dataset.id}': {shown}. Pictures are known by "
            "their file names, or by the SHA-256 of their content as name; new ones come in the "
            "same zip."
        )
    store.correct(dataset.id, taken.found, taken.suffixes, taken.names)
    return taken


class _Matcher:
    """Finds the picture that is meant: by content, path, file name, or name without suffix."""

    def __init__(self, pictures: Sequence[AnnotatedPicture]) -> None:
        self._by_content = {picture.content: picture for picture in pictures}
        self._by_name: dict[str, list[AnnotatedPicture]] = {}
        for picture in pictures:
            name = picture.name or plain_name(picture.annotations.image)
            for key in {name, plain_name(name), _stem(plain_name(name)), _no_suffix(name)}:
                self._by_name.setdefault(key, []).append(picture)

    def match(self, marks: Marks) -> AnnotatedPicture | None:
        """None where there is none, or more than one."""
        if found := self._by_content.get(marks.content):
            return found
        plain = plain_name(marks.name)
        for key in (marks.name, _as_image(marks.name), plain, _stem(plain)):
            fitting = self._by_name.get(key, [])
            if len(fitting) == 1:
                return fitting[0]
        return None


def _new(marks: Marks, pictures: Mapping[str, Path]) -> Path | None:
    plain = plain_name(marks.name)
    fitting = [
        path
        for name, path in pictures.items()
        if name == marks.name or plain in (plain_name(name), _stem(plain_name(name)))
    ]
    return fitting[0] if len(fitting) == 1 else None


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def _no_suffix(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{_stem(last)}"


def _as_image(name: str) -> str:
    """`labels/train/a` → `images/train/a`, as YOLO's folders are laid out."""
    return f"/{name}".replace("/labels/", "/images/")[1:]


def _checked(found: Annotations, name: str, size: tuple[int, int]) -> Annotations:
    """A person's marks, within the picture, without the scores of the model that made them."""
    objects = tuple(_object(thing, name, size) for thing in found.objects)
    return Annotations(found.image, *size, objects)


def _object(thing: Annotation, name: str, size: tuple[int, int]) -> Annotation:
    if not thing.label.strip():
        raise ValidationFailed(f"{name[:100]}: an object has no class.")
    numbers = [
        *(thing.box or ()),
        *(v for part in thing.parts for r in (part.outline, *part.holes) for p in r for v in p),
        *(v for point in thing.keypoints for v in (point.x, point.y)),
    ]
    if not all(map(math.isfinite, numbers)):
        raise ValidationFailed(f"{name[:100]}: an object '{thing.label[:60]}' is nowhere: NaN.")
    box = None
    if thing.box is not None:
        x1, y1, x2, y2 = thing.box
        box = (*_inside((x1, y1), size), *_inside((x2, y2), size))
    made = replace(
        thing,
        box=box,
        parts=tuple(
            Part(_ring(part.outline, size), tuple(_ring(hole, size) for hole in part.holes))
            for part in thing.parts
        ),
        keypoints=tuple(_point(point, size) for point in thing.keypoints),
        score=None,
    )
    bounds = made.bounds if made.box or made.parts else None
    if bounds and min(bounds[2] - bounds[0], bounds[3] - bounds[1]) < SMALLEST:
        raise ValidationFailed(
            f"{name[:100]}: an object '{thing.label[:60]}' has no area within the picture of "
            f"{size[0]} × {size[1]} pixels."
        )
    return made


def _ring(ring: Ring, size: tuple[int, int]) -> Ring:
    return tuple(_inside(point, size) for point in ring)


def _point(point: Keypoint, size: tuple[int, int]) -> Keypoint:
    x, y = _inside((point.x, point.y), size)
    return replace(point, x=x, y=y, score=None)


def _inside(point: tuple[float, float], size: tuple[int, int]) -> tuple[float, float]:
    return min(max(point[0], 0.0), size[0]), min(max(point[1], 0.0), size[1])
