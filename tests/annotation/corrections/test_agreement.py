"""Two annotations of one image are equal in any order, up to rounding."""

from __future__ import annotations

import random

import pytest

from annotation.corrections.agreement import TOLERANCE, are_equal
from formats.annotations import Annotation, AnnotationPart, Annotations, Keypoint


def image(*objects: Annotation) -> Annotations:
    return Annotations("a.png", 640, 480, objects)


def boxes(count: int, offset: float = 0.0) -> list[Annotation]:
    """Boxes in rows and columns, so that many begin at the same coordinate."""
    return [
        Annotation(
            "car", box=(8.0 * (i % 40) + offset, 9.0 * (i // 40), 8.0 * (i % 40) + 7, 400.0 + i)
        )
        for i in range(count)
    ]


def test_order_and_rounding_do_not_matter() -> None:
    shuffled = boxes(500, offset=TOLERANCE / 2)
    random.Random(0).shuffle(shuffled)
    assert are_equal(image(*boxes(500)), image(*shuffled))


@pytest.mark.parametrize(
    "other",
    [
        Annotation("bus", box=(1, 2, 30, 40)),
        Annotation("car", box=(1, 2, 30, 40 + 2 * TOLERANCE)),
        Annotation("car", box=(1 - 2 * TOLERANCE, 2, 30, 40)),
        Annotation("car"),
        Annotation("car", parts=(AnnotationPart(((1, 2), (30, 2), (30, 40))),)),
        Annotation("car", box=(1, 2, 30, 40), keypoints=(Keypoint("nose", 9, 9),)),
    ],
)
def test_one_object_that_differs_makes_them_differ(other: Annotation) -> None:
    car = Annotation("car", box=(1, 2, 30, 40))
    assert are_equal(image(*boxes(9), car), image(car, *boxes(9)))
    assert not are_equal(image(*boxes(9), car), image(*boxes(9), other))
    assert not are_equal(image(*boxes(9), other), image(*boxes(9), car))


def test_each_object_is_matched_once() -> None:
    car, bus = Annotation("car", box=(1, 2, 30, 40)), Annotation("bus")
    assert not are_equal(image(car, car, bus), image(car, bus, bus))
    assert are_equal(image(bus, car, bus), image(bus, bus, car))
