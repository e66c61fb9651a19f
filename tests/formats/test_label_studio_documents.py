"""Label Studio's results: which mark objects, and which image each belongs to."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from errors import ValidationFailed
from formats.annotations import NO_AREA, Annotation
from formats.brush import decode_brush
from formats.geometry import as_outlines, fill_parts
from formats.label_studio import from_label_studio
from formats.label_studio_config import parse_label_config
from formats.label_studio_images import ALL_PAGES, OTHER_TAG, RELATIONS, TaskImage, images_of
from formats.label_studio_marking import OF_A_REGION

TWO = """<View><Image name="first" value="$left"/><Image name="second" value="$right"/>
<Image name="shown" value="$reference"/><Text name="said" value="$text"/>
<RectangleLabels name="a" toName="first"><Label value="car"/></RectangleLabels>
<RectangleLabels name="b" toName="second"><Label value="dog"/></RectangleLabels>
<Labels name="c" toName="said"><Label value="name"/></Labels></View>"""
PAGES = """<View><Image name="page" valueList="$pages"/>
<RectangleLabels name="a" toName="page"><Label value="car"/></RectangleLabels></View>"""
DATA = {"left": "/data/upload/1/a.jpg", "right": "b.jpg", "reference": "c.jpg", "text": "x"}
BOX = {"x": 10, "y": 20, "width": 50, "height": 40, "rotation": 0}


def region(key: str, to_name: str = "", kind: str = "rectanglelabels", **more: Any) -> Any:
    named = {"to_name": to_name} if to_name else {}
    value = BOX | {kind: ["car"]}
    size = {"original_width": 100, "original_height": 50}
    return {"id": key, "type": kind, "value": value} | size | named | more


def said(found: list[TaskImage]) -> dict[str, list[str]]:
    return {one.address: [row["id"] for row in one.regions] for one in found}


def test_a_configuration_says_which_image_a_region_is_on() -> None:
    tags = parse_label_config(TWO).images
    text = {"id": "t", "type": "labels", "to_name": "said", "value": {"start": 1, "end": 2}}
    rows = [region("1", "first"), region("2", "second"), region("3", "second"), text]
    skipped: Counter[str] = Counter()
    found = images_of(DATA, [*rows, {"type": "relation"}], tags, skipped=skipped)
    assert said(found) == {"/data/upload/1/a.jpg": ["1"], "b.jpg": ["2", "3"]}
    assert skipped == {OTHER_TAG: 1, RELATIONS: 1}
    assert said(images_of(DATA, [], tags)) == {"/data/upload/1/a.jpg": [], "b.jpg": []}
    assert said(images_of(DATA, [region("1", "shown")], tags))["c.jpg"] == ["1"]


def test_pages_are_told_apart_by_their_number() -> None:
    pages = {"pages": ["a.jpg", "b.jpg", "c.jpg"]}
    rows = [region("1", "page", item_index=2), region("2", "page", item_index=0)]
    choice = {"id": "x", "type": "choices", "to_name": "page", "value": {"choices": ["night"]}}
    for tags in (parse_label_config(PAGES).images, ()):
        skipped: Counter[str] = Counter()
        found = images_of(pages, [*rows, choice], tags, skipped=skipped)
        assert said(found) == {"a.jpg": ["2"], "b.jpg": [], "c.jpg": ["1"]}
        assert [one.page for one in found] == [0, 1, 2]
        assert skipped == {ALL_PAGES: 1}


@pytest.mark.parametrize(
    ("data", "address"),
    [
        ({"image": "a.jpg"}, "a.jpg"),
        ({"image": "https://host/x?id=3"}, "https://host/x?id=3"),
        ({"id": "17", "image": "https://host/x?id=3"}, "https://host/x?id=3"),
        ({"img": "/data/local-files/?d=cam/a.jpg", "note": "dark"}, None),
        ({"image": "/data/upload/1/0f6142fb-a.jpg", "filename": "a.jpg"}, None),
        ({"photo": "data:image/png;base64,AAAA", "note": "dark"}, None),
        ({"whatever": "https://host/x"}, "https://host/x"),
        ({"image": ["a.jpg"]}, "a.jpg"),
    ],
)
def test_without_a_configuration_the_only_image_is_meant(
    data: dict[str, Any], address: str | None
) -> None:
    (found,) = images_of(data, [region("1", "any"), region("2", "any")])
    assert found.address == (address or next(iter(data.values())))
    assert len(found.regions) == 2


LEFT = {"left": "a.jpg", "right": "b.jpg"}


@pytest.mark.parametrize(
    ("data", "rows", "config", "told"),
    [
        (LEFT, [region("1", "left")], "", "several images (left, right)"),
        ({"image": "a.jpg"}, [region("1", "a"), region("2", "b")], "", "several tags: a, b"),
        ({"a": "x", "b": "y"}, [], "", "contains no address of an image; it has a, b"),
        ({"text": "hello"}, [], "", "contains no address of an image; it has text"),
        (
            {"text": "either/or, as they say"},
            [],
            "",
            "contains no address of an image; it has text",
        ),
        ({}, [], "", "it has nothing"),
        (None, [], "", "needs 'data'"),
        (DATA, [region("1", "old")], TWO, "Region '1' is on 'old'"),
        (DATA, [region("1")], TWO, "Region '1' is on ''"),
        ({"left": "a.jpg"}, [], TWO, "its data needs 'right'"),
        ({"pages": ["a.jpg", "b.jpg"]}, [region("1", "page")], PAGES, "'item_index' is None"),
        ({"pages": ["a.jpg"]}, [region("1", "page", item_index=1)], PAGES, "'item_index' is 1"),
        ({"pages": []}, [], PAGES, "its data needs 'pages'"),
    ],
)
def test_an_image_that_is_not_known_is_never_guessed(
    data: Any, rows: list[Any], config: str, told: str
) -> None:
    tags = parse_label_config(config).images if config else ()
    with pytest.raises(ValidationFailed) as raised:
        images_of(data, rows, tags)
    assert told in raised.value.message


def test_results_that_are_no_objects_are_counted() -> None:
    rows = [
        region("1"),
        {"id": "1", "type": "choices", "value": {"choices": ["old"]}},
        {"id": "1", "type": "textarea", "value": {"text": ["x"]}},
        {"id": "t", "type": "labels", "value": {"start": 1, "labels": ["x"]}},
        {"type": "relation", "from_id": "1", "to_id": "1"},
        {"id": "n", "type": "choices", "value": {"choices": ["night"]}},
    ]
    skipped: Counter[str] = Counter()
    found = from_label_studio(rows, skipped=skipped)
    assert [thing.label for thing in found.objects] == ["car", "night"]
    assert skipped == {
        OF_A_REGION: 1,
        "Label Studio textarea results": 1,
        "Label Studio labels results": 1,
        "Label Studio relation results": 1,
    }


def test_a_click_without_a_drag_is_counted() -> None:
    skipped: Counter[str] = Counter()
    click = region("2") | {"value": BOX | {"width": 0, "rectanglelabels": ["car"]}}
    assert len(from_label_studio([region("1"), click], skipped=skipped)) == 1
    assert skipped == {NO_AREA: 1}


def test_shapes_have_the_labels_of_their_own_results() -> None:
    labels = {"id": "1", "type": "labels", "value": BOX | {"labels": ["dog"]}}
    shape = {"id": "1", "type": "rectangle", "value": BOX}
    for rows in ([shape, labels], [labels, shape], [labels]):
        found = from_label_studio(rows, size=(100, 50))
        assert [(o.label, o.box) for o in found.objects] == [("dog", (10, 10, 60, 30))]


def test_an_ellipse_has_its_radii_in_percent() -> None:
    value = {"x": 50, "y": 50, "radiusX": 10, "radiusY": 10, "ellipselabels": ["car"]}
    row = {"id": "1", "type": "ellipselabels", "value": value}
    (found,) = from_label_studio([row], size=(200, 100)).objects
    assert found.bounds == pytest.approx((80, 40, 120, 60))
    row = row | {"value": value | {"rotation": 90}}
    (found,) = from_label_studio([row], size=(200, 100)).objects
    assert found.bounds == pytest.approx((90, 30, 110, 70))


def packed(mask: np.ndarray, literal: bool = False) -> list[int]:
    """A mask in Label Studio's form, all four channels of a pixel alike."""
    words = [int(value) for value in np.repeat(mask.ravel() * 255, 4)]
    bits = f"{len(words):032b}{7:05b}" + "".join(f"{width - 1:04b}" for width in (3, 4, 8, 16))
    start = 0
    while start < len(words):
        end = start + 1
        while not literal and end < len(words) and words[end] == words[start]:
            end += 1
        if literal:
            end = min(start + 8, len(words))
            bits += f"000{end - start - 1:03b}" + "".join(f"{w:08b}" for w in words[start:end])
        else:
            bits += f"111{end - start - 1:016b}{words[start]:08b}"
        start = end
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


