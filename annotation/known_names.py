"""The class names of a dataset, and how names as people and tools write them map to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from annotation.tables import AnnotatedDataset
from dataset.class_matching import tidy
from formats.annotations import Annotations, keypoint_labels


def names_of(
    card: Mapping[str, Any], dataset: AnnotatedDataset | None
) -> tuple[list[str], list[str]]:
    """The class names and keypoint names of a dataset.

    Args:
        card: The dataset's card.
        dataset: Its row in the annotation store; None for an upload that was never corrected.
    """
    options = dataset.options if dataset is not None else {}
    names = list(options.get("names") or card["classes"])
    points = list(options.get("keypoint_names") or ())
    if not points and card.get("keypoints"):
        points = list(keypoint_labels(None, card["keypoints"][0]))
    return names, points


def with_known_names(found: Annotations, names: Sequence[str]) -> Annotations:
    """The annotations with class names spelled as in the dataset; `tidy` is applied to new names.

    Names that are equal after `tidy` are one class, because users cannot see their difference.
    """
    known = {tidy(name): name for name in reversed(names)}
    objects = tuple(
        thing
        if thing.label in names
        else replace(thing, label=known.get(tidy(thing.label), tidy(thing.label)))
        for thing in found.objects
    )
    return replace(found, objects=objects)
