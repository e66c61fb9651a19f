"""What batch annotations leave that were cancelled, failed, or never begun."""

from __future__ import annotations

import contextlib
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import select

from annotation.recipe import SOURCE
from annotation.store import AnnotatedDataset, AnnotatedDatasets
from dataset.store import CARD
from jobs.store import JobStore
from settings import Settings

UPLOADED = "pictures-"  # how folders of uploaded pictures begin, in VISIONLOOP_HOME/uploads
YOUNG = 3600.0  # seconds in which a request may still be on its way into the queue


def clear_leftovers(store: AnnotatedDatasets, jobs: JobStore, settings: Settings) -> None:
    """Remove data sets without a card and uploaded pictures that no live job names."""
    recipes = [job.recipe for job in jobs.list("annotation", "queued", "running", "stopping")]
    needed = {recipe.get("dataset_id") for recipe in recipes}
    latest = (datetime.now(UTC) - timedelta(seconds=YOUNG)).isoformat(timespec="milliseconds")
    row = AnnotatedDataset
    query = select(row.id).where(row.source.startswith(SOURCE), row.created_at <= latest)
    with store.database.read() as session:
        made = set(session.scalars(query))
    for dataset_id in made - needed:
        folder = store.folder(dataset_id)
        if not (folder / CARD).exists() and _is_old(folder):
            shutil.rmtree(folder, ignore_errors=True)
            store.forget(dataset_id)
    used = {str(recipe.get("dataset")) for recipe in recipes}
    for folder in (settings.paths.uploads).glob(f"{UPLOADED}*"):
        if str(folder) not in used and _is_old(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_old(folder: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return time.time() - folder.stat().st_mtime > YOUNG
    return True
