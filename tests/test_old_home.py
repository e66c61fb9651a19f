"""A home of the version before the packages were laid out anew opens, and answers as it did.

`support/old_home.tar.gz` was made by a server of commit 5881e4d:

    git worktree add --detach OLD 5881e4d
    cd OLD
    export PYTHONPATH=.
    python REPOSITORY/tests/support/make_old_home.py /tmp/visionloop-old-home OUT.tar.gz

It holds the database and the files of VISIONLOOP_HOME, the descriptions of the models without their
weights, and `answers.json`: what that version's application answered for every GET route.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy import select

from annotation.recipe import AnnotationRecipe
from api.app import create_app, with_middleware
from database import Database
from evaluation.recipe import EvaluationRecipe
from jobs.claims import CLAIM_ENV
from jobs.job import Job
from jobs.processes import started_at
from jobs.store import JobStore
from models_store.registry import Registry
from models_store.store import ModelStore
from serving.gateway import Gateway
from settings import Settings
from tests.support.dispatching import CLAIM
from tests.support.make_old_home import answers, runners
from tests.support.patience import PATIENCE
from tests.support.serving import environment
from training.planning.recipe import Recipe

ROOT = Path(__file__).parents[1]
ARCHIVE = Path(__file__).parent / "support" / "old_home.tar.gz"
MADE_IN = "/tmp/visionloop-old-home"  # the absolute paths in its database begin with it
SENTENCES = frozenset({"message", "detail", "reason"})  # made when they are asked for
COUNTED = frozenset({"objects", "pictures"})  # of uploads, too; the old version knew them of none
KINDS: dict[str, type[BaseModel]] = {
    "training": Recipe,
    "evaluation": EvaluationRecipe,
    "annotation": AnnotationRecipe,
}


@dataclass
class OldHome:
    folder: Path
    registry: Registry
    found: dict[str, str]  # what make_old_home.py made → its id

    @property
    def jobs(self) -> JobStore:
        return JobStore(self.registry.database)


def unpack(folder: Path) -> Iterator[OldHome]:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    settings = Settings(home=folder / "home", device="cpu")
    registry = Registry(Database(settings), ModelStore(folder / "bento"))
    yield OldHome(folder, registry, json.loads((folder / "found.json").read_text()))
    registry.database.close()


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OldHome]:
    """For tests that change nothing in it."""
    yield from unpack(tmp_path_factory.mktemp("old-home"))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[OldHome]:
    yield from unpack(tmp_path)


@pytest.fixture(scope="module")
def answered(read: OldHome) -> tuple[dict[str, Any], dict[str, Any]]:
    """By path, what the old version answered and what this one does."""
    app = create_app(Gateway(read.registry.settings, read.registry, runners()))
    new = answers(with_middleware(app, read.registry.settings))
    new = json.loads(json.dumps(new).replace(str(read.folder), MADE_IN))
    return json.loads((read.folder / "answers.json").read_text()), new


def lacking(old: Any, new: Any, where: str) -> Iterator[str]:
    """What of an old answer the new one does not have.

    It may have more fields, and sentences in other words.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for key, value in old.items():
            if key in new and key in SENTENCES:
                assert isinstance(new[key], type(value))
            elif key in new and not (key in COUNTED and value is None):
                yield from lacking(value, new[key], f"{where}.{key}")
            elif key not in new:
                yield f"{where}.{key} is gone"
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from lacking(before, after, f"{where}[{index}]")
    elif old != new:
        yield f"{where} was {str(old)[:200]!r}, is {str(new)[:200]!r}"


@pytest.mark.parametrize(
    "paths",
    [
        r"/(models|train|jobs|api/training/tasks|metrics|api/datasets)",
        r"/models/(?!.*/live$).*",  # live metrics are those of the last 24 hours
        r"/metrics/[^/]+(/(history|report|worst/.*))?",  # without plots, which are not packed
        r"/metrics/compare\?.*",
        r"/(jobs|train|api/training/tasks)/.*",
        r"/api/datasets/[^/]+(/(revisions.*|waiting|sheet.png|export.*|pictures/.*))?",
        r"/api/annotation/(queue|kept).*",
    ],
)
def test_records_are_answered_as_they_were(
    answered: tuple[dict[str, Any], dict[str, Any]], paths: str
) -> None:
    old, new = answered
    asked = [path for path in old if re.fullmatch(paths, path)]
    assert any(old[path]["status"] == 200 for path in asked)
    faults = [fault for path in asked for fault in lacking(old[path], new[path], path)]
    assert not faults, "\n".join(faults)


def test_recipes_of_every_kind_and_mode_are_read(read: OldHome) -> None:
    rows = [row for row in read.jobs.list() if row.mode != "gate"]
    modes = {row.mode for row in rows if row.kind == "training"}
    assert modes == {"regular", "freeze_strategy", "incremental", "distillation"}
    assert {row.kind for row in rows} == set(KINDS)
    for row in rows:
        read_back = KINDS[row.kind].model_validate(row.recipe).model_dump(mode="json")
        assert read_back | row.recipe == read_back  # later versions have more fields


def test_an_interrupted_training_is_queued_to_be_resumed(read: OldHome) -> None:
    for name in ("regular", "distillation"):
        job = read.jobs.get(read.found[name])
        assert (job.status, job.resumable) == ("queued", True)
        assert job.current_epoch >= 3


@pytest.mark.slow
def test_the_worker_does_a_job_that_the_old_version_queued(home: OldHome) -> None:
    """A training from scratch, which needs none of the weights that are left out."""
    moved_here(home)
    job = home.jobs.get(home.found["scratch"])
    assert home.jobs.claim(job.id, CLAIM)
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", job.id],
        cwd=ROOT,
        env=environment(home.folder) | {CLAIM_ENV: CLAIM},
    )
    try:
        assert home.jobs.start(job.id, CLAIM, process.pid, started_at(process.pid))
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
    assert outcome(home, job) == ("completed", None)
    model = home.registry.get("scratch")
    assert model.description.names == ("circle", "square", "triangle")


def outcome(home: OldHome, job: Job) -> tuple[Any, ...]:
    """What the worker notes; the dispatcher, which does not run here, makes it the status."""
    found = home.jobs.get(job.id)
    return found.outcome, found.error


def moved_here(home: OldHome) -> None:
    """Have the recipes name the folder that the archive is unpacked in."""
    with home.registry.database.write() as session:
        for row in session.scalars(select(Job)):
            text = json.dumps(row.recipe).replace(MADE_IN, str(home.folder))
            row.recipe = json.loads(text)
