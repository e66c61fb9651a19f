"""Exports a dataset as a zip in an annotation tool's format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from annotation.confidence_bands import Bands
from annotation.datasets import AnnotatedDatasets
from annotation.export import entries, zipped
from annotation.history import exported, newest
from dataset.store import DatasetStore
from formats.annotations import Format


def export_zip(
    datasets: DatasetStore,
    annotated: AnnotatedDatasets,
    dataset_id: str,
    revision: int | None = None,
    form: Format | None = None,
    images: bool = True,
) -> tuple[str, Iterator[bytes]]:
    """A zip of a dataset's revision, created piece by piece while it is read.

    Reads files: call it, and the iterator, off the event loop.

    Args:
        datasets, annotated: The stores of the dataset and of its options.
        dataset_id: Id of the dataset.
        revision: Number of the revision; None: the newest.
        form: The format; None: the one that it was annotated for, or yolo.
        images: Whether the zip contains the image files.

    Returns:
        The zip's file name and its bytes.

    Raises:
        DatasetNotFound, NotFound: There is no such dataset or revision.
        ValidationFailed: The format cannot represent the dataset's annotations.
    """
    number = newest(datasets, dataset_id) if revision is None else revision
    data = exported(datasets, dataset_id, number)
    kind = form or export_format(datasets, annotated, dataset_id)
    pieces = zipped(entries(data, kind, images))
    first = next(pieces, b"")  # raises errors before the response begins
    return f"{dataset_id}-{number}-{kind}.zip", chain((first,), pieces)


def export_format(datasets: DatasetStore, annotated: AnnotatedDatasets, dataset_id: str) -> Format:
    """The format that a dataset was annotated for; yolo if none was given."""
    found: Format = _options(datasets, annotated, dataset_id).get("format", "yolo")
    return found


def confidence_bands(
    datasets: DatasetStore, annotated: AnnotatedDatasets, dataset_id: str
) -> Bands | None:
    """The confidence bands that a dataset was prelabelled with; None if it was not."""
    bands = _options(datasets, annotated, dataset_id).get("bands")
    return Bands.model_validate(bands) if bands else None


def _options(
    datasets: DatasetStore, annotated: AnnotatedDatasets, dataset_id: str
) -> Mapping[str, Any]:
    dataset = annotated.find(datasets.get(dataset_id).get("source") or "")
    return dataset.options if dataset is not None else {}
