"""What a job reads, on the machine that runs it: datasets and uploaded files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from database import Database
from dataset.shared import uploads
from dataset.shared.datasets import shared_datasets


def have_inputs(recipe: Mapping[str, Any], database: Database) -> None:
    """Download the datasets and uploaded files that a recipe names by their paths in the home.

    Raises:
        TreeNotFound: Uploaded files were deleted.
        StoreUnavailable, StoreRefused, StoreDamaged, InsufficientStorage: As `TreeStore.get`.
    """
    shared = shared_datasets(database)
    if shared is None:
        return
    places = database.settings.paths
    datasets, uploaded = places.datasets.resolve(), places.uploads.resolve()
    for text in dict.fromkeys(_paths(recipe)):
        path = Path(text)
        if path != datasets and path.is_relative_to(datasets):
            shared.local(path.relative_to(datasets).parts[0])
        elif path != uploaded and path.is_relative_to(uploaded):
            uploads.have(uploaded / path.relative_to(uploaded).parts[0], database.settings)


def _paths(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value.startswith("/"):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _paths(part)
