from __future__ import annotations

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
        ("classify", (800, 75, 15, 5), 0.2, 0.2),
        ("classify", (200, 100, 15, 5), 0.3, 0.3),  # chosen by a person
        ("classify", (200, 100, 15, 0), 0.2, 0.2),  # no new class
        ("classify", (200, 0, 15, 5), 0.2, 0.0),  # no old image
        ("detect", (100, 128, 2, 1), 0.2, 0.4),  # no more than this
        ("detect", (250, 100, 2, 2), 0.2, 0.29),
        ("detect", (270, 270, 2, 2), 0.2, 0.35),  # seven tenths of equal frequency
        ("detect", (250, 750, 1, 3), 0.2, 0.2),
        ("segment", (250, 5, 15, 5), 0.2, 0.2),
        ("pose", (250, 750, 1, 1), 0.4, 0.4),
    ],
)
def test_the_share_of_old_images(
    task: Task, numbers: tuple[int, int, int, int], requested: float, ratio: float
) -> None:
    found = choose_settings(task, ImageNumbers(*numbers), requested, True)
    assert found.ratio == ratio
    assert not found.hold_features
    said = " ".join(found.sentences)
    assert (f"replay_ratio is {ratio:g} " in said) is (ratio not in (requested, 0.0))


@pytest.mark.parametrize(
    ("task", "numbers", "requested", "balanced"),
    [
        ("classify", (250, 750, 15, 5), 0.2, True),
        ("classify", (800, 200, 1, 4), 0.2, True),  # the default share is that of the old classes
        ("classify", (250, 749, 15, 5), 0.2, False),  # old classes are rarer than new ones
        ("classify", (800, 200, 1, 9), 0.2, False),  # and here more frequent
        ("classify", (30, 600, 80, 1), 0.2, False),
        ("classify", (250, 750, 15, 5), 0.75, False),  # chosen by a person
        ("classify", (250, 750, 15, 0), 0.2, False),
        ("detect", (250, 750, 15, 5), 0.2, False),
        ("classify", (250, 750, 15, 5, 1), 0.2, False),  # of one old class no image is kept
    ],
)
def test_nothing_holds_old_classes_that_are_as_frequent_as_new_ones(
    task: Task, numbers: tuple[int, ...], requested: float, balanced: bool
) -> None:
    found = choose_settings(task, ImageNumbers(*numbers), requested, True)
    assert found.balanced is balanced
    assert ("No loss holds the scores" in " ".join(found.sentences)) is balanced


@pytest.mark.parametrize(
    ("kept", "requested", "has_prototypes", "held"),
    [
        (20, 0.2, True, True),
        (74, 0.2, True, True),
        (75, 0.2, True, False),
        (20, 0.21, True, False),  # chosen by a person
        (20, 0.2, False, False),  # nothing could stand for the old classes
    ],
)
def test_with_few_old_images_the_features_are_held(
    kept: int, requested: float, has_prototypes: bool, held: bool
) -> None:
    numbers = ImageNumbers(new=50, kept=kept, old_classes=15, added=5)
    found = choose_settings("classify", numbers, requested, has_prototypes)
    assert found.hold_features is held
    assert (found.ratio == 0) is held
    if held:
        assert f"{kept} old images are kept for 15 old classes" in found.sentences[0]


@pytest.mark.parametrize(
    ("new", "requested", "held"),
    [(20, 0.2, True), (24, 0.2, True), (25, 0.2, False), (20, 0.5, False)],
)
def test_with_few_new_images_the_features_are_held(new: int, requested: float, held: bool) -> None:
    numbers = ImageNumbers(new=new, kept=750, old_classes=15, added=5)
    found = choose_settings("classify", numbers, requested, True)
    assert found.hold_features is held
    if held:
        assert f"there are {new} new images for 5 new classes" in found.sentences[0]
        assert "Give more images" in found.sentences[0]
