"""LabelMe documents as versions of it write them, and as they go wrong."""

from __future__ import annotations

import base64
import io
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from PIL import Image

from errors import ValidationFailed
from formats.annotations import NO_AREA, Annotation
from formats.geometry import area, as_outlines, fill_parts
from formats.labelme import from_labelme

MASK = np.array([[0, 1, 1], [1, 1, 0], [1, 0, 1]], np.uint8)
TRIANGLE = [[1, 1], [9, 1], [9, 9]]


def document(*shapes: dict[str, Any], **more: Any) -> dict[str, Any]:
    head: dict[str, Any] = {
        "version": "5.5.0",
        "flags": {},
        "imagePath": "a.jpg",
        "imageData": None,
    }
    size = {"imageHeight": 80, "imageWidth": 100}
    return head | size | {"shapes": [{"label": "dog", "group_id": None} | s for s in shapes]} | more


def png(mask: np.ndarray, mode: str = "L") -> str:
    file = io.BytesIO()
    Image.fromarray(mask * np.uint8(255)).convert(mode).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_types_in_any_case_and_without_one() -> None:
    found = from_labelme(
        document(
            {"shape_type": "Rectangle", "points": [[30, 40], [1, 2]]},
            {"points": TRIANGLE},
            {"shape_type": None, "points": [{"x": x, "y": y} for x, y in TRIANGLE]},
            {"shape_type": "rectangle", "points": [[1, 2], [30, 2], [30, 40], [1, 40]]},
            {"shape_type": "rotation", "points": [[5, 0], [9, 5], [5, 9], [0, 5]]},
        )
    ).objects
    assert [thing.box for thing in found] == [
        (1, 2, 30, 40), None, None, (1, 2, 30, 40), None
    ]  # fmt: skip
    assert [thing.bounds for thing in found[1:3]] == [(1, 1, 9, 9)] * 2


def test_a_circle_is_a_polygon_of_its_area() -> None:
    shape = {"shape_type": "circle", "points": [[50, 40], [53, 44]]}
    (found,) = from_labelme(document(shape)).objects
    assert found.bounds == pytest.approx((45, 35, 55, 45))
    (outline,) = as_outlines(found.parts)
    assert abs(area(outline.outer)) == pytest.approx(math.pi * 25, rel=2e-3)


@pytest.mark.parametrize("mode", ["L", "1", "RGB"])
def test_a_mask_lies_between_its_points(mode: str) -> None:
    shape = {"shape_type": "mask", "points": [[10, 20], [12, 22]], "mask": png(MASK, mode)}
    (found,) = from_labelme(document(shape)).objects
    drawn = fill_parts(as_outlines(found.parts), 100, 80)
    np.testing.assert_array_equal(drawn[20:23, 10:13], MASK.astype(bool))
    assert drawn.sum() == MASK.sum()


def test_lines_are_counted_and_passed_over() -> None:
    skipped: Counter[str] = Counter()
    shapes = [{"shape_type": kind, "points": TRIANGLE} for kind in ("line", "linestrip", "points")]
    found = from_labelme(document(*shapes, {"points": TRIANGLE}), skipped=skipped)
    assert len(found) == 1
    assert skipped == {"LabelMe lines": 1, "LabelMe line strips": 1, "LabelMe point sets": 1}


def test_a_click_without_a_drag_is_counted() -> None:
    skipped: Counter[str] = Counter()
    click = {"shape_type": "rectangle", "points": [[5, 5], [5, 9]]}
    assert not len(from_labelme(document(click), skipped=skipped))
    assert skipped == {NO_AREA: 1}


def test_a_size_that_is_not_stated_is_zero_and_image_data_is_no_matter() -> None:
    found = from_labelme(
        document(imageHeight=None, imageWidth=None, imageData="aGVsbG8=", flags=None)
    )
    assert (found.width, found.height, found.objects) == (0, 0, ())
    flags = from_labelme(document(flags={"night": True, "rain": False})).objects
    assert flags == (Annotation("night"),)


BOX = {"shape_type": "rectangle", "points": [[1, 2], [30, 40]]}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"imagePath": "a.jpg"}, "needs 'shapes'"),
        (document(shapes=None), "needs 'shapes'"),
        (document(imageWidth="100"), "'imageWidth' and 'imageHeight' are 100 and 80"),
        (document(imageWidth=None), "'imageWidth' and 'imageHeight' are None and 80"),
        (document(BOX | {"label": None}), "Shape 1 (rectangle 'None') has no label"),
        (
            document({"shape_type": "star", "points": []}),
            "Shape 1 (star 'dog') has an unsupported type",
        ),
        (document(BOX, BOX | {"points": [[1, 2]]}), "Shape 2 (rectangle 'dog') has 1 points"),
        (document({"points": [[1, 2], [3, 4]]}), "as it has no shape_type, 'dog') has 2 corners"),
        (document({"points": [[1, 2], [3, None], [4, 5]]}), "must be a list of [x, y]"),
        (document({"points": [[1, 2], [3, math.nan], [4, 5]]}), "must be a list of [x, y]"),
        (document({"points": None}), "must be a list of [x, y]"),
        (document(BOX | {"score": "high"}), "its 'score' must be a number"),
        (document({"shape_type": "circle", "points": [[1, 1], [1, 1]]}), "has no radius"),
        (document({"shape_type": "mask", "points": [[0, 0], [2, 2]]}), "a base64 PNG"),
        (
            document({"shape_type": "mask", "points": [[0, 0], [3, 2]], "mask": png(MASK)}),
            "of 4 × 3 pixels",
        ),
        (
            document({"shape_type": "mask", "points": [[0, 0], [2, 2]], "mask": png(MASK * 0)}),
            "is empty",
        ),
        (
            document(
                BOX | {"group_id": 1},
                {"shape_type": "point", "label": "nose", "points": [[1, 1]], "group_id": 1},
                {"shape_type": "point", "label": "nose", "points": [[2, 2]], "group_id": 1},
            ),
            "the keypoint 'nose' twice",
        ),
    ],
)
def test_what_is_not_understood_is_refused_by_its_shape(given: Any, told: str) -> None:
    with pytest.raises(ValidationFailed) as raised:
        from_labelme(given)
    assert told in raised.value.message
