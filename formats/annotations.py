"""The annotations of an image, by a person or a model: the type that all formats convert to.

The table shows what each format can represent. `to_X` and `from_X` preserve it and lose the rest.

| | Label Studio | COCO | YOLO text | LabelMe | Pascal VOC | CVAT XML |
|---|---|---|---|---|---|---|
| class of the image | yes | no | yes (a line with the id alone) | yes (flags) | no | yes (`tag`) |
| box | yes | yes | yes | yes | yes | yes |
| polygon | yes | yes | yes | yes | yes | yes |
| several parts | yes (`parentID`) | yes | bridged | yes (`group_id`) | bridged | bridged |
| holes | yes (bridged) | as pixels (RLE) | bridged | bridged | bridged | bridged |
| keypoints' names | yes | yes | of the dataset | yes | no | yes (`skeleton`) |
| occluded keypoints | yes (a note) | yes | yes | yes (flag) | no | yes |
| absent keypoints | of the dataset | yes | yes | of the dataset | no | yes |
| polygon and keypoints in one | yes | yes | keypoints only | yes | no | yes (a group) |
| score | yes | yes | optional | yes | no | no |
| score of a keypoint | yes | no | no | yes | no | no |
| ids of the tool | yes | no | no | no | no | no |

Bridged: all rings are joined into one, which goes from one ring to the next and back along the
same line, as Ultralytics does for parts. It encloses the same area, and reading it restores the
rings. "Of the dataset": the caller passes the names, which the dataset's description has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from errors import ValidationFailed

Format = Literal["label_studio", "yolo", "coco", "labelme", "voc", "cvat_xml"]


FORMATS: tuple[Format, ...] = get_args(Format)


Point = tuple[float, float]
Ring = tuple[Point, ...]
Box = tuple[float, float, float, float]

ABSENT, OCCLUDED, VISIBLE = 0, 1, 2  # visibility of a keypoint, as in COCO
SMALLEST = 1e-3  # pixels; a narrower box or part has no area
FARTHEST = 1e8  # pixels; largest absolute value of a coordinate
NO_AREA = "boxes without an area"


@dataclass(frozen=True, slots=True)
class AnnotationPart:
    """A connected part of an object: rings of at least three corners (x, y) in pixels.

    The first corner of a ring is not repeated at its end.
    """

    outline: Ring
    holes: tuple[Ring, ...] = ()


@dataclass(frozen=True, slots=True)
class Keypoint:
    """A named keypoint in pixels. If it is absent, its coordinates are 0, 0 and have no meaning."""

    name: str
    x: float = 0.0
    y: float = 0.0
    visibility: int = VISIBLE
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Annotation:
    """One object; without box, parts and keypoints, a class of the whole image.

    Attributes:
        label: Class name.
        box: x1, y1, x2, y2 in pixels; None if the object is given by its parts.
        parts: Parts of a polygon.
        keypoints: The keypoints, in the dataset's order if that is known.
        score: Confidence of a model, 0 to 1; None for a person's annotation.
        id: The annotation tool's id, such as that of a Label Studio region.
    """

    label: str
    box: Box | None = None
    parts: tuple[AnnotationPart, ...] = ()
    keypoints: tuple[Keypoint, ...] = ()
    score: float | None = None
    id: str = ""

    @property
    def bounds(self) -> Box | None:
        """The bounding box, xyxy in pixels; None for a class of the image.

        It is the box, else that of the parts, else that of the keypoints that are not absent.
        """
        if self.box is not None:
            return self.box
        points = [point for part in self.parts for point in part.outline]
        points = points or [(p.x, p.y) for p in self.keypoints if p.visibility]
        if not points:
            return None
        return _around(points)


@dataclass(frozen=True, slots=True)
class Annotations:
    """All annotations of one image, in pixels after its EXIF rotation, origin top left.

    Attributes:
        image: File name or URL.
        width, height: Size of the image in pixels; both 0 if a document does not give them.
        objects: The objects, in no particular order.
    """

    image: str
    width: int
    height: int
    objects: tuple[Annotation, ...] = ()

    def __len__(self) -> int:
        return len(self.objects)

    def above(self, score: float) -> Annotations:
        """The annotations without objects scored below `score`; objects without a score stay."""
        kept = (o for o in self.objects if o.score is None or o.score >= score)
        return replace(self, objects=tuple(kept))

    @property
    def mean_score(self) -> float:
        """The mean score of the objects that have one; 0 if none has."""
        scores = [o.score for o in self.objects if o.score is not None]
        return sum(scores) / len(scores) if scores else 0.0

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON, as stored in the database."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Annotations:
        """The annotations from the JSON of `to_json`."""
        objects = tuple(_annotation(row) for row in document["objects"])
        return cls(document["image"], document["width"], document["height"], objects)


def keypoint_labels(names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """The names of `count` keypoints, or their indices from 0 as text if they have no names."""
    return tuple(names or map(str, range(count)))


def is_place(value: float) -> bool:
    """Whether a number can be a coordinate: finite, and at most 1e8 pixels from the origin."""
    return abs(value) <= FARTHEST


def with_area(objects: Iterable[Annotation], passed: Counter[str]) -> tuple[Annotation, ...]:
    """The objects, without those of their boxes and parts that have no area.

    Such a box results from a click without a drag. An object without any other shape is dropped
    and counted in `passed`.
    """
    kept = []
    for thing in objects:
        box = thing.box if thing.box and _is_wide(thing.box) else None
        parts = tuple(part for part in thing.parts if _is_wide(_around(part.outline)))
        seen = any(point.visibility for point in thing.keypoints)
        if (thing.box or thing.parts) and not (box or parts or seen):
            passed[NO_AREA] += 1
        else:
            kept.append(replace(thing, box=box, parts=parts))
    return tuple(kept)


def _is_wide(box: Box) -> bool:
    return min(box[2] - box[0], box[3] - box[1]) >= SMALLEST


def _around(points: Iterable[Point]) -> Box:
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def in_order(
    found: Sequence[Keypoint], names: Sequence[str], absent: bool = True
) -> tuple[Keypoint, ...]:
    """Keypoints sorted in the order of `names`; other keypoints follow in their given order.

    Missing keypoints are added as absent, unless `absent` is false.

    Raises:
        ValidationFailed: Two keypoints have the same name.
    """
    by_name = {point.name: point for point in found}
    if len(by_name) < len(found):
        twice = next(p.name for p in found if by_name[p.name] is not p)
        raise ValidationFailed(
            f"An object has the keypoint {twice[:60]!r} twice. Give each object its own group or "
            "parent."
        )
    ordered = [
        by_name.pop(name, Keypoint(name, visibility=ABSENT))
        for name in names
        if absent or name in by_name
    ]
    return (*ordered, *by_name.values())


def _annotation(row: Mapping[str, Any]) -> Annotation:
    return Annotation(
        label=row["label"],
        box=tuple(row["box"]) if row["box"] is not None else None,
        parts=tuple(
            AnnotationPart(ring(part["outline"]), tuple(ring(hole) for hole in part["holes"]))
            for part in row["parts"]
        ),
        keypoints=tuple(Keypoint(**point) for point in row["keypoints"]),
        score=row["score"],
        id=row["id"],
    )


def ring(points: Any) -> Ring:
    """A ring from an array or a list of pairs of numbers."""
    return tuple((float(x), float(y)) for x, y in points)
