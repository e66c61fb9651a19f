"""Class prototypes of a classifier: computed, stored, merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from training.incremental.class_prototypes import FILE, IMAGES, ClassPrototypes
from training.yolo.feature_extractor import ImageFeatures


class NameFeatures:
    """Stands for a feature extractor: the number in an image's name, and −1 times it."""

    def __init__(self) -> None:
        self.extracted: list[Path] = []

    def extract(self, images: Any, truth: Any, check: Any) -> ImageFeatures:
        self.extracted.extend(images)
        features = [[float(image.stem), -float(image.stem)] for image in images]
        return ImageFeatures(np.array(features, np.float32), np.zeros(len(features), np.float32))


def test_each_class_has_the_mean_of_its_first_images() -> None:
    images = {Path("1.jpg"): 2, Path("5.jpg"): 0, Path("3.jpg"): 2}
    images |= {Path(f"{7 + i}.jpg"): 3 for i in range(IMAGES + 5)}
    extractor: Any = NameFeatures()
    found = ClassPrototypes.measure(extractor, images, 5)
    middle = 7 + (IMAGES - 1) / 2
    assert found.means[:, 0].tolist() == [5.0, 0.0, 2.0, middle, 0.0]
    assert torch.equal(found.means[:, 1], -found.means[:, 0])
    assert found.counts.tolist() == [1, 0, 2, IMAGES, 0]
    assert len(extractor.extracted) == 3 + IMAGES


def test_they_are_kept_beside_the_weights(tmp_path: Path) -> None:
    assert ClassPrototypes.load(tmp_path) is None
    ClassPrototypes(torch.tensor([[1.0, 2.0]]), torch.tensor([3])).save(tmp_path)
    found = ClassPrototypes.load(tmp_path)
    assert found is not None
    assert found.means.tolist() == [[1.0, 2.0]]
    assert found.counts.tolist() == [3]
    (tmp_path / FILE).write_bytes(b"damaged")
    assert ClassPrototypes.load(tmp_path) is None


@pytest.mark.parametrize(
    ("means", "counts", "fits"),
    [
        ([[1.0, 2.0], [3.0, 4.0]], [5, 1], True),
        ([[1.0, 2.0], [3.0, 4.0]], [5, 0], False),  # nothing is known of one
        ([[1.0, 2.0]], [5], False),
        ([[1.0], [3.0]], [5, 1], False),
        ([[1.0, float("nan")], [3.0, 4.0]], [5, 1], False),
    ],
)
def test_only_what_fits_the_last_layer_is_used(means: Any, counts: Any, fits: bool) -> None:
    assert ClassPrototypes(torch.tensor(means), torch.tensor(counts)).fit(2, 2) is fits


def test_what_was_known_before_counts_by_its_pictures() -> None:
    before = ClassPrototypes(torch.tensor([[4.0], [1.0]]), torch.tensor([3, 2]))
    now = ClassPrototypes(torch.tensor([[0.0], [7.0], [9.0]]), torch.tensor([1, 0, 5]))
    found = now.with_known(before)
    assert found.means.tolist() == [[3.0], [1.0], [9.0]]
    assert found.counts.tolist() == [4, 2, 5]
