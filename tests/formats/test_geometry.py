"""Rings, holes, parts and masks."""

from __future__ import annotations

import time
import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats.annotations import AnnotationPart, ring
from formats.geometry import (
    Outline,
    area,
    bridge,
    clip,
    contours,
    fill,
    fill_parts,
    offset,
    outlines,
    overlap,
    simplify,
    unbridge,
    union,
)
from tests.support.annotated_images import parts
from tests.support.seeds import rng


def square(x: float, y: float, side: float) -> np.ndarray:
    return np.array(((x, y), (x + side, y), (x + side, y + side), (x, y + side)), np.float32)


@pytest.mark.parametrize("backwards", [False, True])
def test_a_ring_fills_the_pixels_whose_centres_it_holds(backwards: bool) -> None:
    ring = np.array(((1, 1), (4, 1), (4, 3), (1, 3)), np.float32)[:: -1 if backwards else 1]
    mask = fill([ring], 6, 5)
    assert mask.sum() == 6
    assert mask[1:3, 1:4].all()
    assert fill([ring + 0.4], 6, 5)[1:3, 1:4].all()
    assert fill([ring + 0.6], 6, 5)[2:4, 2:5].all()


def test_filling_is_cut_at_the_picture_and_leaves_holes() -> None:
    mask = fill([square(-5, -5, 100), square(2, 2, 3)], 10, 8)
    assert mask.sum() == 80 - 9
    assert not mask[2:5, 2:5].any()


@given(
    mask=st.integers(1, 12).flatmap(
        lambda side: st.lists(
            st.lists(st.booleans(), min_size=side, max_size=side), min_size=1, max_size=12
        )
    )
)
@settings(max_examples=150, deadline=None)
def test_outlines_of_any_mask_fill_exactly_it(mask: list[list[bool]]) -> None:
    wanted = np.array(mask, bool)
    height, width = wanted.shape
    np.testing.assert_array_equal(fill_parts(outlines(wanted), width, height), wanted)


def test_contours_tell_holes_from_parts_and_islands_within_holes() -> None:
    mask = np.zeros((60, 60), np.uint8)
    mask[5:50, 5:50] = 1
    mask[10:40, 10:40] = 0
    mask[20:30, 20:30] = 1  # an island in the hole
    mask[55:58, 55:58] = 1
    found = contours(mask)
    assert sorted(len(holes) for _, holes in found) == [0, 0, 1]


@given(found=parts(400, 300))
@settings(max_examples=100, deadline=None)
def test_one_ring_along_all_parts_and_holes_encloses_the_same(
    found: tuple[AnnotationPart, ...],
) -> None:
    rings = [ring for part in found for ring in (part.outline, *part.holes)]
    joined = bridge(rings)
    whole = fill([np.array(ring, np.float64) for ring in rings], 400, 300)
    np.testing.assert_array_equal(fill([np.array(joined, np.float64)], 400, 300), whole)
    again = unbridge(joined)
    assert sorted(len(part.holes) for part in again) == sorted(len(part.holes) for part in found)
    corners = {point for ring in rings for point in ring}
    assert {p for part in again for r in (part.outline, *part.holes) for p in r} == corners


def test_very_many_vertices_are_bridged_without_a_search() -> None:
    angles = np.linspace(0, 2 * np.pi, 5000, endpoint=False)
    rings = [
        tuple((100.0 * n + 40 * float(np.cos(a)), 40 * float(np.sin(a))) for a in angles)
        for n in range(8)
    ]
    joined = bridge(rings)
    assert len(joined) == sum(map(len, rings)) + 2 * 7
    assert {frozenset(part.outline) for part in unbridge(joined)} == set(map(frozenset, rings))


def test_many_parts_are_bridged_at_once() -> None:
    turns = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    round_ = np.stack((np.cos(turns), np.sin(turns)), axis=1) * 4
    rings = [ring(round_ + np.array((x * 10, y * 10))) for x in range(10) for y in range(10)]
    began = time.process_time()
    joined = bridge(rings)
    assert time.process_time() - began < 60
    assert {frozenset(part.outline) for part in unbridge(joined)} == set(map(frozenset, rings))


