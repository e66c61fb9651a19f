"""Class prototypes: the mean feature vector of each class of a classifier, stored with its weights.

If the classifier later learns new classes without old images, the prototypes represent the old
classes (`feature_translation`). They are 1,280 numbers per class; images cannot be reconstructed
from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models_store.description import Preprocessing
from settings import get_settings
from training.planning.recipe import Recipe
from training.training_data import TrainingData
from training.yolo.feature_extractor import Check, FeatureExtractor
from training.yolo.run import TrainerExtension

if TYPE_CHECKING:
    from jobs.handle import JobHandle

FILE = "class_means.safetensors"  # in a classifier's model folder
IMAGES = 50  # maximum number of images per class that features are computed for


@dataclass(frozen=True)
class ClassPrototypes:
    """Mean features of a classifier's classes.

    Attributes:
        means: Mean inputs of the last layer (classes, dimensions).
        counts: Number of images in each mean (classes,); 0: the class has no prototype.
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
        """Compute the prototypes from the first images of each class.

        Args:
            extractor: The classifier.
            images: Image → class id.
            classes: The number of classes.
            check: Called between batches; may raise.
        """
        return cls.of(*class_features(extractor, images, check), classes)

    @classmethod
    def of(cls, features: Tensor, own: Tensor, classes: int) -> ClassPrototypes:
        """Prototypes from features (n, dimensions) and their class ids `own` (n,)."""
        counts = torch.bincount(own, minlength=classes)
        sums = torch.zeros(classes, features.shape[1]).index_add_(0, own, features)
        return cls(sums / counts[:, None].clamp(min=1), counts)

    @classmethod
    def load(cls, folder: Path) -> ClassPrototypes | None:
        """Read the prototypes in a model folder; None if there are none, or they are damaged."""
        try:
            found = load_file(folder / FILE)
            return cls(found["means"].float(), found["counts"].long())
        except (OSError, SafetensorError, KeyError):
            return None

    def save(self, folder: Path) -> None:
        """Write the prototypes into a model folder."""
        save_file({"means": self.means.contiguous(), "counts": self.counts}, folder / FILE)

    def fit(self, classes: int, dimensions: int) -> bool:
        """Whether every class has a prototype, and the shape matches a last layer of that size."""
        sizes = self.means.shape == (classes, dimensions) and self.counts.shape == (classes,)
        return bool(sizes and (self.counts > 0).all() and self.means.isfinite().all())

    def with_known(self, before: ClassPrototypes) -> ClassPrototypes:
        """Merge with earlier prototypes; means are weighted by their numbers of images.

        Args:
            before: Prototypes of the first classes, in the same feature space.
        """
        old = len(before.counts)
        counts = self.counts.clone()
        counts[:old] += before.counts
        sums = self.means * self.counts[:, None]
        sums[:old] += before.means * before.counts[:, None]
        return ClassPrototypes(sums / counts[:, None].clamp(min=1), counts)


def class_features(
    extractor: FeatureExtractor, images: Mapping[Path, int], check: Check = lambda: None
) -> tuple[Tensor, Tensor]:
    """Features (n, dimensions) of the first images of each class, and their classes (n,).

    Args:
        extractor: The classifier.
        images: Image → class id.
        check: Called between batches; may raise.
    """
    by_class: dict[int, list[Path]] = {}
    for image, own in images.items():
        if len(by_class.setdefault(own, [])) < IMAGES:
            by_class[own].append(image)
    chosen = [image for found in by_class.values() for image in found]
    found = extractor.extract(chosen, dict.fromkeys(chosen, ()), check)
    return torch.from_numpy(found.features), torch.tensor([images[image] for image in chosen])


class Training(Protocol):
    """A training of either family: `yolo.run.Run` or `mobilenet.trainer.Session`."""

    @property
    def recipe(self) -> Recipe: ...

    @property
    def dataset(self) -> TrainingData: ...

    @property
    def job(self) -> JobHandle: ...


@dataclass(frozen=True)
class StorePrototypes(TrainerExtension):
    """Trainer extension: stores the prototypes of a trained classifier in its model folder.

    Attributes:
        known: Prototypes of the old classes in the same feature space, to be merged in; None if
            there are none, or training changed the features.
        how: The network's preprocessing; None: that of YOLO.
    """

    known: ClassPrototypes | None = None
    how: Preprocessing | None = None

    def model_saved(self, run: Training, model: nn.Module, folder: Path) -> None:
        """Compute the prototypes of a classifier from training images; other models have none."""
        if run.recipe.task != "classify":
            return
        gpu = torch.cuda.is_available() and get_settings().device != "cpu"
        device = torch.device("cuda" if gpu else "cpu")
        extractor = FeatureExtractor(model, "classify", run.recipe.imgsz, device, self.how)
        classes = run.dataset.classes
        images = {image: classes[image] for image in run.dataset.scan().splits["train"]}
        found = ClassPrototypes.measure(extractor, images, len(run.dataset.names), run.job.check)
        if self.known is not None:
            found = found.with_known(self.known)
        found.save(folder)
