"""Parses CVAT XML ("CVAT for images 1.1") into `Annotations`: many images, shapes in pixels.

Supported are `box`, `polygon`, `mask`, `ellipse` (as a polygon), `skeleton` and `tag` (the class
of the image). A rotated box becomes the polygon of its corners. A skeleton becomes its own object,
or the keypoints of the only other shape with the same label and `group_id`. Other groups are not
joined. `polyline`, `points` without a skeleton and `cuboid` are skipped and counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from xml.etree.ElementTree import Element

import numpy as np

from errors import ValidationFailed
from formats import rle
from formats.annotations import (
    ABSENT,
    OCCLUDED,
    VISIBLE,
    Annotation,
    AnnotationPart,
    Annotations,
    Keypoint,
    Ring,
    in_order,
    is_place,
    ring,
    with_area,
)
from formats.geometry import MOST_PIXELS, ellipse, rectangle, turned, unbridge
from formats.xml_documents import parse_xml, text_of

LONGEST = 512 * 2**20  # maximum bytes of a document
WHAT = "CVAT document"
PASSED_OVER = {
    "polyline": "CVAT polylines",
    "points": "CVAT points without a skeleton",
    "cuboid": "CVAT cuboids",
}
NO_POINT = "CVAT skeletons without a point inside the image"
NO_PIXEL = "empty CVAT masks"
DETAILS = frozenset(["attribute"])  # elements that describe a shape or image and are not read

Skeletons = dict[str, list[str]]  # class → its keypoint names, in order


def from_cvat_xml(
    text: str | bytes,
    *,
    skipped: Counter[str] | None = None,
    incomplete: set[int] | None = None,
) -> list[Annotations]:
    """Parses a document into the `Annotations` of each image, also those without shapes.

    An image's width and height are 0 if the document does not give them. Images of different
    subsets with the same name are named SUBSET/NAME, like their files in CVAT's zip.

    Args:
        text: The XML.
        skipped: Receives reason → number of skipped shapes.
        incomplete: Receives the indices of images with a skipped shape.

    Raises:
        ValidationFailed: The document is of a video (tracks), or a shape cannot be read; the
            message names the image and the shape.
    """
    reader = _Reader()
    root = parse_xml(text, WHAT, LONGEST, reader.child)
    if root.tag != "annotations":
        raise ValidationFailed(f"A {WHAT} begins with <annotations>, not <{str(root.tag)[:40]}>.")
    if skipped is not None:
        skipped.update(reader.skipped)
    if incomplete is not None:
        incomplete.update(reader.incomplete)
    return reader.named()


@dataclass
class _Reader:
    """Collects the images while the children of the root are parsed one by one."""

    images: list[Annotations] = field(default_factory=list)
    subsets: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    skeletons: Skeletons = field(default_factory=dict)
    incomplete: set[int] = field(default_factory=set)

    def child(self, element: Element) -> None:
        if element.tag == "meta":
            self._meta(element)
        elif element.tag == "image":
            before = self.skipped.total()
            self.images.append(self._image(element))
            if self.skipped.total() > before:
                self.incomplete.add(len(self.images) - 1)
            self.subsets.append(element.get("subset", ""))
        elif element.tag == "track":
            raise ValidationFailed(
                "This is CVAT's XML for videos: its tracks name frames, not images. Export the "
                'task as "CVAT for images 1.1", or as COCO 1.0.'
            )
        elif element.tag != "version":
            raise ValidationFailed(
                f"The {WHAT} has an unknown element <{str(element.tag)[:40]}>. Export as "
                '"CVAT for images 1.1".'
            )

    def named(self) -> list[Annotations]:
        """The images; names that occur in several subsets are prefixed with the subset."""
        subsets: dict[str, set[str]] = {}
        for image, subset in zip(self.images, self.subsets, strict=True):
            subsets.setdefault(image.image, set()).add(subset)
        return [
            replace(one, image=f"{subset}/{one.image}")
            if subset and len(subsets[one.image]) > 1
            else one
            for one, subset in zip(self.images, self.subsets, strict=True)
        ]

    def _meta(self, meta: Element) -> None:
        """Collect each skeleton's keypoint names: the labels whose `parent` is the skeleton."""
        for label in meta.iter("label"):
            if parent := text_of(label.find("parent")):
                points = self.skeletons.setdefault(parent, [])
                points.append(text_of(label.find("name")))

    def _image(self, image: Element) -> Annotations:
        name = image.get("name", "")
        where = f"Image {image.get('id', '?')[:20]} ({name[:100]!r})"
        if not name:
            raise ValidationFailed(f"{where} has no name. Export it again.")
        size = _side(image, "width", where), _side(image, "height", where)
        read: list[_Shape] = []
        for index, element in enumerate(image, 1):
            kind = str(element.tag)
            if kind in DETAILS:
                continue
            if kind in PASSED_OVER:
                self.skipped[PASSED_OVER[kind]] += 1
                continue
            if kind not in READERS:
                raise ValidationFailed(
                    f"{where}: shape {index} is a <{kind[:40]}>. Supported: {', '.join(READERS)}; "
                    f"skipped: {', '.join(PASSED_OVER)}."
                )
            shape = _Shape(element, f"{where}: shape {index} ({kind})", self.skeletons)
            made = READERS[kind](shape)
            if isinstance(made, str):
                self.skipped[made] += 1
            else:
                shape.made = made
                read.append(shape)
        return Annotations(name, *size, with_area(_joined(read), self.skipped))


