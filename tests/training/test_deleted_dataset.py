"""A dataset that is deleted under a job: the job ends with a sentence, or has all it needs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from errors import VisionLoopError
from jobs.failures import reason
from models_store.description import Task
from models_store.registry import Registry
from settings import get_settings
from tests.support.trainer_job import RecordingJob, drawn, narrow_mobilenet, recipe, run
from training.planning.recipe import Recipe


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that datasets may be in."""
    monkeypatch.setenv("VISIONLOOP_DATA_ROOTS", str(tmp_path))
    get_settings.cache_clear()
    yield tmp_path
    monkeypatch.undo()
    get_settings.cache_clear()


def planned(registry: Registry, task: Task, folder: Path) -> Recipe:
    """A plan of two epochs on a copy of the drawn data in `folder`."""
    original = drawn(task)
    top = original.parent if original.is_file() else original
    shutil.copytree(top, folder)
    data = folder / original.name if original.is_file() else folder
    names = ("circle", "square", "triangle")
    model = narrow_mobilenet(registry, names) if task == "classify" else "n"
    return recipe(registry, task, data=str(data), model=model, epochs=2, name="shapes")


@pytest.mark.parametrize("task", ["detect", "classify"])
def test_before_the_job_begins(
    registry: Registry, job: RecordingJob, roots: Path, task: Task
) -> None:
    plan = planned(registry, task, roots / "data")
    shutil.rmtree(roots / "data")
    with pytest.raises(VisionLoopError, match="does not exist on this server"):
        run(plan, job)


def test_while_the_job_reads_it(registry: Registry, job: RecordingJob, roots: Path) -> None:
    plan = planned(registry, "classify", roots / "data")

    def delete(_: RecordingJob) -> None:
        shutil.rmtree(roots / "data", ignore_errors=True)

    job.stop_when = delete
    with pytest.raises(VisionLoopError) as caught:
        run(plan, job)
    assert "No image of train can be read" in reason(caught.value)
