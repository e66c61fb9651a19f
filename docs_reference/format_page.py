"""What each annotation format can hold: written, read again, and compared."""

from __future__ import annotations

import json
from collections.abc import Callable

from docs_reference.markdown import code, table
from errors import ValidationFailed
from formats.annotations import (
    ABSENT,
    FORMATS,
    OCCLUDED,
    Annotation,
    AnnotationPart,
    Annotations,
    Format,
    Keypoint,
)
from formats.coco import from_coco, to_coco
from formats.cvat_xml import from_cvat_xml
from formats.cvat_xml_writer import to_cvat_xml
from formats.label_studio import from_label_studio, to_label_studio
from formats.labelme import from_labelme, to_labelme
from formats.voc import from_voc, to_voc
from formats.yolo import from_yolo, to_yolo
from inference.images import FORMATS as IMAGE_FORMATS

HEAD = """# Formats

## Annotations

The `format` of [exports](rest.md#datasets), of pre-labels and of corrections. The table was
made by writing each kind of object, reading it again and comparing.

- **kept**: the same object comes back.
- **lost**: the object, or this property of the object, does not come back.
- **refused**: a `400 VALIDATION_ERROR` that names the formats which can hold it.

"""

TAIL = """
A format without holes or parts has one ring along all of them, on the same line there and back.
[Corrections](corrections.md#what-each-format-may-hold) lists what the readers accept, ignore and
refuse. `POST /api/auto_annotate` writes `label_studio`, `yolo`, `coco` and
`labelme`.

## Images

The format of an image is detected from its content, not from its suffix. These formats are read:
IMAGES. Of an animation the first frame is used. EXIF rotation is applied. A truncated file is
refused.
"""

NAMES, POINTS = ("sign", "car"), ("nose", "tail")
SIDE = 100
SQUARE = ((10.0, 10.0), (60.0, 10.0), (60.0, 60.0), (10.0, 60.0))
HOLE = ((30.0, 30.0), (30.0, 50.0), (50.0, 50.0), (50.0, 30.0))
ELSEWHERE = ((70.0, 70.0), (90.0, 70.0), (90.0, 90.0), (70.0, 90.0))
BOX = (10.0, 10.0, 60.0, 60.0)
NOSE = Keypoint("nose", 20.0, 20.0)
KINDS = {
    "class of the image": Annotation("sign"),
    "box": Annotation("sign", box=BOX),
    "polygon": Annotation("sign", parts=(AnnotationPart(SQUARE),)),
    "polygon in several parts": Annotation(
        "sign", parts=(AnnotationPart(SQUARE), AnnotationPart(ELSEWHERE))
    ),
    "polygon with a hole": Annotation("sign", parts=(AnnotationPart(SQUARE, (HOLE,)),)),
    "keypoints": Annotation("sign", box=BOX, keypoints=(NOSE, Keypoint("tail", 50.0, 50.0))),
    "occluded keypoint": Annotation(
        "sign", box=BOX, keypoints=(NOSE, Keypoint("tail", 50.0, 50.0, OCCLUDED))
    ),
    "absent keypoint": Annotation(
        "sign", box=BOX, keypoints=(NOSE, Keypoint("tail", visibility=ABSENT))
    ),
    "score": Annotation("sign", box=BOX, score=0.75),
}


def _label_studio(found: Annotations) -> Annotations:
    regions = json.loads(json.dumps(to_label_studio(found)))
    return from_label_studio(regions, found.image, (SIDE, SIDE), POINTS)


def _yolo(found: Annotations) -> Annotations:
    points = POINTS if any(one.keypoints for one in found.objects) else ()
    text = to_yolo(found, NAMES, points)
    return from_yolo(text, NAMES, (SIDE, SIDE), found.image, points)


THERE_AND_BACK: dict[Format, Callable[[Annotations], Annotations]] = {
    "label_studio": _label_studio,
    "yolo": _yolo,
    "coco": lambda found: from_coco(to_coco([found], NAMES, POINTS))[0],
    "labelme": lambda found: from_labelme(json.loads(json.dumps(to_labelme(found))), POINTS),
    "voc": lambda found: from_voc(to_voc(found)),
    "cvat_xml": lambda found: from_cvat_xml(to_cvat_xml([found], NAMES, POINTS))[0],
}


def formats() -> str:
    """The table of annotation formats, and the formats of images that can be read."""
    rows = [(name, *(verdict(form, thing) for form in FORMATS)) for name, thing in KINDS.items()]
    images = ", ".join(IMAGE_FORMATS)
    return HEAD + table(("", *map(code, FORMATS)), rows) + TAIL.replace("IMAGES", images)


def verdict(form: Format, thing: Annotation) -> str:
    """Whether an object is kept, lost or refused when it is written in a format and read again."""
    sent = Annotations("a.jpg", SIDE, SIDE, (thing,))
    try:
        read = THERE_AND_BACK[form](sent)
    except ValidationFailed:
        return "refused"
    if len(read.objects) != 1:
        return "lost"
    return "kept" if _rounded(read.objects[0]) == _rounded(thing) else "lost"


def _rounded(thing: Annotation) -> tuple[object, ...]:
    """The values to compare, rounded so that the seventh digit of a percentage has no effect."""
    box = () if thing.parts or thing.bounds is None else tuple(round(s, 3) for s in thing.bounds)
    parts = [(_ring(part.outline), *map(_ring, part.holes)) for part in thing.parts]
    points = [(p.name, round(p.x, 3), round(p.y, 3), p.visibility) for p in thing.keypoints]
    return thing.label, box, parts, points, thing.score


def _ring(ring: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    """A ring that begins at its smallest corner, in a fixed direction: these have no meaning."""
    near = [(round(x, 3), round(y, 3)) for x, y in ring]
    area = sum(x * near[i - 1][1] - near[i - 1][0] * y for i, (x, y) in enumerate(near))
    near = near if area > 0 else near[::-1]
    first = near.index(min(near))
    return tuple(near[first:] + near[:first])
