from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from tests.support.seeds import rng
from training.planning.options import CRITERIA, Criterion
from training.replay.selection import choose

RANDOM = rng(0)
RARE = np.zeros((100, 3), np.int64)  # one class a picture: 80 of the first, 15, 5
RARE[:80, 0] = RARE[80:95, 1] = RARE[95:, 2] = 1
FEATURES = RANDOM.normal(size=(100, 4)).astype(np.float32)
HARDNESS = np.linspace(0, 1, 100).astype(np.float32)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_memory_is_shared_among_the_classes(criterion: Criterion) -> None:
    taken = choose(RARE, 12, criterion, 0, FEATURES, HARDNESS)
    assert len(set(taken)) == 12
    assert RARE[taken].sum(axis=0).tolist() == [4, 4, 4]
    more = choose(RARE, 30, criterion, 0, FEATURES, HARDNESS)
    assert RARE[more].sum(axis=0).tolist() == [13, 12, 5]  # there are no more of the third


@pytest.mark.parametrize("criterion", CRITERIA)
def test_everything_is_kept_where_there_is_room(criterion: Criterion) -> None:
    assert choose(RARE, 1000, criterion, 0) == list(range(100))


def test_the_same_seed_chooses_the_same() -> None:
    assert choose(RARE, 9, "random", 3) == choose(RARE, 9, "random", 3)
    assert choose(RARE, 9, "random", 3) != choose(RARE, 9, "random", 4)


def test_objects_count_not_pictures() -> None:
    counts = np.array([[9, 0], [1, 0], [1, 0], [0, 1], [0, 1], [0, 1]])
    hardness = np.array([0.9, 0.5, 0.4, 0.9, 0.3, 0.2], np.float32)
    assert choose(counts, 4, "hardness", 0, None, hardness) == [0, 3, 4, 5]  # nine against three


def test_pictures_without_an_object_come_last() -> None:
    counts = np.array([[0, 0], [1, 0], [0, 0], [0, 2]])
    taken = choose(counts, 3, "herding", 0, FEATURES[:4])
    assert set(taken[:2]) == {1, 3}
    assert taken[2] in (0, 2)


def by_definition(counts: Any, amount: int, criterion: Criterion, features: Any) -> list[int]:
    """`choose` written down without any thought of speed."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    taken: list[int] = []
    for _ in range(amount):
        free = [i for i in range(len(counts)) if i not in taken]
        held = counts[taken].sum(axis=0) if taken else np.zeros(counts.shape[1])
        here = [cls for cls in range(counts.shape[1]) if counts[free][:, cls].any()]
        cls = min(here, key=lambda cls: held[cls])
        candidates = [i for i in free if counts[i, cls]]
        if criterion == "herding":
            mine = [i for i in range(len(counts)) if counts[i, cls]]
            own = [i for i in taken if i in mine]
            target = unit[mine].mean(axis=0)
            away = [np.linalg.norm(unit[[*own, i]].mean(axis=0) - target) for i in candidates]
        elif taken:
            away = [-min(np.linalg.norm(unit[i] - unit[j]) for j in taken) for i in candidates]
        else:
            away = list(np.linalg.norm(unit[candidates] - unit[candidates].mean(axis=0), axis=1))
        taken.append(candidates[int(np.argmin(away))])
    return taken


@pytest.mark.parametrize("criterion", ["herding", "k_centre"])
def test_the_quick_way_chooses_as_the_definition_says(criterion: Criterion) -> None:
    random = rng(1)
    counts = random.poisson(0.5, (60, 4))
    counts[counts.sum(axis=1) == 0, 0] = 1
    features = random.normal(size=(60, 8)).astype(np.float32)
    expected = by_definition(counts, 40, criterion, features)
    assert choose(counts, 40, criterion, 0, features) == expected


def test_a_large_memory_of_many_pictures_is_chosen_in_time() -> None:
    """Once, each pick summed up the table of all pictures: an hour for a data set like COCO."""
    random = rng(0)
    counts = random.poisson(0.04, (60_000, 80))
    began = time.process_time()
    assert len(set(choose(counts, 5_000, "random", 0))) == 5_000
    assert time.process_time() - began < 20


def test_herding_meets_the_mean_and_k_centre_the_corners() -> None:
    counts = np.ones((5, 1), np.int64)
    angles = np.deg2rad([0, 40, 45, 50, 90])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert choose(counts, 1, "herding", 0, features) == [2]
    assert set(choose(counts, 3, "k_centre", 0, features)) == {0, 2, 4}


def test_the_hardest_are_taken_but_for_the_noise() -> None:
    counts = np.ones((100, 1), np.int64)
    taken = choose(counts, 5, "hardness", 0, None, HARDNESS)
    assert max(taken) < 91
    assert min(taken) > 80
