"""Where the pictures of each class lie among a classifier's features, kept beside its weights.

A classifier that is to learn further classes without a single old picture has only these
(`translation`): 1,280 numbers a class, from which no picture can be seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.yolo.feature_extractor import Check, FeatureExtractor

FILE = "class_means.safetensors"  # in a classifier's model folder
LOOKED_AT = 50  # pictures of a class, at most


@dataclass(frozen=True)
class ClassPrototypes:
    """Mean features of a classifier's classes.

    Attributes:
        means: What the last layer is given, on average (classes, dimensions).
        counts: Over how many pictures of each class (classes,); 0: nothing is known of it.
    """

    means: Tensor
    counts: Tensor

    @classmethod
    def measure(
        cls,
        extractor: FeatureExtractor,
        images: Mapping[Path, int],
        classes: int,
        check: Check = lambda: None,
    ) -> ClassPrototypes:
        """Look at the first pictures of each class.

        Args:
            extractor: The classifier.
            images: Picture → class id.
            classes: How many there are.
            check: Called between batches; may raise.
        """
        return cls.of(*look_at(extractor, images, check), classes)

    @classmethod
    def of(cls, features: Tensor, own: Tensor, classes: int) -> ClassPrototypes:
        """The means of features (n, dimensions) whose classes are `own` (n,)."""
        counts = torch.bincount(own, minlength=classes)
        sums = torch.zeros(classes, features.shape[1]).index_add_(0, own, features)
        return cls(sums / counts[:, None].clamp(min=1), counts)

    @classmethod
    def load(cls, folder: Path) -> ClassPrototypes | None:
        """Those of a model folder, if it has any that can be read."""
        try:
            found = load_file(folder / FILE)
            return cls(found["means"].float(), found["counts"].long())
        except (OSError, SafetensorError, KeyError):
            return None

    def save(self, folder: Path) -> None:
        """Write them into a model folder."""
        save_file({"means": self.means.contiguous(), "counts": self.counts}, folder / FILE)

    def fit(self, classes: int, dimensions: int) -> bool:
        """Whether they are those of a last layer of that size, and known for every class."""
        sizes = self.means.shape == (classes, dimensions) and self.counts.shape == (classes,)
        return bool(sizes and (self.counts > 0).all() and self.means.isfinite().all())

    def with_known(self, before: ClassPrototypes) -> ClassPrototypes:
        """Together with those that the same features had before, of the first classes.

        Each class's mean is over the pictures of both.
        """
        old = len(before.counts)
        counts = self.counts.clone()
        counts[:old] += before.counts
        sums = self.means * self.counts[:, None]
        sums[:old] += before.means * before.counts[:, None]
        return ClassPrototypes(sums / counts[:, None].clamp(min=1), counts)


def look_at(
    extractor: FeatureExtractor, images: Mapping[Path, int], check: Check = lambda: None
) -> tuple[Tensor, Tensor]:
    """Features (n, dimensions) of the first pictures of each class, and their classes (n,).

    Args:
        extractor: The classifier.
        images: Picture → class id.
        check: Called between batches; may raise.
    """
    some: dict[int, list[Path]] = {}
    for image, own in images.items():
        if len(some.setdefault(own, [])) < LOOKED_AT:
            some[own].append(image)
    chosen = [image for found in some.values() for image in found]
    features = torch.from_numpy(extractor.look(chosen, dict.fromkeys(chosen, ()), check).features)
    return features, torch.tensor([images[image] for image in chosen])