@pytest.mark.parametrize(
    ("points", "kept"),
    [
        ([(10, 10), (20, 10), (20, 20)], {(10, 10), (20, 10), (20, 20)}),
        ([(-50, 0), (50, 0), (50, 100)], {(0, 0), (50, 0), (50, 100), (0, 50)}),
        (
            [(-9, -9), (110, -9), (110, 110), (-9, 110)],
            {(0, 0), (100, 0), (100, 100), (0, 100)},
        ),
        ([(-20, 10), (-10, 10), (-10, 20)], set()),
    ],
)  # fmt: skip
def test_what_leads_out_of_the_picture_is_cut_at_its_edge(
    points: list[tuple[float, float]], kept: set[tuple[float, float]]
) -> None:
    assert set(clip(ring(points), 100, 100)) == kept


def test_a_ring_with_a_spike_stays_one_ring() -> None:
    ring = ((0.0, 0.0), (10.0, 0.0), (10.0, 10.0), (20.0, 10.0), (10.0, 10.0), (0.0, 10.0))
    assert unbridge(ring) == (AnnotationPart(ring),)


def blob(side: int, seed: int, roughness: int) -> np.ndarray:
    random = rng(seed)
    noise = random.random((roughness, roughness)).astype(np.float32)
    smooth = cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[:side, :side] / side - 0.5
    return np.asarray(smooth * 0.6 + 0.9 - 2.2 * np.hypot(x, y) > 0.5)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("side", [24, 120, 600])
def test_simplifying_loses_no_more_than_it_says(seed: int, side: int) -> None:
    ring = outlines(blob(side, seed, 5))[0].outer
    simple = simplify(ring, vertices=200)
    whole = fill([ring * 4], side * 4, side * 4)
    assert overlap(fill([simple * 4], side * 4, side * 4), whole) > 0.983
    assert side < 100 or len(simple) < 0.7 * len(ring)  # of steps alone nothing can be left out
    assert abs(area(simple)) == pytest.approx(abs(area(ring)), rel=0.01)


@pytest.mark.parametrize(
    "ring",
    [
        np.array(((0, 0), (300, 0), (300, 1), (0, 1)), np.float32),  # a line, nearly
        np.array([(x, 40 + 3 * np.sin(x / 9)) for x in range(300)]
                 + [(x, 43 + 3 * np.sin(x / 9)) for x in reversed(range(300))], np.float32),
        square(5, 5, 0),
    ],
    ids=["line", "thin wave", "point"],
)  # fmt: skip
def test_thin_rings_stay_rings(ring: np.ndarray) -> None:
    simple = simplify(ring, vertices=100)
    assert len(simple) >= 3
    assert np.isfinite(simple).all()
    if area(ring):
        size = (1300, 400)
        assert overlap(fill([simple * 4], *size), fill([ring * 4], *size)) > 0.9


def test_few_vertices_come_before_the_overlap() -> None:
    turns = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    radii = 100 + 30 * np.sin(turns * 25)
    gear = np.stack((radii * np.cos(turns), radii * np.sin(turns)), axis=1).astype(np.float32) + 150
    assert len(simplify(gear)) <= 40
    assert len(simplify(gear, vertices=1000)) > 40


@pytest.mark.parametrize("backwards", [False, True])
def test_offset_moves_every_edge_outwards(backwards: bool) -> None:
    ring = square(10, 10, 20)[:: -1 if backwards else 1]
    np.testing.assert_allclose(np.sort(offset(ring, 2), axis=0), np.sort(square(8, 8, 24), axis=0))


def test_union_joins_what_overlaps_and_keeps_what_does_not() -> None:
    hole = square(30, 30, 10)
    found = union(
        [Outline(square(0, 0, 50), (hole,)), Outline(square(40, 0, 50)), Outline(square(0, 100, 9))]
    )
    assert len(found) == 2
    assert abs(area(found[0].outer)) == pytest.approx(4500, rel=0.01)
    assert abs(area(found[0].holes[0])) == pytest.approx(100, rel=0.05)


def test_a_large_even_mask_costs_little_to_outline() -> None:
    """A few run lengths may state 67 million pixels."""
    mask = np.ones((8192, 8192), bool)
    mask[100:200, 50:60] = False
    tracemalloc.start()
    try:
        (piece,) = outlines(mask)
        assert tracemalloc.get_traced_memory()[1] < 200_000_000
    finally:
        tracemalloc.stop()
    assert area_of(piece.outer) == 8192**2
    assert [area_of(hole) for hole in piece.holes] == [1000]


def area_of(points: np.ndarray) -> float:
    x, y = points.astype(float).T
    return abs(float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())) / 2
