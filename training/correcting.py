"""Corrections of a data set: annotations matched to its pictures, taken in all or not at all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from sqlalchemy import inspect

from errors import ValidationFailed, VisionLoopError
from inference.annotations import Annotation, Annotations, Keypoint, Part, Ring
from inference.images import check_header
from inference.polygons import clip
from training.annotated_dataset import AnnotatedDataset, AnnotatedDatasets, AnnotationEntry
from training.annotated_picture import AnnotatedPicture
from training.annotation_diff import compare
from training.annotation_documents import (
    Marks,
    Sent,
    image_stem,
    plain_name,
    without_suffix,
)
from training.picture_suffix import suffix_of

SHOWN = 20  # names in an answer
UNCHANGED = 0.98  # IoU from which an object came back as it was
SMALLEST = 1e-3  # pixels: what is narrower is no object


@dataclass
class Correction:
    """What a person says of a data set's pictures.

    Attributes:
        found: Content → what is said of it.
        suffixes: Content → suffix of its file.
        names: Content → name, of pictures that are new.
        files: Content → file, of pictures that are new.
        unchanged: Pictures that came back as they were.
        unmatched: Names that are no picture's here, or several's.
        new_classes: That the data set did not have.
    """

    found: dict[str, Annotations] = field(default_factory=dict)
    suffixes: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    unchanged: set[str] = field(default_factory=set)
    unmatched: list[str] = field(default_factory=list)
    new_classes: set[str] = field(default_factory=set)

    def to_json(self) -> dict[str, Any]:
        return {
            "annotated": len(self.found),
            "new_pictures": len(self.names),
            "unchanged": len(self.unchanged),
            "unmatched_count": len(self.unmatched),
            "unmatched": self.unmatched[:SHOWN],
            "new_classes": sorted(self.new_classes),
        }


def read_correction(
    store: AnnotatedDatasets,
    dataset: AnnotatedDataset,
    sent: Sent,
    names: Sequence[str],
    only_changed: bool = False,
) -> Correction:
    """What is said of a data set's pictures, checked; nothing is taken yet.

    A picture of the zip that the data set does not have is to be added to it.

    Args:
        store: Has the data set.
        dataset: Which one.
        sent: Marks, and pictures.
        names: Classes that it has.
        only_changed: Pass over pictures that came back as they were: nobody may have looked.

    Raises:
        ValidationFailed: Nothing fits a picture; a mark is impossible; two differ on a picture.
        InvalidImage, PayloadTooLarge: A new picture cannot be read, or is too large.
    """
    matcher = _Matcher(store.pictures(dataset.id))
    made = Correction()
    said_by: dict[str, str] = {}
    for marks in sent.marks:
        picture = matcher.match(marks)
        if picture is not None:
            size = picture.annotations.width, picture.annotations.height
            content, suffix = picture.content, picture.file.suffix
        elif (path := _new(marks, sent.pictures)) is not None:
            content, suffix, size = _look(path, marks.name, store.max_pixels)
            made.names[content], made.files[content] = marks.name, path
        else:
            made.unmatched.append(marks.name[:200])
            continue
        found = _checked(marks.read(size), marks.name, size)
        if content in made.found and made.found[content].objects != found.objects:
            raise ValidationFailed(
                f"{said_by[content][:100]} and {marks.name[:100]} are the same picture here, and "
                "say different things of it. Send one of them; where they are two pictures, name "
                "them by the SHA-256 of their content, or send the pictures, too."
            )
        made.found[content], made.suffixes[content] = found, suffix
        said_by[content] = marks.name
        made.new_classes |= {thing.label for thing in found.objects} - set(names)
        if picture is not None and _is_unchanged(picture.annotations, found):
            made.unchanged.add(content)
    if not made.found:
        shown = ", ".join(made.unmatched[:3]) or "none"
        raise ValidationFailed(
            f"No annotation fits a picture of '{dataset.id}': {shown}. Pictures are known by "
            "their file names, or by the SHA-256 of their content as name; new ones come in the "
            "same zip."
        )
    if only_changed:
        for content in made.unchanged:
            del made.found[content]
    if not made.found:
        raise ValidationFailed(
            f"All {len(made.unchanged)} pictures came back as they were, and 'only' is changed: "
            "nothing was taken. With only=all they count as looked at."
        )
    return made


@contextmanager
def corrected(
    store: AnnotatedDatasets, dataset: AnnotatedDataset, correction: Correction
) -> Iterator[None]:
    """Take a correction; if the block fails, it is withdrawn with the pictures it brought."""
    before = _rows(store, dataset.id, correction)
    brought: list[Path] = []
    try:
        for content, path in correction.files.items():
            file = store.file(dataset.id, content, correction.suffixes[content])
            if not file.exists():
                brought.append(file)
            store.keep(dataset.id, path.read_bytes())
        store.correct(dataset.id, correction.found, correction.suffixes, correction.names)
        yield
    except BaseException:
        _withdraw(store, dataset.id, correction, before)
        for file in brought:
            file.unlink(missing_ok=True)
        raise


Row = dict[str, Any]


def _rows(store: AnnotatedDatasets, dataset_id: str, correction: Correction) -> dict[str, Row]:
    """What people had said of the pictures, by content."""
    columns = [column.key for column in inspect(AnnotationEntry).column_attrs]
    rows = {}
    with store.database.read() as session:
        for content in correction.found:
            entry = session.get(AnnotationEntry, (dataset_id, _key(content)))
            if entry is not None:
                rows[content] = {name: getattr(entry, name) for name in columns}
    return rows


def _withdraw(
    store: AnnotatedDatasets, dataset_id: str, correction: Correction, before: Mapping[str, Row]
) -> None:
    """Put back what was there, where nobody has said something else since."""
    with store.database.write() as session:
        for content in correction.found:
            entry = session.get(AnnotationEntry, (dataset_id, _key(content)))
            old = before.get(content)
            if entry is None or entry.number != (old["number"] if old else 0) + 1:
                continue
            if old is None:
                session.delete(entry)
            else:
                session.merge(AnnotationEntry(**old))


def _key(content: str) -> str:
    return f"person:{content}"


def _look(path: Path, name: str, max_pixels: int) -> tuple[str, str, tuple[int, int]]:
    """Content, suffix and size of a new picture."""
    data = path.read_bytes()
    try:
        return sha256(data).hexdigest(), suffix_of(data), check_header(data, max_pixels)
    except VisionLoopError as error:
        raise type(error)(f"{name[:100]}: {error.message}") from None


def _is_unchanged(before: Annotations, after: Annotations) -> bool:
    return all(change.kind == "accepted" for change in compare(before, after, UNCHANGED))


class _Matcher:
    """Finds the picture that is meant: by content, path, file name, or name without suffix."""

    def __init__(self, pictures: Sequence[AnnotatedPicture]) -> None:
        self._by_content = {picture.content: picture for picture in pictures}
        self._by_name: dict[str, list[AnnotatedPicture]] = {}
        for picture in pictures:
            name = picture.name or plain_name(picture.annotations.image)
            for key in {name, plain_name(name), image_stem(name), without_suffix(name)}:
                self._by_name.setdefault(key, []).append(picture)

    def match(self, marks: Marks) -> AnnotatedPicture | None:
        """None where there is none, or more than one."""
        if found := self._by_content.get(marks.content):
            return found
        plain = plain_name(marks.name)
        for key in (marks.name, _as_image(marks.name), plain, without_suffix(plain)):
            fitting = self._by_name.get(key, [])
            if len(fitting) == 1:
                return fitting[0]
        return None


def _new(marks: Marks, pictures: Mapping[str, Path]) -> Path | None:
    plain = plain_name(marks.name)
    fitting = [
        path
        for name, path in pictures.items()
        if name == marks.name or plain in (plain_name(name), image_stem(name))
    ]
    return fitting[0] if len(fitting) == 1 else None


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
        parts=_clipped(thing.parts, size),
        keypoints=tuple(_point(point, size) for point in thing.keypoints),
        score=None,
    )
    bounds = made.bounds if made.box or thing.parts else None
    lost = thing.parts and not made.parts
    if lost or (bounds and min(bounds[2] - bounds[0], bounds[3] - bounds[1]) < SMALLEST):
        raise ValidationFailed(
            f"{name[:100]}: an object '{thing.label[:60]}' has no area within the picture of "
            f"{size[0]} × {size[1]} pixels."
        )
    return made


def _clipped(parts: Sequence[Part], size: tuple[int, int]) -> tuple[Part, ...]:
    """What of them lies in the picture."""
    kept = []
    for part in parts:
        if outline := _clip(part.outline, size):
            holes = (_clip(hole, size) for hole in part.holes)
            kept.append(Part(outline, tuple(hole for hole in holes if hole)))
    return tuple(kept)


def _clip(ring: Ring, size: tuple[int, int]) -> Ring:
    if all(0 <= x <= size[0] and 0 <= y <= size[1] for x, y in ring):
        return ring
    return clip(ring, *size)


def _point(point: Keypoint, size: tuple[int, int]) -> Keypoint:
    x, y = _inside((point.x, point.y), size)
    return replace(point, x=x, y=y, score=None)


def _inside(point: tuple[float, float], size: tuple[int, int]) -> tuple[float, float]:
    return min(max(point[0], 0.0), size[0]), min(max(point[1], 0.0), size[1])