@dataclass
class _Shape:
    """A shape element of an image, and the annotation converted from it."""

    element: Element
    where: str
    skeletons: Mapping[str, Sequence[str]]
    made: Annotation = field(default_factory=lambda: Annotation(""))

    @property
    def label(self) -> str:
        label = self.element.get("label", "")
        if not label.strip():
            raise ValidationFailed(f"{self.where} has no label. Give it one, or remove it.")
        return label

    @property
    def group(self) -> tuple[str, str] | None:
        group = self.element.get("group_id") or "0"
        return None if group == "0" else (group, self.label)

    def value(self, name: str, default: str = "") -> float:
        text = self.element.get(name, default)
        try:
            value = float(text)
            if is_place(value):
                return value
        except ValueError:
            pass
        raise ValidationFailed(f"{self.where}: '{name}' must be a number; got {text[:40]!r}.")

    def whole(self, name: str, least: int) -> int:
        value = self.value(name)
        if value != int(value) or value < least:
            raise ValidationFailed(
                f"{self.where}: '{name}' must be a whole number from {least}; got {value:g}."
            )
        return int(value)


def _joined(shapes: Sequence[_Shape]) -> Iterator[Annotation]:
    """The annotations. A skeleton is joined to the other shape with its group and label.

    Shapes are joined only if exactly one skeleton and one other shape have that group and label.
    """
    posed: dict[tuple[str, str], list[int]] = {}
    placed: dict[tuple[str, str], list[int]] = {}
    for index, shape in enumerate(shapes):
        if shape.group is not None and shape.made.bounds is not None:
            where = posed if shape.made.keypoints else placed
            where.setdefault(shape.group, []).append(index)
    joined = {
        placed[group][0]: members[0]
        for group, members in posed.items()
        if len(members) == len(placed.get(group, ())) == 1
    }
    gone = set(joined.values())
    for index, shape in enumerate(shapes):
        if index in joined:
            yield replace(shape.made, keypoints=shapes[joined[index]].made.keypoints)
        elif index not in gone:
            yield shape.made


def _side(image: Element, name: str, where: str) -> int:
    text = image.get(name, "0")
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValidationFailed(
            f"{where}: '{name}' must be a whole number of pixels; got {text[:20]!r}."
        )
    return int(text)


def _box(shape: _Shape) -> Annotation:
    x1, y1, x2, y2 = (shape.value(name) for name in ("xtl", "ytl", "xbr", "ybr"))
    if x1 > x2 or y1 > y2:
        raise ValidationFailed(
            f"{shape.where} has its corners in the wrong order: {x1:g}, {y1:g} to {x2:g}, {y2:g}. "
            "Swap them."
        )
    if turn := math.radians(shape.value("rotation", "0")):
        corners = turned(rectangle(x1, y1, x2, y2), ((x1 + x2) / 2, (y1 + y2) / 2), turn)
        return Annotation(shape.label, parts=(AnnotationPart(corners),))
    return Annotation(shape.label, box=(x1, y1, x2, y2))


