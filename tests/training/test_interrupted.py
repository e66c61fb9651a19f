"""Trainings that are cancelled, killed, or fail: what they leave, and how they go on."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from database import Database
from errors import DatasetInvalid, InvalidModelFile, ValidationFailed, VisionLoopError
from jobs.artifacts import clear
from jobs.store import JobStore
from models_store.registry import Registry
from settings import get_settings
from tests.support.patience import wait_until
from tests.support.trainer_job import (
    RecordingJob,
    drawn,
    narrow_mobilenet,
    narrow_network,
    recipe,
    run,
)
from training import publish as publishing
from training.mobilenet import trainer
from training.publish import Trained, publish

ROOT = Path(__file__).parents[2]


class Stopped(BaseException):
    """Stands for JobCancelled."""


@pytest.mark.parametrize("where", ["batch", "validation"])
def test_cancel_ends_an_epoch_at_once_and_leaves_a_checkpoint(
    registry: Registry, job: RecordingJob, where: str
) -> None:
    plan = recipe(registry, "classify", model=narrow_network(registry, "classify"), epochs=5)
    reports = {"batch": 14, "validation": 19}[where]  # of the second epoch; one came before

    def stop(job: RecordingJob) -> BaseException | None:
        return Stopped() if len(job.fractions) >= reports else None

    job.stop_when = stop
    with pytest.raises(Stopped):
        run(plan, job)
    assert len(job.fractions) == reports
    assert job.checkpoints == [1]
    job.stop_when = lambda _: None
    run(plan, job)
    assert job.checkpoints == [1, 2, 3, 4, 5]
    assert list(job.history) == [1, 2, 3, 4, 5]
    assert "Training from epoch 2 to epoch 5" in job.text


def test_a_job_resumes_in_the_folder_that_its_home_was_restored_to(
    registry: Registry, job: RecordingJob, tmp_path: Path
) -> None:
    plan = recipe(registry, "classify", model=narrow_network(registry, "classify"), epochs=2)
    job.stop_when = lambda job: Stopped() if len(job.fractions) >= 14 else None
    with pytest.raises(Stopped):
        run(plan, job)
    before = job.folder
    before.rename(tmp_path / "elsewhere")
    job.folder, job.stop_when = tmp_path / "elsewhere", lambda _: None
    run(plan, job)
    assert job.checkpoints == [1, 2]
    assert not before.exists()


CHILD = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.support.trainer_job import RecordingJob
from training.job import trainer
from training.planning.plan import Recipe
recipe = Recipe.model_validate_json(Path({recipe!r}).read_text())
trainer(recipe)(recipe, RecordingJob(Path({folder!r})))
"""


@pytest.mark.parametrize("family", ["yolo", "mobilenet"])
def test_a_killed_training_goes_on_where_it_was(
    registry: Registry, job: RecordingJob, tmp_path: Path, family: str
) -> None:
    names = ("circle", "square", "triangle")
    base = (
        narrow_network(registry, "classify")
        if family == "yolo"
        else narrow_mobilenet(registry, names)
    )
    plan = recipe(registry, "classify", model=base, epochs=400, patience=0)
    (tmp_path / "recipe.json").write_text(plan.model_dump_json())
    code = CHILD.format(
        root=str(ROOT), recipe=str(tmp_path / "recipe.json"), folder=str(job.folder)
    )
    child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL)
    last = job.folder / "checkpoints" / "last.pt"
    wait_until(lambda: epochs_in(last) >= 3 or child.poll() is not None)
    assert child.poll() is None
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    done = epochs_in(last)

    shorter = plan.model_copy(update={"epochs": plan.epochs})
    job.stop_when = lambda job: Stopped() if len(job.checkpoints) == 2 else None
    with pytest.raises(Stopped):
        run(shorter, job)
    assert f"Training from epoch {done + 1} to epoch 400" in job.text
    assert job.checkpoints == [done + 1, done + 2]
    assert epochs_in(last) == done + 2


