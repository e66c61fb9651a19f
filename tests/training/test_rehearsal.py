from __future__ import annotations

import numpy as np
import pytest

from training.rehearsal import CRITERIA, Criterion, choose

RANDOM = np.random.default_rng(0)
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
    counts = np.array([[9, 0], [1, 0], [0, 1], [0, 1], [0, 1], [0, 1]])
    taken = choose(counts, 4, "hardness", 0, None, np.array([0.9, 0.1, 0.3, 0.2, 0.1, 0.0]))
    assert 0 in taken or 1 in taken
    assert counts[taken][:, 1].sum() >= 2


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
