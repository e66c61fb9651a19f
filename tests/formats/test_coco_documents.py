"""COCO documents as tools write them, and as they go wrong."""

from __future__ import annotations

import io
import json
import warnings
from collections import Counter
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_tools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from errors import ValidationFailed
from formats import rle
from formats.annotations import NO_AREA, Annotation, AnnotationPart, Annotations, Keypoint
from formats.coco import CROWD, from_coco, to_coco
from formats.geometry import as_outlines, fill_parts

MASK = np.zeros((80, 100), bool)
MASK[10:30, 20:60] = True
MASK[15:20, 30:40] = False

BOX = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40]}


def document(*annotations: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "images": [
            {"id": 1, "file_name": "a.jpg", "width": 100, "height": 80},
            {"id": 2, "file_name": "b.jpg", "width": 100, "height": 80},
        ],
        "categories": [{"id": 1, "name": "car"}, {"id": 7, "name": "dog"}],
        "annotations": [{"id": number, **row} for number, row in enumerate(annotations, 1)],
    } | more


def counted(*annotations: dict[str, Any], **more: Any) -> tuple[int, dict[str, int]]:
    """How many objects are taken, and what is passed over."""
    skipped: Counter[str] = Counter()
    found = from_coco(document(*annotations, **more), skipped=skipped)
    return sum(map(len, found)), dict(skipped)


def compressed(mask: np.ndarray) -> dict[str, Any]:
    code = mask_tools.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(code["size"]), "counts": code["counts"].decode()}


@pytest.mark.parametrize("code", [rle.encode(MASK), compressed(MASK)])
def test_masks_that_tools_mark_as_crowds_are_objects(code: dict[str, Any]) -> None:
    row = BOX | {"iscrowd": 1, "segmentation": code, "attributes": {"occluded": False}}
    (thing,) = from_coco(document(row))[0].objects
    np.testing.assert_array_equal(fill_parts(as_outlines(thing.parts), 100, 80), MASK)
    assert counted(row, BOX | {"iscrowd": 1}) == (2, {})


def test_crowds_of_the_coco_data_set_are_counted_and_passed_over() -> None:
    row = BOX | {"iscrowd": 1, "segmentation": rle.encode(MASK)}
    assert counted(row, info={"url": "http://cocodataset.org"}) == (0, {CROWD: 1})
    assert counted(row, info={"description": "COCO 2017 Dataset"}) == (0, {CROWD: 1})
    assert counted(row, info={"description": "our coconut data"}) == (1, {})
    subset = row | {"id": 900_100_000_001}  # category 1, image 1
    assert counted(subset, row | {"id": 900_700_000_001}) == (1, {CROWD: 1})
    assert counted(subset | {"iscrowd": 0}) == (1, {})


def test_ids_may_be_texts_or_have_points() -> None:
    found = from_coco(
        {
            "images": [{"id": "u-1", "file_name": "a.jpg"}, {"id": 2.0, "file_name": "b.jpg"}],
            "categories": [{"id": "1", "name": "car"}],
            "annotations": [
                BOX | {"id": "x", "image_id": "u-1"},
                BOX | {"id": "y", "image_id": 2},
            ],
        }
    )
    assert [(one.image, len(one)) for one in found] == [("a.jpg", 1), ("b.jpg", 1)]
    assert (found[0].width, found[0].height) == (0, 0)


def test_a_class_may_be_a_number_and_a_number_a_text() -> None:
    """As in the documents of public courses."""
    digits = [{"id": 1, "name": 7, "supercategory": "none"}]
    row = BOX | {"iscrowd": "0", "ignore": "0"}
    (thing,) = from_coco(document(row, categories=digits))[0].objects
    assert thing.label == "7"
    assert counted(row, info={"description": "COCO 2017 Dataset"}) == (1, {})


def test_places_that_tools_leave_half_empty() -> None:
    square = [10, 10, 50, 10, 50, 50, 10, 50]
    rows: list[dict[str, Any]] = [
        BOX | {"segmentation": []},
        BOX | {"segmentation": [[]]},
        BOX | {"segmentation": [[1, 1, 2, 2]]},
        BOX | {"segmentation": None, "score": None, "keypoints": None},
        BOX | {"segmentation": square},
        BOX | {"segmentation": [square, [1, 1, 2, 2]], "bbox": []},
        BOX | {"segmentation": [square], "bbox": None},
        BOX | {"bbox": [-3, 2, 30, 40]},
    ]
    found = from_coco(document(*rows))[0].objects
    assert [thing.box for thing in found[:4]] == [(1, 2, 31, 42)] * 4
    assert [len(thing.parts) for thing in found[4:7]] == [1, 1, 1]
    assert found[7].box == (-3, 2, 27, 42)  # what lies outside of the image is cut off later


def test_boxes_without_an_area_are_counted() -> None:
    """COCO 2017 has one itself."""
    flat = BOX | {"bbox": [1, 2, 30, 0]}
    assert counted(BOX, flat) == (1, {NO_AREA: 1})
    line = flat | {"segmentation": [[1, 2, 9, 2, 31, 2]]}
    square = [10, 10, 50, 10, 50, 50, 10, 50]
    assert counted(line) == (0, {NO_AREA: 1})
    half = flat | {"segmentation": [[1, 2, 9, 2, 31, 2], square]}
    assert [len(o.parts) for o in from_coco(document(half))[0].objects] == [1]
    posed = [{"id": 1, "name": "person", "keypoints": ["nose"]}]
    (thing,) = from_coco(document(flat | {"keypoints": [5, 6, 2]}, categories=posed))[0].objects
    assert thing == Annotation("person", keypoints=(Keypoint("nose", 5, 6),))


