"""Deletes datasets, and leftovers of batch annotations that were cancelled or never queued."""

from __future__ import annotations

import contextlib
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from annotation.datasets import AnnotatedDatasets
from dataset.store import CARD, DatasetStore
from errors import Conflict, DatasetNotFound
from jobs.store import JobStore
from settings import Settings

UPLOAD_PREFIX = "pictures-"  # folder names of uploaded images, in VISIONLOOP_HOME/uploads
MIN_AGE = 3600.0  # seconds; a younger folder may belong to a request that is not queued yet


def delete_dataset(
    dataset_id: str, datasets: DatasetStore, annotated: AnnotatedDatasets, jobs: JobStore
) -> None:
    """Delete a dataset with its annotations.

    A tool's project has a dataset before its first annotation; it can be deleted too.

    Raises:
        DatasetNotFound: No dataset has this id.
        Conflict: An unfinished job needs it.
    """
    try:
        datasets.get(dataset_id)
    except DatasetNotFound:
        if not annotated.is_project(dataset_id):
            raise
        built = False
    else:
        built = True
    folder = (datasets.folder / dataset_id).resolve()
    for job in jobs.list(None, "queued", "running", "stopping"):
        if _names_path_in(job.recipe, folder):
            raise Conflict(
                f"The job {job.id} uses '{dataset_id}'. Cancel the job, or wait until it ends."
            )
    if built:
        datasets.delete(dataset_id)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    annotated.delete(dataset_id)


def delete_leftovers(store: AnnotatedDatasets, jobs: JobStore, settings: Settings) -> None:
    """Delete old datasets of batch annotations without a card, and old uploaded images.

    Datasets and images that an unfinished job uses are kept.
    """
    recipes = [job.recipe for job in jobs.list("annotation", "queued", "running", "stopping")]
    needed = {recipe.get("dataset_id") for recipe in recipes}
    latest = (datetime.now(UTC) - timedelta(seconds=MIN_AGE)).isoformat(timespec="milliseconds")
    for dataset_id in store.batches_before(latest) - needed:
        folder = store.folder(dataset_id)
        if not (folder / CARD).exists() and _is_old(folder):
            shutil.rmtree(folder, ignore_errors=True)
            store.delete(dataset_id)
    used = {str(recipe.get("dataset")) for recipe in recipes}
    for folder in settings.paths.uploads.glob(f"{UPLOAD_PREFIX}*"):
        if str(folder) not in used and _is_old(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_old(folder: Path) -> bool:
    """Whether a folder is older than MIN_AGE or does not exist."""
    with contextlib.suppress(FileNotFoundError):
        return time.time() - folder.stat().st_mtime > MIN_AGE
    return True


def _names_path_in(value: Any, folder: Path) -> bool:
    """Whether a path in a recipe, at any depth, is inside a folder."""
    if isinstance(value, dict):
        return any(_names_path_in(part, folder) for part in value.values())
    if isinstance(value, list):
        return any(_names_path_in(part, folder) for part in value)
    return isinstance(value, str) and value[:1] == "/" and Path(value).is_relative_to(folder)