@pytest.mark.parametrize("literal", [True, False])
def test_brush_masks_are_read_to_the_pixel(literal: bool) -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[5:12, 4:20] = 1
    mask[7:9, 6:10] = 0
    mask[15, 25] = 1
    code = packed(mask, literal)
    np.testing.assert_array_equal(decode_brush(code, 30, 20), mask > 0)
    value = {"format": "rle", "rle": code, "brushlabels": ["car"]}
    row = {"id": "1", "type": "brushlabels", "value": value}
    (found,) = from_label_studio([row], size=(30, 20)).objects
    np.testing.assert_array_equal(fill_parts(as_outlines(found.parts), 30, 20), mask > 0)


EMPTY = packed(np.zeros((20, 30), np.uint8))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (
            region("7", kind="vectorlabels"),
            "unsupported types: vectorlabels (the first is '7",
        ),
        ({"id": "7", "type": "videorectangle", "value": {}}, "unsupported types: videorectangle"),
        ({"id": "7", "type": "rectangle", "value": BOX}, "Region '7' is a rectangle without"),
        (region("7") | {"value": BOX}, "Region '7', a rectanglelabels region, lacks"),
        (region("7") | {"value": BOX | {"rectanglelabels": []}}, "Region '7'"),
        (
            {"id": "7", "type": "brushlabels", "value": {"rle": [1], "brushlabels": ["a"]}},
            "Region '7': A brush mask's 'rle' cannot be read",
        ),
        (
            {"id": "7", "type": "brushlabels", "value": {"rle": EMPTY, "brushlabels": ["a"]}},
            "Region '7' is an empty brush mask",
        ),
        (
            {
                "id": "7",
                "type": "brushlabels",
                "original_width": 31,
                "value": {"rle": EMPTY, "brushlabels": ["a"]},
            },
            "Region '7' is a brush mask for an image of 31 × 20",
        ),
        ("region", "must be an object"),
    ],
)
def test_what_marks_an_object_and_cannot_be_read_is_refused(row: Any, told: str) -> None:
    with pytest.raises(ValidationFailed) as raised:
        from_label_studio([row], size=(30, 20))
    assert told in raised.value.message


def test_key_points_of_two_objects_under_one_parent_are_refused() -> None:
    point = {"x": 1, "y": 2, "width": 1, "keypointlabels": ["nose"]}
    nose = {"type": "keypointlabels", "parentID": "1", "value": point}
    rows = [region("1"), nose | {"id": "2"}, nose | {"id": "3"}]
    with pytest.raises(ValidationFailed, match="'nose' twice"):
        from_label_studio(rows, size=(30, 20))
    (found,) = from_label_studio(rows[:2], size=(100, 50)).objects
    assert isinstance(found, Annotation)
    assert [p.name for p in found.keypoints] == ["nose"]
