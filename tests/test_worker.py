"""Which kinds of job the worker runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import worker
from database import Database
from errors import VisionLoopError
from jobs.store import JobStore
from jobs.worker import WorkerJob
from models_store.registry import Registry
from settings import Settings


def test_a_kind_without_an_implementation_fails_and_names_those_with_one(tmp_path: Path) -> None:
    store = JobStore(Database(Settings(home=tmp_path)))
    kind: Any = "polish"  # of a later version
    job = store.create(kind, config={}, recipe={})
    expected = (
        "Jobs of kind 'polish' cannot be run. Known kinds: training, evaluation, annotation, "
        "fetch, export, engine and import"
    )
    with pytest.raises(VisionLoopError, match=expected):
        worker.work(WorkerJob(store, job), job, Registry(store.database))
    store.database.close()
