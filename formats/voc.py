"""Reads and writes Pascal VOC XML: one document per image, objects in pixels.

The reader supports `bndbox`, `polygon` (with x1, y1, x2, … as Roboflow and Labelbox write it, or
with `pt` as LabelMe's web tool does), and roLabelImg's `robndbox`, which becomes the polygon of
its corners. `difficult`, `truncated`, `occluded` and `pose` are ignored.

The VOC devkit counts pixels from 1, so a box at the left edge of the image begins at 1. Annotation
tools (labelImg, CVAT, Label Studio) write edges, which begin at 0. A document is read as counting
from 1 if its source is the PASCAL challenge or Roboflow and no coordinate is below 1. Then 1 is
subtracted from each left and upper edge and from each corner of a polygon. The writer writes
edges, so that a document survives a round trip through such a tool.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PureWindowsPath
from typing import Any
from xml.etree.ElementTree import Element

from errors import ValidationFailed
from formats.annotations import (
    Annotation,
    AnnotationPart,
    Annotations,
    Box,
    Point,
    Ring,
    is_place,
    with_area,
)
from formats.capabilities import require_annotation
from formats.geometry import bridge, rectangle, turned, unbridge
from formats.xml_documents import number, parse_xml, tag, text_of

LONGEST = 64 * 2**20  # maximum bytes of a document
WHAT = "Pascal VOC document"
FROM_ONE = ("pascal voc", "roboflow")  # texts in <source> of documents that count from 1
SIDES = ("xmin", "ymin", "xmax", "ymax")
CORNERS = ("x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4")
BODY_PARTS = "body parts of a Pascal VOC object"
DELETED = "objects marked as deleted"


def from_voc(text: str | bytes, *, skipped: Counter[str] | None = None) -> Annotations:
    """Parses a Pascal VOC document into `Annotations`.

    The image's name is empty, and its width and height are 0, if the document does not give them.

    Args:
        text: The XML.
        skipped: Receives reason → number of skipped items: body parts (`part`), deleted objects.

    Raises:
        ValidationFailed: It is not a VOC document, or an object has no class or shape.
    """
    root = parse_xml(text, WHAT, LONGEST)
    if root.tag != "annotation":
        raise ValidationFailed(f"A {WHAT} begins with <annotation>, not <{str(root.tag)[:40]}>.")
    passed: Counter[str] = Counter()
    objects = with_area(_objects(root, passed), passed)
    if skipped is not None:
        skipped.update(passed)
    width, height = _size(root)
    return Annotations(_name(root), width, height, objects)


def to_voc(found: Annotations, folder: str = "JPEGImages") -> str:
    """Writes the document of one image. Holes and parts are bridged into one ring.

    Raises:
        ValidationFailed: There are keypoints or a class of the image, which VOC cannot represent,
            or a character that XML cannot represent.
    """
    lines = [
        "<annotation>",
        f"  {tag('folder', {}, folder)}",
        f"  {tag('filename', {}, found.image)}",
        f"  <source>{tag('database', {}, 'VisionLoop')}</source>",
        f"  <size><width>{found.width}</width><height>{found.height}</height>"
        "<depth>3</depth></size>",
        f"  <segmented>{int(any(thing.parts for thing in found.objects))}</segmented>",
    ]
    for thing in found.objects:
        lines += _written(thing)
    return "\n".join([*lines, "</annotation>", ""])


def label_map(names: Sequence[str]) -> str:
    """The text of labelmap.txt, the class list that CVAT and Datumaro read with VOC documents."""
    listed = [name for name in names if ":" not in name and not name.startswith("#")]
    return "".join(["# label:color_rgb:parts:actions\n", *(f"{name}:::\n" for name in listed)])


def _written(thing: Annotation) -> Iterator[str]:
    require_annotation("voc", thing)
    assert thing.bounds is not None
    yield f"  <object>{tag('name', {}, thing.label)}"
    yield "    <pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>"
    sides = (tag(n, {}, number(v)) for n, v in zip(SIDES, thing.bounds, strict=True))
    yield f"    <bndbox>{''.join(sides)}</bndbox>"
    if thing.parts:
        ring = bridge([r for part in thing.parts for r in (part.outline, *part.holes)])
        corners = (
            tag(f"{axis}{index}", {}, number(value))
            for index, point in enumerate(ring, 1)
            for axis, value in zip("xy", point, strict=True)
        )
        yield f"    <polygon>{''.join(corners)}</polygon>"
    yield "  </object>"


def _name(root: Element) -> str:
    """The file name of the image: `filename`, or the last part of `path` if `filename` lacks the
    suffix (as in labelImg2's documents). A `path` to an .xml file is ignored: labelImg may write
    the document's own path there."""
    name = text_of(root.find("filename"))
    path = PureWindowsPath(text_of(root.find("path")))
    last = "" if path.suffix.lower() == ".xml" else path.name
    return last if not name or PureWindowsPath(last).stem == name else name


def _size(root: Element) -> tuple[int, int]:
    """Width and height in pixels; 0, 0 if the document does not give them."""
    for names in (("size/width", "size/height"), ("imagesize/ncols", "imagesize/nrows")):
        texts = [text_of(root.find(name)).strip() for name in names]
        if not any(texts):
            continue
        try:
            width, height = (float(text) for text in texts)
            if width != int(width) or height != int(height) or min(width, height) < 0:
                raise ValueError
        except (ValueError, OverflowError):
            raise ValidationFailed(
                f"The image's size is {texts[0][:20]!r} × {texts[1][:20]!r}; <width> and <height> "
                "must be whole numbers of pixels. Correct or remove <size>."
            ) from None
        return (int(width), int(height)) if width and height else (0, 0)
    return 0, 0


def _objects(root: Element, passed: Counter[str]) -> Iterator[Annotation]:
    read: list[tuple[str, _Place]] = []
    for index, element in enumerate(root.findall("object"), 1):
        label = text_of(element.find("name"))
        where = f"Object {index} ({label[:60]!r})"
        if not label.strip():
            raise ValidationFailed(f"{where} has no class: its <name> is missing or empty.")
        passed[BODY_PARTS] += len(element.findall("part"))
        if text_of(element.find("deleted")).strip() == "1":
            passed[DELETED] += 1
        else:
            read.append((label, _Place(element, where)))
    one = any(source in _source(root) for source in FROM_ONE)
    one = one and all(value >= 1 for _, place in read for value in place.numbers())
    for label, place in read:
        yield place.annotation(label, 1.0 if one else 0.0)


def _source(root: Element) -> str:
    return " ".join(text_of(e) for e in root.findall("source/*")).casefold()


class _Place:
    """The shape of an object, in the document's coordinates."""

    def __init__(self, element: Element, where: str) -> None:
        self.box: Box | None = None
        self.rings: list[Ring] = []
        self._turned = False
        polygons = [p for p in element.findall("polygon") if len(p)]
        box, turned_box = element.find("bndbox"), element.find("robndbox")
        if polygons:
            self.rings = [_polygon(polygon, where) for polygon in polygons]
            if text_of(element.find("type")).strip() == "bounding_box":  # LabelMe's web tool
                self.box, self.rings = _around(self.rings[0]), []
        elif turned_box is not None:
            self.rings, self._turned = [_turned_box(turned_box, where)], True
        elif box is not None and box.find("x4") is not None and box.find("xmin") is None:
            self.rings = [_ring([_value(box, name, where) for name in CORNERS], where)]
        elif box is not None:
            x1, y1, x2, y2 = (_value(box, name, where) for name in SIDES)
            if x1 > x2 or y1 > y2:
                raise ValidationFailed(
                    f"{where}: its bndbox has its corners in the wrong order: {x1:g}, {y1:g} to "
                    f"{x2:g}, {y2:g}. Swap xmin and xmax, or ymin and ymax."
                )
            self.box = x1, y1, x2, y2
        else:
            raise ValidationFailed(
                f"{where} has no shape: it needs a <bndbox>, a <polygon> or a <robndbox>."
            )

    def numbers(self) -> Iterator[float]:
        """The coordinates that decide whether the document counts from 1 (rotated boxes do not)."""
        yield from self.box or ()
        for ring in () if self._turned else self.rings:
            for point in ring:
                yield from point

    def annotation(self, label: str, first: float) -> Annotation:
        """The annotation; `first` is the number of the image's first pixel in the document."""
        if self.box is not None:
            x1, y1, x2, y2 = self.box
            return Annotation(label, box=(x1 - first, y1 - first, x2, y2))
        if self._turned:
            return Annotation(label, parts=(AnnotationPart(self.rings[0]),))
        rings = (tuple((x - first, y - first) for x, y in ring) for ring in self.rings)
        return Annotation(label, parts=tuple(part for ring in rings for part in unbridge(ring)))


def _polygon(element: Element, where: str) -> Ring:
    points = element.findall("pt")
    if points:
        return _ring([_value(pt, axis, where) for pt in points for axis in ("x", "y")], where)
    values: list[float] = []
    for index in range(1, len(element) // 2 + 1):
        values += (_value(element, f"{axis}{index}", where) for axis in "xy")
    if len(values) != len(element):
        raise ValidationFailed(
            f"{where}: its <polygon> must hold x1, y1, x2, y2, … or <pt><x/><y/></pt>."
        )
    return _ring(values, where)


def _turned_box(element: Element, where: str) -> Ring:
    x, y, w, h, angle = (_value(element, name, where) for name in ("cx", "cy", "w", "h", "angle"))
    return turned(rectangle(x - w / 2, y - h / 2, x + w / 2, y + h / 2), (x, y), angle)


def _ring(values: Sequence[float], where: str) -> Ring:
    ring: list[Point] = list(zip(values[0::2], values[1::2], strict=True))
    if len(ring) > 1 and ring[0] == ring[-1]:
        ring.pop()  # some tools repeat the first corner at the end
    if len(ring) < 3:
        raise ValidationFailed(
            f"{where}: a polygon of {len(ring)} corners; it needs at least three."
        )
    return tuple(ring)


def _around(ring: Ring) -> Box:
    xs, ys = zip(*ring, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _value(element: Element, name: str, where: str) -> float:
    text: Any = text_of(element.find(name)).strip()
    try:
        value = float(text)
        if is_place(value):
            return value
    except ValueError:
        pass
    raise ValidationFailed(
        f"{where}: <{name}> of its <{element.tag}> must be a number; got {text[:40]!r}."
    )