def _polygon(shape: _Shape) -> Annotation:
    points = _read_points(shape.element, shape.where)
    if len(points) < 3:
        raise ValidationFailed(
            f"{shape.where} has {len(points)} corners; a polygon needs at least three."
        )
    return Annotation(shape.label, parts=unbridge(points))


def _ellipse(shape: _Shape) -> Annotation:
    x, y = shape.value("cx"), shape.value("cy")
    rx, ry = shape.value("rx"), shape.value("ry")
    if min(rx, ry) <= 0:
        raise ValidationFailed(
            f"{shape.where} has the radii {rx:g} and {ry:g}; they must be above 0."
        )
    turn = math.radians(shape.value("rotation", "0"))
    return Annotation(
        shape.label, parts=(AnnotationPart(turned(ellipse(x, y, rx, ry), (x, y), turn)),)
    )


def _mask(shape: _Shape) -> Annotation | str:
    """The annotation of a mask, or the reason to skip it.

    A mask is stored as run lengths along the rows of its own box, beginning with pixels outside
    the mask.
    """
    left, top = shape.whole("left", 0), shape.whole("top", 0)
    width, height = shape.whole("width", 0), shape.whole("height", 0)
    texts = shape.element.get("rle", "").split(",")
    try:
        if width * height > MOST_PIXELS:
            raise ValueError
        counts = [int(text) for text in texts if text.strip()]
        lengths = rle.run_lengths(counts, width * height)
    except (ValueError, OverflowError):
        raise ValidationFailed(
            f"{shape.where}: its 'rle' must be run lengths that add up to its {width} × {height} "
            f"pixels, {MOST_PIXELS} at most."
        ) from None
    parts = tuple(
        AnnotationPart(
            _moved(piece.outer, left, top), tuple(_moved(h, left, top) for h in piece.holes)
        )
        for piece in rle.run_outlines(lengths, width, height, by_rows=True)
    )
    return Annotation(shape.label, parts=parts) if parts else NO_PIXEL


def _moved(points: np.ndarray, left: int, top: int) -> Ring:
    return ring(points + np.array((left, top), np.float32))


def _tag(shape: _Shape) -> Annotation:
    return Annotation(shape.label)


def _skeleton(shape: _Shape) -> Annotation | str:
    points = []
    for index, element in enumerate(shape.element, 1):
        if element.tag in DETAILS:
            continue
        where = f"{shape.where}: element {index}"
        if element.tag != "points" or not element.get("label"):
            raise ValidationFailed(f"{where} must be <points> with a label.")
        points.append(_keypoint(element, where))
    if not any(point.visibility for point in points):
        return NO_POINT
    names = shape.skeletons.get(shape.label, ())
    return Annotation(shape.label, keypoints=in_order(points, names))


def _keypoint(element: Element, where: str) -> Keypoint:
    name = element.get("label", "")
    if element.get("outside") == "1":
        return Keypoint(name, visibility=ABSENT)
    points = _read_points(element, where)
    if len(points) != 1:
        raise ValidationFailed(f"{where} must be one point; got {len(points)}.")
    occluded = element.get("occluded") == "1"
    return Keypoint(name, *points[0], OCCLUDED if occluded else VISIBLE)


def _read_points(element: Element, where: str) -> Ring:
    text = element.get("points", "")
    try:
        pairs = [tuple(map(float, pair.split(","))) for pair in text.split(";") if pair.strip()]
        found = tuple((x, y) for x, y in pairs)
        if not all(is_place(value) for point in found for value in point):
            raise ValueError
    except ValueError:
        raise ValidationFailed(
            f"{where}: its points must be 'x,y;x,y;…'; got {text[:60]!r}."
        ) from None
    return found


READERS: dict[str, Callable[[_Shape], Annotation | str]] = {
    "box": _box,
    "polygon": _polygon,
    "mask": _mask,
    "ellipse": _ellipse,
    "skeleton": _skeleton,
    "tag": _tag,
}
