"""The faces of the traffic signs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from synthetic.glyphs import rounded, text_mask
from synthetic.signs import CLASS_NAMES, draw_face
from tests.support.seeds import rng

GTSRB_WANTED = {
    "speed limit 30", "speed limit 50", "speed limit 70", "speed limit 80", "no passing",
    "right of way at next crossing", "priority road", "yield", "stop", "no vehicles", "no entry",
    "general caution", "bumpy road", "slippery road", "road work", "traffic signals",
    "children crossing", "turn right ahead", "ahead only", "keep right",
}  # fmt: skip


def test_class_names_are_plain_unique_words() -> None:
    assert len(set(CLASS_NAMES)) == len(CLASS_NAMES) >= 28
    assert set(CLASS_NAMES) >= GTSRB_WANTED
    assert all(name == name.lower().strip() and "_" not in name for name in CLASS_NAMES)


@pytest.mark.parametrize("class_id", range(len(CLASS_NAMES)), ids=CLASS_NAMES)
def test_face_is_an_rgba_square_that_fills_its_frame(class_id: int) -> None:
    face = draw_face(rng(class_id), class_id, 128)
    assert face.shape == (128, 128, 4)
    assert face.dtype == np.uint8
    rows, columns = np.nonzero(face[..., 3] > 127)
    assert columns.min() <= 5
    assert columns.max() >= 122
    assert rows.max() - rows.min() >= 100
    assert face[0, 0, 3] == 0


def test_a_seed_draws_the_same_face_again() -> None:
    for class_id in range(len(CLASS_NAMES)):
        first, again = (draw_face(rng(5), class_id, 96) for _ in range(2))
        assert np.array_equal(first, again)


def test_faces_of_one_class_differ_from_seed_to_seed() -> None:
    first, other = (draw_face(rng(seed), 0, 96) for seed in (1, 2))
    assert not np.array_equal(first, other)


def test_every_two_classes_look_different() -> None:
    faces = [draw_face(rng(3), class_id, 96).astype(int) for class_id in range(len(CLASS_NAMES))]
    for a, b in itertools.combinations(range(len(faces)), 2):
        differing = (np.abs(faces[a] - faces[b]).max(axis=2) > 60).mean()
        assert differing > 0.01, f"{CLASS_NAMES[a]} looks like {CLASS_NAMES[b]}"


def test_mirrored_signs_are_mirrored() -> None:
    left, right = CLASS_NAMES.index("keep left"), CLASS_NAMES.index("keep right")
    a, b = (draw_face(rng(9), i, 128).astype(int) for i in (left, right))
    assert np.abs(a[:, ::-1] - b).max(axis=2).mean() < np.abs(a - b).max(axis=2).mean() / 2


def test_rounded_polygon_stays_inside_its_corners() -> None:
    points = np.array(rounded([(0, -1), (1, 1), (-1, 1)], 0.3))
    assert points.min() > -1
    assert points[:, 1].max() <= 1


def test_text_is_cut_to_its_ink() -> None:
    mask = text_mask("STOP", "DejaVuSans-Bold.ttf")
    assert all(edge.any() for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
