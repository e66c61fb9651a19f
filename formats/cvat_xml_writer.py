"""Writes `Annotations` as CVAT XML ("CVAT for images 1.1"); the parser is `formats.cvat_xml`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count

from formats.annotations import ABSENT, OCCLUDED, Annotation, Annotations, in_order
from formats.geometry import bridge
from formats.xml_documents import number, tag


def to_cvat_xml(
    images: Sequence[Annotations],
    names: Sequence[str],
    keypoint_names: Sequence[str] = (),
    subsets: Sequence[str] = (),
) -> str:
    """Writes one document for all images.

    Holes and parts are bridged into one ring. An object with keypoints and a box or polygon is
    written as a group of that shape and a skeleton.

    Args:
        images: The annotations of each image.
        names: Class names, for the document's list of labels.
        keypoint_names: Keypoint names of every skeleton, in order.
        subsets: The subset of each image, such as `train`; default: none.

    Raises:
        ValidationFailed: A name has a character that XML cannot represent.
    """
    lines = ['<?xml version="1.0" encoding="utf-8"?>', "<annotations>", "  <version>1.1</version>"]
    lines += ["  <meta>", *_meta(len(images), names, keypoint_names, subsets), "  </meta>"]
    groups = count(1)
    for index, found in enumerate(images):
        attributes: dict[str, object] = {"id": index, "name": found.image}
        if subsets:
            attributes["subset"] = subsets[index]
        attributes |= {"width": found.width, "height": found.height}
        lines.append(f"  {tag('image', attributes, end=False)}")
        for thing in found.objects:
            lines += _shapes(thing, keypoint_names, groups)
        lines.append("  </image>")
    return "\n".join([*lines, "</annotations>", ""])


def _meta(
    images: int, names: Sequence[str], keypoint_names: Sequence[str], subsets: Sequence[str]
) -> Iterator[str]:
    """The `meta` element of a task, or with subsets that of a project with one task per subset."""
    labels = ["<labels>", *_labels(names, keypoint_names), "</labels>"]
    if not subsets:
        yield from ("<task>", "<name>VisionLoop</name>", f"<size>{images}</size>")
        yield from ("<mode>annotation</mode>", *labels, "</task>")
        return
    sizes = Counter(subsets)
    yield from ("<project>", "<name>VisionLoop</name>", *labels)
    yield tag("subsets", {}, "\n".join(sizes))
    yield "<tasks>"
    for index, (subset, size) in enumerate(sizes.items()):
        yield f"<task><id>{index}</id>{tag('name', {}, subset)}<size>{size}</size>"
        yield f"<mode>annotation</mode>{tag('subset', {}, subset)}</task>"
    yield from ("</tasks>", "</project>")


def _labels(names: Sequence[str], keypoint_names: Sequence[str]) -> Iterator[str]:
    kind = "skeleton" if keypoint_names else "any"
    for name in names:
        yield _label(name, kind)
        for point in keypoint_names:
            yield _label(point, "points", name)


def _label(name: str, kind: str, parent: str = "") -> str:
    parts = [tag("name", {}, name), tag("type", {}, kind), "<attributes></attributes>"]
    parts += [tag("parent", {}, parent)] if parent else []
    return f"        <label>{''.join(parts)}</label>"


def _shapes(
    thing: Annotation, keypoint_names: Sequence[str], groups: Iterator[int]
) -> Iterator[str]:
    common: dict[str, object] = {"label": thing.label, "source": "manual"}
    shape: dict[str, object] = common | {"occluded": 0, "z_order": 0}
    if thing.keypoints and (thing.parts or thing.box):
        grouped = {"group_id": next(groups)}
        shape, common = shape | grouped, common | grouped
    if thing.parts:
        points = bridge([r for part in thing.parts for r in (part.outline, *part.holes)])
        yield "    " + tag("polygon", shape | {"points": _points(points)})
    elif thing.box is not None:
        sides = dict(zip(("xtl", "ytl", "xbr", "ybr"), map(number, thing.box), strict=True))
        yield "    " + tag("box", shape | sides)
    elif not thing.keypoints:
        yield "    " + tag("tag", common)
    if thing.keypoints:
        yield "    " + tag("skeleton", common | {"z_order": 0}, end=False)
        for point in in_order(thing.keypoints, keypoint_names):
            element: dict[str, object] = {"label": point.name, "source": "manual"}
            element["outside"] = int(point.visibility == ABSENT)
            element["occluded"] = int(point.visibility == OCCLUDED)
            yield "      " + tag("points", element | {"points": _points([(point.x, point.y)])})
        yield "    </skeleton>"


def _points(points: Sequence[tuple[float, float]]) -> str:
    return ";".join(f"{number(x)},{number(y)}" for x, y in points)
