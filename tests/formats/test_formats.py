"""Label Studio, COCO, YOLO, LabelMe, VOC and CVAT XML: each keeps what it can hold."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from pycocotools import mask as mask_tools
from pycocotools.coco import COCO

from errors import ValidationFailed
from formats import rle
from formats.annotations import Annotation, AnnotationPart, Annotations, Keypoint
from formats.coco import from_coco, to_coco
from formats.cvat_xml import from_cvat_xml
from formats.cvat_xml_writer import to_cvat_xml
from formats.geometry import as_outlines, fill_parts, overlap
from formats.label_studio import from_label_studio, to_label_studio, to_task
from formats.labelme import from_labelme, to_labelme
from formats.voc import from_voc, to_voc
from formats.yolo import from_yolo, to_yolo
from tests.support.annotated_images import (
    NAMES,
    POINTS,
    kept_by_coco,
    kept_by_cvat,
    kept_by_label_studio,
    kept_by_labelme,
    kept_by_voc,
    kept_by_yolo,
    pictures,
    same,
)
from tests.support.examples import EXAMPLES
from tests.support.seeds import rng

Keep = Callable[[Annotations], Annotations]


def through_label_studio(found: Annotations) -> Annotations:
    regions = json.loads(json.dumps(to_label_studio(found)))
    size = (found.width, found.height)
    read = from_label_studio(regions, found.image, size, POINTS)
    return replace(read, objects=tuple(replace(o, id="") for o in read.objects))


def through_coco(found: Annotations) -> Annotations:
    return from_coco(json.loads(json.dumps(to_coco([found], NAMES, POINTS))))[0]


def through_yolo(found: Annotations) -> Annotations:
    points = POINTS if any(o.keypoints for o in found.objects) else ()
    text = to_yolo(found, NAMES, points, scores=True)
    return from_yolo(text, NAMES, (found.width, found.height), found.image, points)


def through_labelme(found: Annotations) -> Annotations:
    return from_labelme(json.loads(json.dumps(to_labelme(found))), POINTS)


def through_voc(found: Annotations) -> Annotations:
    return from_voc(to_voc(found))


def through_cvat_xml(found: Annotations) -> Annotations:
    return from_cvat_xml(to_cvat_xml([found], NAMES, POINTS))[0]


WAYS: dict[str, tuple[Keep, Keep]] = {
    "label_studio": (through_label_studio, kept_by_label_studio),
    "coco": (through_coco, kept_by_coco),
    "yolo": (through_yolo, kept_by_yolo),
    "labelme": (through_labelme, kept_by_labelme),
    "voc": (through_voc, kept_by_voc),
    "cvat_xml": (through_cvat_xml, kept_by_cvat),
}


def without_holes(found: Annotations) -> Annotations:
    plain = (
        replace(o, parts=tuple(AnnotationPart(part.outline) for part in o.parts))
        for o in found.objects
    )
    return replace(found, objects=tuple(plain))


@pytest.mark.properties
@pytest.mark.parametrize("name", WAYS)
@given(found=pictures())
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_format_gives_back_all_that_it_can_hold(name: str, found: Annotations) -> None:
    through, kept = WAYS[name]
    if name == "coco":  # holes: see below
        found = without_holes(found)
    wanted = kept(found)
    if name != "labelme":  # the only one that says how to leave something out by itself
        found = wanted
    same(through(found), wanted)


@pytest.mark.properties
@given(found=pictures())
@settings(max_examples=EXAMPLES, deadline=None)
def test_one_format_after_the_other_loses_only_what_each_cannot_hold(found: Annotations) -> None:
    found = without_holes(found)
    for name in ("label_studio", "coco", "cvat_xml", "yolo", "labelme", "voc", "label_studio"):
        through, kept = WAYS[name]
        wanted = kept(found)
        found = through(found if name == "labelme" else wanted)
        same(found, wanted, pixels=0.05)


@pytest.mark.properties
@given(found=pictures())
@settings(max_examples=EXAMPLES, deadline=None)
def test_coco_keeps_holes_to_the_pixel(found: Annotations) -> None:
    kept = kept_by_coco(found)
    assume(any(part.holes for o in kept.objects for part in o.parts))
    size = (found.width, found.height)
    first = through_coco(kept)
    for one, other in zip(kept.objects, first.objects, strict=True):
        drawn = [fill_parts(as_outlines(o.parts), *size) for o in (one, other)]
        assert overlap(*drawn) == 1.0
    again = through_coco(first)
    same(again, first)


def test_large_pictures_are_written_at_once() -> None:
    """Only an object's own box is drawn, whatever the image's size."""
    ring = tuple((3000.0 + x, 2000.0 + y) for x, y in ((0, 0), (40, 0), (40, 30), (0, 30)))
    hole = tuple((3000.0 + x, 2000.0 + y) for x, y in ((10, 10), (10, 20), (20, 20), (20, 10)))
    far = tuple((x + 50, y) for x, y in ring)
    kinds = (
        (AnnotationPart(ring),),
        (AnnotationPart(ring), AnnotationPart(far)),
        (AnnotationPart(ring, (hole,)),),
    )
    found = Annotations(
        "a.jpg", 20_000, 10_000, tuple(Annotation("stop", parts=parts) for parts in kinds * 30)
    )
    began = time.process_time()
    rows = to_coco([found], NAMES)["annotations"]
    assert time.process_time() - began < 60
    assert [row["area"] for row in rows[:3]] == [1200, 2400, 1100]
    assert sum(rows[2]["segmentation"]["counts"]) == 20_000 * 10_000


@pytest.mark.parametrize("seed", range(4))
def test_run_lengths_are_those_of_pycocotools(seed: int) -> None:
    random = rng(seed)
    mask = random.random((7 + seed, 11)) < (0.1, 0.5, 0.9, 1.0)[seed]
    whole = np.zeros((20, 30), bool)
    whole[13 - seed : 20, 19:30] = mask
    np.testing.assert_array_equal(rle.decode(rle.encode(mask, 19, 13 - seed, (30, 20))), whole)
    theirs = mask_tools.encode(np.asfortranarray(mask.astype(np.uint8)))
    np.testing.assert_array_equal(rle.decode(theirs), mask)
    np.testing.assert_array_equal(rle.decode(rle.encode(mask)), mask)
    ours = mask_tools.frPyObjects(rle.encode(mask), *mask.shape)
    np.testing.assert_array_equal(mask_tools.decode(ours), mask)


def test_pycocotools_loads_what_is_written(tmp_path: Path) -> None:
    square = ((10.0, 10.0), (50.0, 10.0), (50.0, 50.0), (10.0, 50.0))
    hole = ((20.0, 20.0), (20.0, 40.0), (40.0, 40.0), (40.0, 20.0))
    found = Annotations(
        "a.jpg",
        100,
        80,
        (
            Annotation("stop", box=(1, 2, 30, 40), score=0.5),
            Annotation("give way", parts=(AnnotationPart(square),)),
            Annotation("give way", parts=(AnnotationPart(square, (hole,)),)),
            Annotation(
                "stop",
                box=(0, 0, 99, 79),
                keypoints=(Keypoint("tip", 5, 6), Keypoint("right", 7, 8, 1)),
            ),
        ),
    )
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(to_coco([found, replace(found, image="b.jpg")], NAMES, POINTS)))
    with redirect_stdout(io.StringIO()):
        loaded = COCO(str(file))
    assert len(loaded.getImgIds()) == 2
    assert [row["name"] for row in loaded.loadCats(loaded.getCatIds())] == list(NAMES)
    rows = loaded.loadAnns(loaded.getAnnIds(imgIds=[2]))
    areas = [int(loaded.annToMask(row).sum()) for row in rows[1:3]]
    assert areas == pytest.approx([1600, 1200], abs=100)  # pycocotools' polygons: half a pixel
    assert areas[1] == 1200
    assert rows[3]["num_keypoints"] == 2
    assert rows[3]["keypoints"] == [5, 6, 2, 0, 0, 0, 7, 8, 1]


def test_label_studio_gets_percent_and_linked_regions() -> None:
    bar = ((0.0, 0.0), (20.0, 0.0), (20.0, 10.0), (0.0, 10.0))
    far = tuple((x + 50, y + 20) for x, y in bar)
    found = Annotations(
        "a.jpg",
        200,
        50,
        (
            Annotation("Car", box=(20, 7.5, 60, 20), score=0.9),
            Annotation("Bike", parts=(AnnotationPart(bar), AnnotationPart(far)), score=0.8),
            Annotation("Cat", box=(0, 0, 50, 50), keypoints=(Keypoint("nose", 100, 25, 1),)),
            Annotation("night", score=0.7),
        ),
    )
    box, part, further, cat, nose, night = to_label_studio(found, {"choices": "time"}, "image")
    assert box["value"] == {
        "rectanglelabels": ["Car"], "x": 10, "y": 15, "width": 20, "height": 25, "rotation": 0
    }  # fmt: skip
    assert (box["from_name"], box["to_name"], box["type"]) == ("tag", "image", "rectanglelabels")
    assert (box["score"], box["origin"], cat["origin"]) == (0.9, "prediction", "manual")
    assert (box["original_width"], box["original_height"]) == (200, 50)
    assert part["value"]["points"] == [[0, 0], [10, 0], [10, 20], [0, 20]]
    assert further["parentID"] == part["id"] != further["id"]
    assert nose["value"] == {"keypointlabels": ["nose"], "x": 50, "y": 50, "width": 0.5}
    assert nose["parentID"] == cat["id"]
    assert nose["meta"] == {"text": ["occluded"]}
    assert night["value"] == {"choices": ["night"]}
    assert night["from_name"] == "time"
    assert len({region["id"] for region in (box, part, further, cat, nose, night)}) == 6
    task = to_task(found, [box], "m:1")
    assert task["predictions"][0]["model_version"] == "m:1"
    assert task["predictions"][0]["score"] == pytest.approx(0.8)


def region(kind: str, identity: str, parent: str = "", **value: Any) -> dict[str, Any]:
    size = {"original_width": 100, "original_height": 100}
    linked = {"parentID": parent} if parent else {}
    return {"id": identity, "type": kind, "value": value, **size, **linked}


TURNED_ASKEW = {"image_rotation": 45}


def test_what_people_do_in_label_studio_is_read() -> None:
    corners = [[0, 0], [10, 0], [10, 10]]
    read = from_label_studio(
        [
            region("keypointlabels", "k", "r", keypointlabels=["nose"], x=5, y=5, width=1),
            region("rectanglelabels", "r", rectanglelabels=["Cat"], x=0, y=0, width=10, height=20),
            region("polygonlabels", "p", "r", polygonlabels=["Ear"], points=corners),
            region("keypointlabels", "lost", "gone", keypointlabels=["tail"], x=9, y=9, width=1),
            region(
                "rectanglelabels", "t", rectanglelabels=["Cat"], x=50, y=50, width=20, height=10,
                rotation=90,
            ),
            {"type": "relation", "from_id": "r", "to_id": "p"},
        ]
    )  # fmt: skip
    cat, ear, tail, turned = read.objects
    assert (cat.label, cat.box, cat.id) == ("Cat", (0, 0, 10, 20), "r")
    assert [point.name for point in cat.keypoints] == ["nose"]
    assert (ear.label, ear.parts[0].outline) == ("Ear", ((0, 0), (10, 0), (10, 10)))
    assert (tail.label, tail.keypoints[0].x) == ("tail", 9)
    assert turned.box is None
    assert turned.bounds == pytest.approx((40, 50, 50, 70))


@pytest.mark.parametrize("turned", [0, 90, 180, 270])
def test_what_was_drawn_in_a_turned_picture_is_turned_back(turned: int) -> None:
    """An image of 200 × 100 that lies on its side is 100 × 200; the corner moves round."""
    wide, high = (100, 200) if turned in (90, 270) else (200, 100)
    x, y = {0: (20, 10), 90: (70, 20), 180: (150, 70), 270: (10, 150)}[turned]  # as it is seen
    w, h = (30, 20) if turned in (0, 180) else (20, 30)
    place: dict[str, Any] = {"x": x / wide * 100, "y": y / high * 100}
    box = region(
        "rectanglelabels", "b", rectanglelabels=["Cat"], rotation=0,
        width=w / wide * 100, height=h / high * 100, **place,
    )  # fmt: skip
    corners = [(x, y), (x + w, y), (x + w, y + h)]
    percent = [[a / wide * 100, b / high * 100] for a, b in corners]
    shape = region("polygonlabels", "p", polygonlabels=["Cat"], points=percent)
    point = region("keypointlabels", "k", keypointlabels=["nose"], width=1, **place)
    turns = [one | {"image_rotation": turned} for one in (box, shape, point)]
    cat, shape_read, nose = from_label_studio(turns, "", (200, 100)).objects
    assert cat.box == pytest.approx((20, 10, 50, 30))
    assert {(round(a), round(b)) for a, b in shape_read.parts[0].outline} < {
        (20, 10), (50, 10), (50, 30), (20, 30)
    }  # fmt: skip
    first = {0: (20, 10), 90: (20, 30), 180: (50, 30), 270: (50, 10)}[turned]
    assert (nose.keypoints[0].x, nose.keypoints[0].y) == pytest.approx(first)


def test_several_labels_are_as_many_objects_and_ids_need_not_be_unique() -> None:
    box: dict[str, Any] = {"x": 0, "y": 0, "width": 10, "height": 20}
    found = from_label_studio(
        [
            region("choices", "c", choices=["cat", "dog"]),
            region("rectanglelabels", "a", rectanglelabels=["car", "taxi"], **box),
            region("choices", "a", choices=["dirty"]),  # of the region, whose id it has
            region("textarea", "a", text=["seen twice"]),
            region("rectanglelabels", "a", rectanglelabels=["bus"], **box),
        ],
        "",
        (100, 100),
    )
    assert [(thing.label, thing.box is not None) for thing in found.objects] == [
        ("cat", False), ("dog", False), ("car", True), ("taxi", True), ("bus", True)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (
            lambda: from_label_studio([region("vectorlabels", "b", rle=[1])]),
            "unsupported types: vectorlabels",
        ),
        (
            lambda: from_label_studio([{"type": ["labels"], "id": {}, "value": 5}]),
            "unsupported types",
        ),
        (
            lambda: from_label_studio([region("choices", "b", choices=["a"]) | TURNED_ASKEW]),
            "must be 0, 90, 180 or 270",
        ),
        (lambda: from_label_studio([region("rectanglelabels", "b", x=1)]), "lacks its values"),
        (lambda: from_label_studio([{"type": "choices", "value": {}}]), "the size of the image"),
        (lambda: from_coco({"images": []}), "not a COCO instances document"),
        (
            lambda: from_coco(
                {"images": [], "categories": [], "annotations": [{"category_id": 3}]}
            ),
            "'image_id': its id must be",
        ),
        (lambda: rle.decode({"size": [2, 2], "counts": [1]}), "run lengths"),
        (lambda: rle.decode({"size": [2, 2], "counts": [4]}, (3, 2)), "its image has 3 × 2"),
        (lambda: rle.decode({"size": [10**5, 10**5], "counts": [10**10]}), "at most"),
        (lambda: rle.decode({"size": [-2, -2], "counts": [4]}), "at most"),
        (lambda: from_yolo("7 .5 .5 .1 .1", NAMES, (9, 9)), "Line 1 of the labels: class id 7"),
        (lambda: from_yolo("\n0 a b c d", NAMES, (9, 9)), "Line 2"),
        (lambda: from_yolo("0 0 0 1e39 0 1 1", NAMES, (9, 9)), "not a class id and numbers"),
        (lambda: from_yolo("0 .1 .2 .3", NAMES, (9, 9)), "4 columns"),
        (
            lambda: from_yolo("0 .1 .1 .2 .2 .3 .3 .4 .4", NAMES, (9, 9), "", POINTS),
            "9 columns are neither a box nor a pose of 14",
        ),
        (lambda: from_labelme({"version": "5"}), "not a LabelMe document"),
        (
            lambda: from_labelme(
                {
                    "imageWidth": 9,
                    "imageHeight": 9,
                    "shapes": [{"label": "a", "shape_type": "circle", "points": []}],
                }
            ),
            "has 0 points; it needs 2",
        ),
        (
            lambda: to_yolo(Annotations("", 9, 9, (Annotation("tree"),)), NAMES),
            "'tree' is not one of: stop",
        ),
        (
            lambda: to_coco([Annotations("", 9, 9, (Annotation("stop"),))], NAMES),
            "class of an image",
        ),
    ],
)
def test_what_cannot_be_read_or_written_is_told(read: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValidationFailed, match=message):
        read()


def test_yolo_lines_are_those_that_ultralytics_reads() -> None:
    found = Annotations(
        "a.jpg",
        100,
        50,
        (
            Annotation("give way", box=(10, 10, 30, 20), score=0.5),
            Annotation("stop", parts=(AnnotationPart(((0.0, 0.0), (50.0, 0.0), (50.0, 25.0))),)),
            Annotation("stop", box=(0, 0, 100, 50), keypoints=(Keypoint("left", 10, 10, 1),)),
            Annotation("priorité"),
        ),
    )
    assert to_yolo(found, NAMES, POINTS).splitlines() == [
        "1 0.2 0.3 0.2 0.2",
        "0 0 0 0.5 0 0.5 0.5",
        "0 0.5 0.5 1 1 0 0 0 0.1 0.2 1 0 0 0",
        "2",
    ]
    assert to_yolo(found, NAMES, POINTS, scores=True).startswith("1 0.2 0.3 0.2 0.2 0.5\n")


def test_key_points_of_two_numbers_are_key_points() -> None:
    """`kpt_shape: [k, 2]`: a point at 0, 0 is absent, as for Ultralytics."""
    text = "0 .5 .5 .2 .2 .4 .3 0 0\n1 .5 .5 .2 .2\n"
    pose, box = from_yolo(text, NAMES, (100, 50), "", ("tip", "left"), 2).objects
    assert pose.parts == box.keypoints == ()
    assert pose.box == pytest.approx((40, 20, 60, 30))
    assert pose.keypoints == (Keypoint("tip", 40, 15, 2), Keypoint("left", visibility=0))


@given(found=pictures())
@settings(max_examples=30, deadline=None)
def test_our_own_json_keeps_everything(found: Annotations) -> None:
    assert Annotations.from_json(json.loads(json.dumps(found.to_json()))) == found
