"""What is marked in an image, by a person or by a model: where all formats meet.

What each format can hold of it. `to_X` and `from_X` keep all of that; the rest is lost there.

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
| score | yes | yes | when asked for | yes | no | no |
| score of a keypoint | yes | no | no | yes | no | no |
| ids of the tool | yes | no | no | no | no | no |

Bridged: one ring goes along all of them, from one to the next and back on the same line, as
Ultralytics does for parts. It encloses the same area, and reading it back gives the rings again.
"Of the dataset": the reader is told the names, which stand in the dataset's description.
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

ABSENT, OCCLUDED, VISIBLE = 0, 1, 2  # a keypoint's visibility, as COCO counts
SMALLEST = 1e-3  # pixels: what is narrower encloses nothing
FARTHEST = 1e8  # pixels from an image's origin: no image reaches there
NO_AREA = "boxes without an area"


@dataclass(frozen=True, slots=True)
class AnnotationPart:
    """A connected piece of an object: at least three corners, not closed by a repeated one."""

    outline: Ring
    holes: tuple[Ring, ...] = ()


@dataclass(frozen=True, slots=True)
class Keypoint:
    """A named point; where it is absent, its place has no meaning and is 0, 0."""

    name: str
    x: float = 0.0
    y: float = 0.0
    visibility: int = VISIBLE
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Annotation:
    """One object, or, without box, parts and keypoints, the class of the whole image.

    Attributes:
        label: Class name.
        box: xyxy; None where parts say it better.
        parts: Of a polygon.
        keypoints: In the dataset's order where that is known.
        score: A model's; None from a person.
        id: The tool's, such as that of Label Studio's region.
    """

    label: str
    box: Box | None = None
    parts: tuple[AnnotationPart, ...] = ()
    keypoints: tuple[Keypoint, ...] = ()
    score: float | None = None
    id: str = ""

    @property
    def bounds(self) -> Box | None:
        """The box, or that of the parts, or that of the keypoints that are there."""
        if self.box is not None:
            return self.box
        points = [point for part in self.parts for point in part.outline]
        points = points or [(p.x, p.y) for p in self.keypoints if p.visibility]
        if not points:
            return None
        return _around(points)


@dataclass(frozen=True, slots=True)
class Annotations:
    """All that is marked in one image, in pixels after its EXIF rotation, origin top-left.

    Attributes:
        image: File name or address.
        width, height: In pixels; both are 0 where a document does not state them.
        objects: In no particular order.
    """

    image: str
    width: int
    height: int
    objects: tuple[Annotation, ...] = ()

    def __len__(self) -> int:
        return len(self.objects)

    def above(self, score: float) -> Annotations:
        """Without the objects that a model gave a lower score."""
        kept = (o for o in self.objects if o.score is None or o.score >= score)
        return replace(self, objects=tuple(kept))

    @property
    def mean_score(self) -> float:
        """Of the objects that a model gave a score; 0 without any."""
        scores = [o.score for o in self.objects if o.score is not None]
        return sum(scores) / len(scores) if scores else 0.0

    def to_json(self) -> dict[str, Any]:
        """Everything, for our own table."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Annotations:
        objects = tuple(_annotation(row) for row in document["objects"])
        return cls(document["image"], document["width"], document["height"], objects)


def keypoint_labels(names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """The names of `count` keypoints, or their numbers from 0 where they have none."""
    return tuple(names or map(str, range(count)))


def is_place(value: float) -> bool:
    """Whether a number can be a coordinate: finite, and not farther than any image reaches."""
    return abs(value) <= FARTHEST


def with_area(objects: Iterable[Annotation], passed: Counter[str]) -> tuple[Annotation, ...]:
    """Without boxes and parts that enclose nothing, as a click without a drag leaves them.

    An object of which nothing else is left is counted in `passed`.
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
    """Keypoints in the order of `names`, the missing ones as absent; others follow as they are.

    Without names, or with `absent` false, nothing is added.

    Raises:
        ValidationFailed: A name stands twice.
    """
    by_name = {point.name: point for point in found}
    if len(by_name) < len(found):
        twice = next(p.name for p in found if by_name[p.name] is not p)
        raise ValidationFailed(
            f"The keypoint {twice[:60]!r} stands twice in one object. Give each object a group, "
            "or a parent, of its own."
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
    """Pairs of numbers, in lists or an array, as a ring."""
    return tuple((float(x), float(y)) for x, y in points)
