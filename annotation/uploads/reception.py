"""Receives an upload: stores it as a dataset, and images alone as one that people annotate."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from typing import Any

from filelock import Timeout

from annotation.browse.browser import DatasetBrowser
from annotation.datasets import AnnotatedDatasets
from annotation.originals import adopt
from annotation.uploads.upload import Content, UploadOptions, keyed_id, store_upload
from dataset.image_scan import Progress, no_progress
from dataset.store import DatasetStore
from errors import BackendUnavailable, VisionLoopError

PATIENCE = 600.0  # seconds to wait while the same upload is received elsewhere
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

    The arguments, the answer and the errors are those of `store_upload`. An upload with a key, or
    an id, that is a dataset already is not stored again, even if several machines receive it.

    Raises:
        BackendUnavailable: The same upload has been on its way elsewhere for too long.
    """
    dataset_id = dataset_id or keyed_id(datasets, content, options)
    if not dataset_id:
        return _receive(datasets, annotated, content, options, dataset_id, progress)
    # One of 256 locks, since their files stay. Its row says in the end whether there is a dataset.
    has_store = annotated.database.settings.store_url is not None
    lock = f"upload-{hashlib.sha256(dataset_id.encode()).hexdigest()[:2]}"
    try:
        with annotated.database.exclusive(lock, PATIENCE, across_homes=has_store):
            if datasets.exists(dataset_id):
                return datasets.get(dataset_id)
            return _receive(datasets, annotated, content, options, dataset_id, progress)
    except Timeout:
        raise BackendUnavailable(
            "The same upload is being received elsewhere. Try again later."
        ) from None


def _receive(
    datasets: DatasetStore,
    annotated: AnnotatedDatasets,
    content: Content,
    options: UploadOptions,
    dataset_id: str,
    progress: Progress,
) -> dict[str, Any]:
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
