"""X-AnyLabeling's shapes and CVAT's annotations, field by field."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from formats.annotations import OCCLUDED, Annotation, AnnotationPart, Annotations, Keypoint
from formats.cvat import label_spec, to_cvat
from formats.geometry import unbridge
from formats.xanylabeling import description, to_shapes

OUTER = ((0.0, 0.0), (40.0, 0.0), (40.0, 40.0), (0.0, 40.0))
HOLE = ((10.0, 10.0), (20.0, 10.0), (20.0, 20.0), (10.0, 20.0))
OTHER = ((60.0, 60.0), (80.0, 60.0), (70.0, 80.0))

BOX = Annotation("car", box=(1.5, 2.0, 30.0, 20.0), score=0.9)
MASK = Annotation("tree", parts=(AnnotationPart(OUTER, (HOLE,)), AnnotationPart(OTHER)), score=0.8)
POSE = Annotation(
    "person",
    box=(10, 10, 50, 90),
    keypoints=(
        Keypoint("nose", 20, 21, score=0.7),
        Keypoint("left", visibility=0),
        Keypoint("right", 30, 31, OCCLUDED, 0.6),
    ),
    score=0.5,
)
WHOLE = Annotation("night", score=0.95)


def found(*objects: Annotation) -> Annotations:
    return Annotations("a.jpg", 100, 100, objects)


def test_a_shape_has_every_field_that_the_client_reads() -> None:
    (shape,) = to_shapes(found(BOX))
    assert shape == {
        "label": "car",
        "shape_type": "rectangle",
        "points": [[1.5, 2.0], [30.0, 2.0], [30.0, 20.0], [1.5, 20.0]],
        "score": 0.9,
        "group_id": None,
        "attributes": {},
        "description": None,
        "difficult": False,
        "direction": 0,
        "flags": None,
        "kie_linking": [],
    }


def test_parts_and_key_points_share_a_group() -> None:
    first, second, box, nose, right = to_shapes(found(MASK, POSE))
    assert (first["shape_type"], second["shape_type"]) == ("polygon", "polygon")
    assert first["group_id"] == second["group_id"] == 1
    ring = tuple((x, y) for x, y in first["points"])
    assert [len(part.holes) for part in unbridge(ring)] == [1]
    assert ring.count(ring[0]) == 1  # the client ends a shape at its first point
    assert {s["group_id"] for s in (box, nose, right)} == {2}
    assert (nose["label"], nose["shape_type"], nose["points"]) == ("nose", "point", [[20, 21]])
    assert (nose["score"], nose["difficult"], right["difficult"]) == (0.7, False, True)


def test_the_class_of_a_picture_is_a_description() -> None:
    assert to_shapes(found(WHOLE)) == []
    assert description(found(WHOLE)) == "night (0.95)"
    assert description(found(BOX)) == ""


@pytest.mark.parametrize(
    ("thing", "kinds", "points"),
    [
        (BOX, ["rectangle"], [1.5, 2.0, 30.0, 20.0]),
        (
            Annotation("x", parts=(AnnotationPart(OTHER),), score=1),
            ["polygon"],
            [60, 60, 80, 60, 70, 80],
        ),
        (MASK, ["polygon", "polygon"], None),
        (POSE, ["points"], [20, 21, 30, 31]),
        (WHOLE, ["tag"], None),
    ],
)
def test_annotations_of_cvat_are_flat_pixels(
    thing: Annotation, kinds: list[str], points: list[float] | None
) -> None:
    items = to_cvat(found(thing))
    assert [item["type"] for item in items] == kinds
    assert all(item["label"] == thing.label and item["attributes"] == [] for item in items)
    assert all(0 <= float(item["confidence"]) <= 1 for item in items)
    if points is not None:
        assert items[0]["points"] == points
    json.dumps(items, allow_nan=False)


def test_a_skeleton_names_its_points() -> None:
    (item,) = to_cvat(found(POSE), skeletons=True)
    assert item["type"] == "skeleton"
    assert [(e["label"], e["points"], e["outside"]) for e in item["elements"]] == [
        ("nose", [20, 21], 0),
        ("right", [30, 31], 0),
    ]
    unseen = Annotation("person", box=(0, 0, 1, 1), keypoints=(Keypoint("nose", visibility=0),))
    assert to_cvat(found(unseen), skeletons=True) == to_cvat(found(unseen)) == []


def test_labels_are_told_with_their_type() -> None:
    assert label_spec(("a", "b"), "segment") == [
        {"id": 0, "name": "a", "type": "polygon"},
        {"id": 1, "name": "b", "type": "polygon"},
    ]
    (label,) = label_spec(("person",), "pose", ('left "eye"', "nose"), skeletons=True)
    assert label["type"] == "skeleton"
    assert [sub["name"] for sub in label["sublabels"]] == ['left "eye"', "nose"]
    drawing = ElementTree.fromstring(f"<svg>{label['svg']}</svg>")
    assert [node.get("data-label-name") for node in drawing] == ['left "eye"', "nose"]
