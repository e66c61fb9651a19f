from __future__ import annotations

from typing import Any

import pytest

from models_store.description import Task
from training.incremental.own_settings import ImageNumbers, choose_settings


@pytest.mark.parametrize(
    ("task", "numbers", "requested", "ratio"),
    [
        ("classify", (250, 750, 15, 5), 0.2, 0.75),  # all classes equally frequent
        ("classify", (250, 500, 10, 5), 0.2, 0.67),
        ("classify", (30, 600, 80, 1), 0.2, 0.75),  # no more than this
        ("classify", (200, 100, 15, 5), 0.2, 0.33),  # no old image more often than a new one
        ("classify", (200, 5, 15, 5), 0.2, 0.2),
        ("classify", (200, 100, 15, 5), 0.3, 0.3),  # chosen by a person
        ("classify", (200, 100, 15, 0), 0.2, 0.2),  # no new class
        ("classify", (200, 0, 15, 5), 0.2, 0.0),  # no old image
        ("detect", (250, 750, 15, 5), 0.2, 0.2),
    ],
)
def test_the_share_of_old_images(
    task: Task, numbers: tuple[int, int, int, int], requested: float, ratio: float
) -> None:
    found = choose_settings(task, ImageNumbers(*numbers), requested, 50, 8)
    assert found.ratio == ratio
    assert bool(found.sentences) is (ratio not in (requested, 0.0))
    assert all(f"replay_ratio is {ratio:g}" in sentence for sentence in found.sentences)


@pytest.mark.parametrize(
    ("epochs", "batch", "longer"),
    [(50, 8, 50), (8, 8, 13), (8, 64, 80), (5, 64, 50), (1, 64, 1), (4, 64, 4)],
)
def test_a_short_training_lasts_longer(epochs: int, batch: int, longer: int) -> None:
    numbers: Any = ImageNumbers(new=51, kept=20, old_classes=2, added=1)
    found = choose_settings("detect", numbers, 0.2, epochs, batch)
    assert found.epochs == longer
    assert any(f"lasts {longer} epochs instead of {epochs}" in s for s in found.sentences) is (
        longer > epochs
    )
