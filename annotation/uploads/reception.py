"""Receives an upload: stores it as a dataset, and images alone as one that people annotate."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Any

from annotation.browse.browser import DatasetBrowser
from annotation.datasets import AnnotatedDatasets
from annotation.originals import adopt
from annotation.uploads.upload import Content, UploadOptions, store_upload
from dataset.image_scan import Progress, no_progress
from dataset.store import DatasetStore
from errors import VisionLoopError

IMAGES_ALONE = "images"  # `source_format` of an upload without annotations


def receive(
    datasets: DatasetStore,
    annotated: AnnotatedDatasets,
    content: Content,
    options: UploadOptions,
    dataset_id: str = "",
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Store an upload as a dataset; its images are in the annotation queue if none is annotated.

    The arguments, the answer and the errors are those of `store_upload`.
    """
    card = store_upload(datasets, content, options, dataset_id, progress)
    if card["source_format"] == IMAGES_ALONE:
        try:
            adopt(annotated, datasets, card["id"])
        except BaseException:
            annotated.delete(card["id"])
            datasets.delete(card["id"])
            raise
    with contextlib.suppress(
        VisionLoopError, OSError, sqlite3.Error
    ):  # it is made again by the first listing
        DatasetBrowser(datasets, annotated.entries).prepare(card["id"])
    return card
