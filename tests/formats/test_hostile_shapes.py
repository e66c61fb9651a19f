"""Masks and polygons that state more than an image holds, or cost more than they are large."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errors import ValidationFailed
from formats import rle
from formats.annotations import Point, Ring
from formats.brush import decode_brush
from formats.coco import from_coco
from formats.cvat_xml import from_cvat_xml
from formats.geometry import MOST_RINGS, area, bridge, fill_parts, outlines, unbridge
from formats.label_studio import from_label_studio

WRAPPED = [0, *[2**62] * 4, 4]  # their sum as 64-bit integers is 4


def packed(*counts: int) -> str:
    """Packed counts of at most four bits each."""
    return "".join(chr(48 + count) for count in counts)


def coco(counts: Any, height: int = 2, width: int = 2) -> dict[str, Any]:
    code = {"size": [height, width], "counts": counts}
    return {
        "images": [{"id": 1, "file_name": "a.jpg", "width": width, "height": height}],
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 1, "segmentation": code}
        ],
    }


def test_packed_counts_are_read() -> None:
    mask = rle.decode({"size": [2, 2], "counts": packed(1, 3)})
    assert mask.tolist() == [[False, True], [True, True]]


@pytest.mark.parametrize(
    "counts",
    [
        "o" * 500_000,
        "oooooooo0",
        packed(1, 4),
        packed(*[0] * 100_000),
        [0] * 100_000,
        WRAPPED,
        [2**70],
        [-1, 5],
    ],
    ids=["endless", "long", "larger", "many", "many numbers", "wrapped", "huge", "negative"],
)
def test_counts_are_bounded_by_the_image(counts: Any) -> None:
    with pytest.raises(ValidationFailed, match="run lengths"):
        rle.decode({"size": [2, 2], "counts": counts})
    with pytest.raises(ValidationFailed, match="run lengths"):
        from_coco(coco(counts))


@pytest.mark.parametrize("counts", [WRAPPED, [0] * 100_000, [2**70]])
def test_counts_of_cvat_are_bounded_by_the_mask(counts: list[int]) -> None:
    text = ", ".join(map(str, counts))
    document = (
        '<annotations><image id="0" name="a.jpg" width="9" height="9">'
        f'<mask label="dog" rle="{text}" left="0" top="0" width="2" height="2"/>'
        "</image></annotations>"
    )
    with pytest.raises(ValidationFailed, match="run lengths"):
        from_cvat_xml(document)


@pytest.mark.parametrize("code", [5, 10**12, 10**30, "abc", {"a": 1}, None, [0] * 100_000, [300]])
def test_a_brush_mask_is_a_list_of_bytes_that_its_image_can_have(code: Any) -> None:
    with pytest.raises(ValidationFailed, match="brush mask"):
        decode_brush(code, 2, 2)


def square(x: float, y: float, side: float) -> Ring:
    return (x, y), (x + side, y), (x + side, y + side), (x, y + side)


def joined(rings: list[Ring]) -> list[Point]:
    """Rings as `bridge` joins them, all from the first one's last corner."""
    first, *others = rings
    points = list(first)
    for other in others:
        points += [*other, other[0], first[-1]]
    return points


