"""Deletes datasets, and leftovers of uploads and batch annotations that were cancelled."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from annotation.datasets import AnnotatedDatasets
from annotation.drafts.store import DraftStore
from dataset.shared import uploads
from dataset.store import DatasetStore
from errors import Conflict, DatasetNotFound
from jobs.store import JobStore
from settings import Settings

MIN_AGE = 3600.0  # seconds; a younger folder may belong to a request that is not queued yet


def delete_dataset(
    dataset_id: str,
    datasets: DatasetStore,
    annotated: AnnotatedDatasets,
    jobs: JobStore,
    discard_drafts: bool = False,
) -> None:
    """Delete a dataset with its annotations.

    A tool's project has a dataset before its first annotation; it can be deleted too.

    Args:
        dataset_id: Id of the dataset.
        datasets, annotated, jobs: The stores.
        discard_drafts: Delete what people have drawn and not committed, too.

    Raises:
        DatasetNotFound: No dataset has this id.
        Conflict: An unfinished job needs it, or there are drafts and `discard_drafts` is false.
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
    if not discard_drafts:
        _refuse_drafts(dataset_id, DraftStore(annotated.database))
    if built:
        datasets.delete(dataset_id)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    annotated.delete(dataset_id)
    index = annotated.database.settings.paths.image_index / dataset_id
    shutil.rmtree(index, ignore_errors=True)


def _refuse_drafts(dataset_id: str, drafts: DraftStore) -> None:
    """Raises Conflict if people have drawn on images of a dataset and not committed it."""
    count: Counter[str] = Counter()
    for (author, _), number in drafts.page(dataset_id, 0).counts.items():
        count[author] += number
    if count:
        people = ", ".join(f"{author} ({number})" for author, number in count.most_common(5))
        raise Conflict(
            f"'{dataset_id}' has {count.total()} drafts that are not committed, by {people}. "
            "Commit or discard them first, or delete them with it: discard_drafts=true."
        )


@dataclass(frozen=True)
class Leftover:
    """What a batch annotation left that was cancelled or never queued.

    Attributes:
        folder: Its files; they may be missing.
        dataset_id: The dataset whose rows belong to it; None for uploaded images.
    """

    folder: Path
    dataset_id: str | None = None


def leftovers(
    store: AnnotatedDatasets, jobs: JobStore, settings: Settings, min_age: float = MIN_AGE
) -> Iterator[Leftover]:
    """Old datasets of batch annotations without a card, and old uploaded images.

    Those that an unfinished job uses are none.

    Args:
        store, jobs, settings: Where they are looked for.
        min_age: Age in seconds from which they are old; at least MIN_AGE.
    """
    min_age = max(min_age, MIN_AGE)
    recipes = [
        job.recipe
        for kind in ("annotation", "import")
        for job in jobs.list(kind, "queued", "running", "stopping")
    ]
    needed = {recipe.get("dataset_id") for recipe in recipes}
    latest = (datetime.now(UTC) - timedelta(seconds=min_age)).isoformat(timespec="milliseconds")
    for dataset_id in store.batches_before(latest) - needed:
        folder = store.folder(dataset_id)
        if not store.is_built(dataset_id) and _is_old(folder, min_age):
            yield Leftover(folder, dataset_id)
    used = {Path(str(recipe.get("dataset"))).name for recipe in recipes}
    for folder in settings.paths.uploads.glob(f"{uploads.PREFIX}*"):
        if folder.name not in used and _is_old(folder, min_age):
            yield Leftover(folder)
    for folder in uploads.lost(used, settings, min_age):
        if not folder.exists():
            yield Leftover(folder)


def delete_leftover(store: AnnotatedDatasets, found: Leftover) -> None:
    """Delete one of `leftovers`: its files, then its rows."""
    if found.dataset_id is None:
        uploads.discard(found.folder, store.database.settings)
    else:
        shutil.rmtree(found.folder, ignore_errors=True)
        store.delete(found.dataset_id)


def delete_leftovers(store: AnnotatedDatasets, jobs: JobStore, settings: Settings) -> None:
    """Delete all `leftovers`."""
    for found in list(leftovers(store, jobs, settings)):
        delete_leftover(store, found)


def _is_old(folder: Path, min_age: float) -> bool:
    """Whether a folder is older than `min_age` or does not exist."""
    with contextlib.suppress(FileNotFoundError):
        return time.time() - folder.stat().st_mtime > min_age
    return True


def _names_path_in(value: Any, folder: Path) -> bool:
    """Whether a path in a recipe, at any depth, is inside a folder."""
    if isinstance(value, dict):
        return any(_names_path_in(part, folder) for part in value.values())
    if isinstance(value, list):
        return any(_names_path_in(part, folder) for part in value)
    return isinstance(value, str) and value[:1] == "/" and Path(value).is_relative_to(folder)
