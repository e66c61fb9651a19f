from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from inference.agreement import box_iou, measure_agreement
from inference.prediction import Prediction
from models_store.description import Task

NAMES = ("car", "dog", "stop")
CAR, DOG, STOP = range(3)
Seen = list[tuple[int, tuple[float, float, float, float]]]

A, B = (0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 60.0, 60.0)
HALF_OF_A = (0.0, 0.0, 10.0, 5.0)  # IoU 0.5
LESS_OF_A = (0.0, 0.0, 10.0, 4.9)  # IoU 0.49


def seen(objects: Seen, task: Task = "detect", names: tuple[str, ...] = NAMES) -> Prediction:
    boxes = np.array([box for _, box in objects], np.float32).reshape(-1, 4)
    ids = np.array([class_id for class_id, _ in objects], np.int64)
    scores = np.linspace(0.9, 0.3, len(objects)).astype(np.float32)
    return Prediction(task, names, 100, 100, ids, scores, boxes)


@pytest.mark.parametrize(
    ("live", "candidate", "score"),
    [
        ([], [], 1.0),
        ([(CAR, A)], [], 0.0),
        ([], [(CAR, A)], 0.0),
        ([(CAR, A)], [(CAR, A)], 1.0),
        ([(CAR, A)], [(DOG, A)], 0.0),
        ([(CAR, A)], [(CAR, HALF_OF_A)], 1.0),
        ([(CAR, A)], [(CAR, LESS_OF_A)], 0.0),
        ([(CAR, A), (DOG, B)], [(CAR, A)], 2 / 3),
        ([(CAR, A)], [(CAR, A), (CAR, A)], 2 / 3),  # one to one
        ([(CAR, A), (CAR, HALF_OF_A)], [(CAR, HALF_OF_A), (CAR, A)], 1.0),  # best pairs first
        ([(CAR, (5, 5, 5, 5))], [(CAR, (5, 5, 5, 5))], 0.0),  # without area
    ],
)
def test_boxes_agree_by_class_and_place(live: Seen, candidate: Seen, score: float) -> None:
    assert measure_agreement(seen(live), seen(candidate)).score == pytest.approx(score)
    assert measure_agreement(seen(candidate), seen(live)).score == pytest.approx(score)


def test_objects_are_counted_by_class() -> None:
    found = measure_agreement(seen([(CAR, A), (DOG, B), (STOP, B)]), seen([(CAR, A), (DOG, A)]))
    assert found.live == Counter(car=1, dog=1, stop=1)
    assert found.candidate == Counter(car=1, dog=1)
    assert found.matched == Counter(car=1)


def test_classes_are_joined_by_name() -> None:
    other = seen([(0, A)], names=("stop",))
    assert measure_agreement(seen([(STOP, A)]), other).score == 1
    assert measure_agreement(seen([(CAR, A)]), other).score == 0


@pytest.mark.parametrize(
    ("live", "candidate", "score"),
    [([CAR, DOG], [CAR, STOP], 1), ([CAR, DOG], [DOG, CAR], 0), ([], [], 1), ([CAR], [], 0)],
)
def test_classifications_agree_on_the_best_class(
    live: list[int], candidate: list[int], score: float
) -> None:
    sides = [[(class_id, A) for class_id in side] for side in (live, candidate)]
    assert measure_agreement(seen(sides[0], "classify"), seen(sides[1], "classify")).score == score


def test_iou_of_nothing_has_its_shape() -> None:
    assert box_iou(np.zeros((0, 4), np.float32), np.zeros((3, 4), np.float32)).shape == (0, 3)