def test_a_polygon_of_many_parts_is_divided_in_one_pass() -> None:
    """To begin again after each part would compare a billion edges here."""
    squares = [square(10 * (i % 150), 10 * (i // 150), 5) for i in range(15_000)]
    assert {part.outline for part in unbridge(joined(squares))} == set(squares)


def test_a_large_hole_in_a_large_part_is_found_by_some_of_its_corners() -> None:
    turns = np.linspace(0, 2 * np.pi, 40_000, endpoint=False)
    circle = np.stack((np.cos(turns), np.sin(turns)), axis=1)
    large, small = ([tuple(p) for p in (circle * r).tolist()] for r in (4000, 3000))
    (part,) = unbridge(joined([tuple(large), tuple(small)]))
    assert [len(hole) for hole in part.holes] == [40_000]


def test_parts_inside_each_other_keep_their_order() -> None:
    squares = [square(i, i, 100 - 2 * i) for i in range(40)]
    parts = unbridge(joined(squares))
    assert [(part.outline, *part.holes) for part in parts] == [
        tuple(squares[i : i + 2]) for i in range(0, 40, 2)
    ]


def test_too_many_or_too_deeply_nested_parts_are_refused() -> None:
    many = [square(10 * (i % 150), 10 * (i // 150), 5) for i in range(MOST_RINGS + 1)]
    with pytest.raises(ValidationFailed, match="20001 parts and holes"):
        unbridge(joined(many))
    # Thin triangles along diagonals: the box of each holds all smaller ones, the triangle none.
    sides = map(float, range(10_000, 10, -5))
    deep: list[Ring] = [((0.0, i), (i, 0.0), (i - 1.0, 0.0)) for i in sides]
    with pytest.raises(ValidationFailed, match="inside each other"):
        unbridge(joined(deep))
    value = {"polygonlabels": ["dog"], "points": [[x / 100, y / 100] for x, y in joined(deep)]}
    size = {"original_width": 10_000, "original_height": 10_000}
    region = {"id": "1", "type": "polygonlabels", "value": value, **size}
    with pytest.raises(ValidationFailed, match="inside each other"):
        from_label_studio([region])


def test_large_parts_are_joined_without_comparing_all_their_corners() -> None:
    """To compare all would be 20 billion pairs."""
    turns = np.linspace(0, 2 * np.pi, 10_000, endpoint=False)
    circle = np.stack((np.cos(turns), np.sin(turns)), axis=1) * 20
    circles = [tuple((x + 50 * i, y) for x, y in circle.tolist()) for i in range(20)]
    parts = unbridge(bridge(circles))
    assert {frozenset(part.outline) for part in parts} == set(map(frozenset, circles))


def test_too_many_parts_are_not_joined() -> None:
    with pytest.raises(ValidationFailed, match="20001 parts and holes"):
        bridge([square(10 * i, 0, 5) for i in range(MOST_RINGS + 1)])


@given(
    mask=st.integers(1, 12).flatmap(
        lambda width: st.lists(
            st.lists(st.booleans(), min_size=width, max_size=width), min_size=1, max_size=12
        )
    ),
    factor=st.integers(1, 60),
)
@settings(max_examples=150, deadline=None)
def test_outlines_of_run_lengths_are_those_of_their_pixels(
    mask: list[list[bool]], factor: int
) -> None:
    pixels = np.kron(np.array(mask), np.ones((factor, factor))).astype(bool)
    found = rle.decode_outlines(rle.encode(pixels))
    wanted = outlines(pixels)
    assert [piece.outer.tolist() for piece in found] == [p.outer.tolist() for p in wanted]
    assert [[h.tolist() for h in p.holes] for p in found] == [
        [h.tolist() for h in p.holes] for p in wanted
    ]
    height, width = pixels.shape
    lengths = np.array(rle.encode(pixels.T)["counts"])
    by_rows = rle.run_outlines(lengths, width, height, by_rows=True)
    assert [piece.outer.tolist() for piece in by_rows] == [p.outer.tolist() for p in wanted]
    np.testing.assert_array_equal(fill_parts(found, pixels.shape[1], pixels.shape[0]), pixels)


@pytest.mark.parametrize("counts", [[0, 2**26], [2**26 - 5, 5], [5, 2**26 - 10, 5], [2**26]])
def test_a_few_run_lengths_of_a_huge_mask_draw_few_pixels(
    counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []

    def noted(mask: Any, *edges: Any) -> Any:
        drawn.append(mask.size)
        return outlines(mask, *edges)

    monkeypatch.setattr(rle, "outlines", noted)
    found = rle.decode_outlines({"size": [2**13, 2**13], "counts": counts})
    assert drawn[0] < 100
    assert sum(abs(area(piece.outer)) for piece in found) == sum(counts[1::2])
