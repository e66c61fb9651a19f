"""Builds a permanent revision of a dataset after a request has changed it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from filelock import Timeout

from annotation.datasets import AnnotatedDatasets
from annotation.revision_builder import build
from annotation.tables import AnnotatedDataset
from dataset.store import DatasetStore
from errors import BackendUnavailable

BuildProject = Callable[[AnnotatedDataset], dict[str, Any]]
"""Builds a permanent revision of a dataset that belongs to an annotation tool's project."""


def revise(
    annotated: AnnotatedDatasets,
    datasets: DatasetStore,
    dataset: AnnotatedDataset,
    build_project: BuildProject,
) -> dict[str, Any]:
    """Build a permanent revision of a dataset; returns its card.

    Raises:
        BackendUnavailable: Other processes have locked the dataset for too long.
    """
    options = dataset.options
    try:
        if dataset.kind == "project":  # its labelling configuration defines the classes
            return build_project(dataset)
        return build(
            annotated,
            dataset,
            task=options.get("task") or datasets.get(dataset.id)["task"],
            names=options["names"],
            keypoint_names=options["keypoint_names"],
            keep=True,
        )
    except Timeout:
        raise BackendUnavailable(
            f"Other requests are still changing '{dataset.id}'. Nothing was changed. Try again."
        ) from None
