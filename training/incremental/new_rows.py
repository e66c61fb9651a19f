"""The rows of a classifier's new classes, and the prototypes that they are trained with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from dataset.dataset import Dataset
from models_store.shared.model_trees import located
from settings import get_settings
from training.incremental.class_prototypes import ClassPrototypes, class_features
from training.incremental.feature_translation import (
    PrototypeTranslation,
    Translation,
    WeightTranslation,
    train_new_rows,
)
from training.incremental.head_expansion import imprint
from training.incremental.losses import Strength
from training.planning.class_union import ClassUnion
from training.planning.recipe import Recipe
from training.replay.merged_dataset import MergedDataset
from training.start_weights import Start, last_layer
from training.yolo.feature_extractor import FeatureExtractor

if TYPE_CHECKING:
    from jobs.handle import JobHandle


def initialise_rows(
    start: Start,
    union: ClassUnion,
    new: Dataset,
    old_prototypes: ClassPrototypes | None,
    extractor: FeatureExtractor,
    seed: int,
    job: JobHandle,
) -> ClassPrototypes:
    """Initialise a classifier's new rows from the old network's features of new images.

    Returns:
        The prototypes of the new classes.
    """
    ids = union.ids(new.names)
    images = {
        image: cls
        for image in new.scan().splits["train"]
        if (cls := ids[new.classes[image]]) is not None and cls >= union.old
    }
    features, own = class_features(extractor, images, job.check)
    found = ClassPrototypes.of(features, own, len(union.names))
    linear = last_layer(start.model).cpu()
    imprint(linear, found.means, found.counts > 0, union.old)
    old = last_layer(extractor.model).cpu()
    translation = translation_of(old, found, old_prototypes, Strength())
    train_new_rows(linear, features, own, union.old, translation, seed)
    return found


def translation_of(
    old: nn.Linear,
    new_prototypes: ClassPrototypes,
    old_prototypes: ClassPrototypes | None,
    strength: Strength,
) -> Translation:
    """The translation of features to old classes: by prototypes, or along the old weights."""
    if old_prototypes is None:
        return WeightTranslation(old, strength.margin)
    means = new_prototypes.with_known(old_prototypes).means.to(old.weight.device)
    return PrototypeTranslation(means, strength.spread)


def published_prototypes(before: Start, recipe: Recipe) -> ClassPrototypes | None:
    """The prototypes that the base model was published with, if they are valid here.

    Features depend on the image size, so that of the base model has to be the recipe's.
    """
    how = before.preprocessing
    if recipe.origin.kind != "model" or how is None or how.imgsz != recipe.imgsz:
        return None
    found = ClassPrototypes.load(located(recipe.origin.value, get_settings()))
    linear = last_layer(before.model)
    fits = found is not None and found.fit(linear.out_features, linear.in_features)
    return found if fits else None


def known_prototypes(
    published: ClassPrototypes | None,
    union: ClassUnion,
    dataset: MergedDataset,
    buffer: tuple[Path, ...],
    extractor: FeatureExtractor,
    job: JobHandle,
) -> ClassPrototypes | None:
    """The old classes' prototypes: published, or measured on the replay buffer if there is one."""
    if buffer:
        if published is not None:
            return published
        return _measured_prototypes(union, dataset, extractor, job)
    has = "has" if published is not None else "lacks"
    job.log(
        f"The base model {has} class prototypes (mean features) at imgsz {extractor.how.imgsz}, "
        "which can be used in place of old images."
    )
    return published


def _measured_prototypes(
    union: ClassUnion, dataset: MergedDataset, extractor: FeatureExtractor, job: JobHandle
) -> ClassPrototypes | None:
    """The prototypes of the replay buffer's images, if it has images of every old class."""
    assert dataset.replayed is not None
    images = {image: dataset.classes[image] for image in dataset.replayed.splits["train"]}
    known = {image: cls for image, cls in images.items() if cls < union.old}
    found = ClassPrototypes.measure(extractor, known, union.old, job.check)
    return found if bool((found.counts > 0).all()) else None