@pytest.mark.parametrize("family", ["yolo", "mobilenet"])
def test_a_checkpoint_of_classes_in_another_order_is_not_gone_on_with(
    registry: Registry, job: RecordingJob, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    names = ("circle", "square", "triangle")
    base = (
        narrow_network(registry, "classify")
        if family == "yolo"
        else narrow_mobilenet(registry, names)
    )
    data = get_settings().home / "datasets" / f"umlaut-{family}"
    shutil.copytree(drawn("classify"), data)
    for split in ("train", "val"):  # a macOS name: it comes before `triangle`, but `übergang` after
        (data / split / "square").rename(data / split / "u\u0308bergang")
        (data / split / "triangle").rename(data / split / "weiche")
    plan = recipe(registry, "classify", model=base, data=str(data), epochs=3)
    job.stop_when = lambda job: Stopped() if len(job.checkpoints) == 1 else None
    with monkeypatch.context() as former:
        former.setattr("dataset.class_folders.tidy", str)  # names were as the folders'
        with pytest.raises(Stopped):
            run(plan, job)
    job.stop_when = lambda _: None
    with pytest.raises(VisionLoopError, match=f"resume_weights {job.id}"):
        run(plan, job)


@pytest.mark.parametrize("links", [True, False])
def test_a_damaged_checkpoint_is_replaced_by_the_one_before(
    registry: Registry, job: RecordingJob, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:  # a file system without hard links

        def refused(*_: Any) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", refused)
    plan = recipe(registry, "classify", model=narrow_network(registry, "classify"), epochs=4)
    job.stop_when = lambda job: Stopped() if len(job.checkpoints) == 3 else None
    with pytest.raises(Stopped):
        run(plan, job)
    last = job.folder / "checkpoints" / "last.pt"
    last.write_bytes(last.read_bytes()[:5000])
    job.checkpoints.clear()
    job.stop_when = lambda _: None
    run(plan, job)
    assert job.checkpoints == [3, 4]


def test_a_finished_training_is_only_collected(registry: Registry, job: RecordingJob) -> None:
    plan = recipe(registry, "classify", model=narrow_network(registry, "classify"), epochs=1)
    first = run(plan, job)
    again = run(plan, job)
    assert job.checkpoints == [1]
    assert again.metrics == first.metrics
    assert again.dataset_fingerprint == first.dataset_fingerprint


@pytest.mark.parametrize("family", ["yolo", "mobilenet"])
def test_another_training_starts_from_the_best_weights_of_one_that_failed(
    registry: Registry, job: RecordingJob, tmp_path: Path, family: str
) -> None:
    names = ("circle", "square", "triangle")
    start = (
        narrow_network(registry, "classify")
        if family == "yolo"
        else narrow_mobilenet(registry, names)
    )
    store = JobStore(Database(get_settings()))
    first = recipe(registry, "classify", model=start, epochs=9, patience=0, name="kinds")
    row = store.create("training", config={}, recipe=first.model_dump(), task="classify")
    failed = RecordingJob(store.folder(row.id))
    failed.stop_when = lambda job: Stopped() if len(job.checkpoints) == 6 else None
    with pytest.raises(Stopped):
        run(first, failed)
    store.finish(row.id, "failed")
    clear(failed.folder, completed=False)
    store.database.close()
    assert len(list((failed.folder / "checkpoints").iterdir())) == 2

    still = {"lr0": 1e-6}  # what it starts from is what it ends with
    again = recipe(registry, "classify", weights=row.id, epochs=1, name="kinds", hyper=still)
    trained = run(again, job)
    assert f"Starts from the best weights of job {row.id}" in again.notes[0]
    assert "Start weights know 3 of the 3 classes by name." in job.text
    assert trained.metrics["accuracy"] >= failed.metrics[-1]["accuracy"] - 0.2
    clear(failed.folder, completed=True)
    with pytest.raises(InvalidModelFile, match="no longer exist"):
        run(again, RecordingJob(tmp_path / "late"))


def test_a_full_disk_fails_with_the_remedy_and_publishes_nothing(
    registry: Registry, job: RecordingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = recipe(registry, "classify", model=narrow_mobilenet(registry, ("a", "b", "c")), epochs=1)
    count = len(registry.list())

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(trainer.torch, "save", full)
    with pytest.raises(VisionLoopError, match="disk is full"):
        run(plan, job)
    monkeypatch.undo()
    trained = run(plan, job)
    for broken in ("shutil.copyfile", "training.publish.run_module"):
        monkeypatch.setattr(broken, full)
        with pytest.raises(VisionLoopError, match="disk is full"):
            publish(trained, plan, job, registry)
        monkeypatch.undo()
    registry.refresh()
    assert len(registry.list()) == count
    assert registry.sweep() == []


def test_a_failed_export_fails_the_job_with_its_reason(
    registry: Registry, job: RecordingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = recipe(registry, "classify", model="n", epochs=1)
    count = len(registry.list())
    folder = job.folder / "model"
    shutil.copytree(registry.get(narrow_network(registry, "classify")).path, folder)
    (folder / "model.safetensors").write_bytes(b"damaged")
    count = len(registry.list())
    with pytest.raises(VisionLoopError, match="weights file is damaged"):
        publish(Trained(folder, {}, "x"), plan, job, registry)
    monkeypatch.setattr(publishing, "EXPORT_TIMEOUT", 0.01)
    with pytest.raises(VisionLoopError, match="within"):
        publish(Trained(folder, {}, "x"), plan, job, registry)
    assert len(registry.list()) == count


def test_out_of_memory_names_the_settings(
    registry: Registry, job: RecordingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = recipe(registry, "classify", model=narrow_network(registry, "classify"), epochs=1)

    def hungry(*_: Any, **__: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9e9")

    monkeypatch.setattr("ultralytics.engine.trainer.BaseTrainer.optimizer_step", hungry)
    with pytest.raises(ValidationFailed, match="batch 8 at imgsz 64"):
        run(plan, job)


def test_weights_of_another_task_and_vanished_data_are_told(
    registry: Registry, job: RecordingJob, tmp_path: Path
) -> None:
    folder = get_settings().home / "datasets" / "vanishing"
    shutil.copytree(drawn("classify"), folder)
    plan = recipe(
        registry, "classify", model=narrow_network(registry, "classify"), data=str(folder), epochs=1
    )
    shutil.rmtree(folder / "val")
    shutil.rmtree(folder / "train")
    with pytest.raises(DatasetInvalid):
        run(plan, job)
    base = plan.base.model_copy(update={"value": narrow_network(registry, "detect")})
    wrong = plan.model_copy(update={"base": base, "dataset": str(drawn("classify"))})
    with pytest.raises(InvalidModelFile, match="for detect"):
        run(wrong, job)


def epochs_in(checkpoint: Path) -> int:
    """Whole epochs in a checkpoint; 0 without one."""
    try:
        saved = torch.load(checkpoint, weights_only=False)
    except (OSError, RuntimeError, EOFError):
        return 0
    return saved["epoch"] + 1 if "epoch" in saved else saved["state"]["epoch"]