def test_key_points_have_their_category_s_names() -> None:
    posed = [{"id": 1, "name": "person", "keypoints": ["nose", "tail"]}]
    row = BOX | {"keypoints": [5, 6, 2, 0, 0, 0], "num_keypoints": 1}
    (thing,) = from_coco(document(row, categories=posed))[0].objects
    assert thing == Annotation(
        "person", (1, 2, 31, 42), keypoints=(Keypoint("nose", 5, 6), Keypoint("tail", 0, 0, 0))
    )


@pytest.mark.parametrize("kind", ["bbox", "segm", "keypoints"])
def test_pycocotools_evaluates_what_is_written(tmp_path: Path, kind: str) -> None:
    """What is there, found again with a score: everything is right, and all of it counts."""
    ring = ((10.0, 10.0), (50.0, 10.0), (50.0, 50.0), (10.0, 50.0))
    hole = ((20.0, 20.0), (20.0, 40.0), (40.0, 40.0), (40.0, 20.0))
    far = tuple((x + 60, y + 10) for x, y in ring)
    points = tuple(Keypoint(name, x, x + 5) for name, x in (("nose", 12.0), ("tail", 45.0)))
    things = {
        "bbox": (Annotation("car", box=(5, 5, 60, 70)), Annotation("dog", box=(80, 20, 120, 60))),
        "segm": (Annotation("car", parts=(AnnotationPart(ring, (hole,)), AnnotationPart(far))),
                 Annotation("dog", parts=(AnnotationPart(far),))),
        "keypoints": (Annotation("car", box=(10, 10, 60, 60), keypoints=points),),
    }[kind]  # fmt: skip
    found = [Annotations(name, 160, 100, things) for name in ("a.jpg", "b.jpg")]
    names = ("nose", "tail") if kind == "keypoints" else ()
    document = to_coco(found, ("car", "dog"), names)
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(document))
    results = [row | {"score": 0.9} for row in document["annotations"]]
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pycocotools is older than our NumPy
        truth = COCO(str(file))
        judged = COCOeval(truth, truth.loadRes(results), kind)
        if kind == "keypoints":
            judged.params.kpt_oks_sigmas = np.array([0.05, 0.05])
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    assert judged.stats[0] == pytest.approx(1.0)
    assert truth.getImgIds() == [1, 2]


ONE = "Annotation 1 of image 1 ('a.jpg')"
POSED = [{"id": 1, "name": "person", "keypoints": ["nose", "tail"]}]
IMAGE = {"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            document(BOX, images=[IMAGE, IMAGE | {"file_name": "b.jpg"}]),
            "The image id 1 is not unique: 'a.jpg' and 'b.jpg'",
        ),
        (
            document(BOX, categories=[{"id": 1, "name": "car"}, {"id": "1", "name": "dog"}]),
            "The category id 1 is not unique: 'car' and 'dog'",
        ),
        (document(BOX | {"image_id": 99}), "Annotation 1: its image_id 99 is not in 'images'"),
        (document(BOX | {"category_id": 99}), "its category_id 99 is not in 'categories'"),
        (document(BOX | {"category_id": None}), "Annotation 1, 'category_id': its id must be"),
        (document(BOX | {"image_id": True}), "Annotation 1, 'image_id': its id must be"),
        (document({"image_id": 1, "id": 8, "caption": "a car"}), "Annotation 8, 'category_id'"),
        (document(BOX, images=[{"id": 1}]), "The image 1 has no 'file_name'"),
        (document(BOX, categories=[{"id": 1}]), "The category 1 has no 'name'"),
        (document(BOX, images=[{"file_name": "a.jpg"}]), "The image at place 1 ('a.jpg')"),
        (document(BOX, images=[IMAGE | {"width": -1}]), "Image 1 ('a.jpg') has -1 × 80"),
        (document(BOX, images=[IMAGE | {"width": "100"}]), "its size: '100' must be a number"),
        (document(BOX | {"bbox": [1, 2, -3, 4]}), f"{ONE}: its 'bbox' has a width of -3"),
        (document(BOX | {"bbox": [1, None, 3, 4]}), f"{ONE}, 'bbox': 'None' must be a number"),
        (document(BOX | {"bbox": [1, 2, 3, float("nan")]}), f"{ONE}, 'bbox': 'nan'"),
        (document(BOX | {"bbox": [1, 2, 3]}), f"{ONE}: its 'bbox' must be [x, y, width, height]"),
        (document(BOX | {"bbox": None}), f"{ONE} has no shape"),
        (document(BOX | {"bbox": [], "segmentation": [[1, 1, 2, 2]]}), f"{ONE} has no shape"),
        (document(BOX | {"segmentation": [[1, 1, 2, 2, 3]]}), f"{ONE}: a polygon must be a list"),
        (document(BOX | {"segmentation": "0101"}), f"{ONE}: its 'segmentation' must be a list"),
        (
            document(BOX | {"segmentation": rle.encode(MASK.T)}),
            f"{ONE}: An RLE segmentation has 80 × 100 pixels",
        ),
        (
            document(BOX | {"keypoints": [1, 2, 2]}, categories=POSED),
            f"{ONE}: its 'keypoints' must be numbers x, y, visibility, 6 for its category's 2",
        ),
        (
            document(BOX | {"keypoints": [1, 2, 3, 1, 1, 1]}, categories=POSED),
            f"{ONE}: the visibility of keypoint 1 is 3",
        ),
        (document(BOX, annotations=None), "it needs 'annotations', a list of objects"),
        ([document(BOX)], "Send one document"),
        ([BOX | {"score": 0.5}], "it needs 'images', a list of objects"),
    ],
)
def test_what_is_not_understood_is_refused_by_its_ids(given: Any, told: str) -> None:
    with pytest.raises(ValidationFailed) as raised:
        from_coco(given)
    assert told in raised.value.message
