"""Every trainer on drawn data, for real: it learns, reports, ends, goes on, publishes."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from errors import DatasetInvalid, InvalidModelFile, ValidationFailed, VisionLoopError
from models_store.description import Task
from models_store.registry import Registry
from models_store.weights import load_model
from settings import get_settings
from tests.training.trainer_job import (
    RecordingJob,
    drawn,
    narrow_mobilenet,
    narrow_network,
    recipe,
)
from training import mobilenet, publication
from training.modes import trainer
from training.publication import Trained, clear, publish
from training.recipe import Recipe

ROOT = Path(__file__).parents[2]
FAST: dict[str, Any] = {"mosaic": 0}  # whole pictures at once: seconds instead of a minute


class Stopped(BaseException):
    """Stands for JobCancelled."""


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    registry = Registry(get_settings())
    yield registry
    registry.close()


@pytest.fixture
def job(tmp_path: Path) -> RecordingJob:
    return RecordingJob(tmp_path / "job")


def run(recipe: Recipe, job: RecordingJob) -> Trained:
    return trainer(recipe)(recipe, job)


def test_yolov8n_from_scratch_finds_shapes_and_is_published(
    registry: Registry, job: RecordingJob
) -> None:
    data = drawn("detect")
    before = listing(data.parent)
    plan = recipe(registry, "detect", model="n", epochs=14, name="shapes", hyper=FAST)
    trained = run(plan, job)

    assert trained.metrics["mAP50"] > 0.8, job.text
    assert "from scratch" in job.text
    assert job.fractions == sorted(job.fractions)
    assert max(job.fractions) <= 0.97
    inside = [f for f, epoch in zip(job.fractions, job.epochs, strict=True) if epoch == 3]
    assert len(set(inside)) >= 9  # eight batches, and validation
    assert {"loss", "accuracy", "mAP50", "mAP50_95", "val_loss"} <= set(job.metrics[-1])
    assert job.checkpoints == list(range(1, 15))
    assert listing(data.parent) == before  # no cache, nothing else, in the user's folder

    version = publish(trained, plan, job, registry)
    assert version.id in [model.id for model in registry.list()]
    assert not version.promoted
    assert version.description.names == ("circle", "square", "triangle")
    assert version.description.imgsz == 96
    assert version.source["kind"] == "train"
    assert version.source["job_id"] == job.id
    assert version.source["dataset_fingerprint"] == trained.dataset_fingerprint
    assert version.metrics is not None
    assert version.metrics["mAP50"] == trained.metrics["mAP50"]
    assert publish(trained, plan, job, registry).id == version.id  # once, however often it runs
    clear(job.folder)
    assert sorted(path.name for path in job.folder.iterdir()) == ["run"]


@pytest.mark.parametrize(
    ("task", "epochs", "figure", "least"),
    [
        ("segment", 14, "mask_mAP50", 0.8),
        ("pose", 16, "pose_mAP50", 0.8),
        ("classify", 10, "accuracy", 0.9),
    ],
)
def test_every_task_learns(
    registry: Registry, job: RecordingJob, task: Task, epochs: int, figure: str, least: float
) -> None:
    hyper = {} if task == "classify" else FAST
    base = narrow_network(registry, task)
    plan = recipe(registry, task, model=base, epochs=epochs, hyper={**hyper, "lr0": 0.002})
    trained = run(plan, job)
    assert trained.metrics[figure] > least, job.text
    model, description = load_model(trained.folder)
    assert description.task == task
    assert description.keypoint_shape == ((3, 3) if task == "pose" else None)
    expected = "centre_crop" if task == "classify" else "letterbox"
    assert description.preprocessing.resize == expected
    assert not model.training


def test_mobilenet_learns_and_keeps_the_rows_of_known_classes(
    registry: Registry, job: RecordingJob
) -> None:
    base = narrow_mobilenet(registry, ("square", "lamp", "Circle"))
    plan = recipe(registry, "classify", model=base, epochs=12, hyper={"lr0": 0.004})
    assert plan.family == "mobilenet"
    trained = run(plan, job)
    assert trained.metrics["accuracy"] > 0.9, job.text
    assert "know 2 of the 3 classes" in job.text
    assert job.fractions == sorted(job.fractions)
    _, description = load_model(trained.folder)
    assert description.names == ("circle", "square", "triangle")
    assert description.architecture["width_mult"] == 0.25


@pytest.mark.parametrize("task", ["detect", "classify"])
def test_class_names_decide_which_weights_are_kept(
    registry: Registry, job: RecordingJob, task: Task
) -> None:
    names = ("triangle", "lamp", "Square")  # drawn: circle, square, triangle
    base = narrow_network(registry, task, names)
    plan = recipe(registry, task, model=base, epochs=1, hyper={"lr0": 1e-6, "optimizer": "AdamW"})
    trained = run(plan, job)
    old, _ = load_model(registry.get(base).path)
    new, _ = load_model(trained.folder)
    key = "model.9.linear.weight" if task == "classify" else "model.22.cv3.0.2.weight"
    before, after = old.state_dict()[key], new.state_dict()[key]
    assert torch.allclose(after[1], before[2], atol=2e-3)  # square
    assert torch.allclose(after[2], before[0], atol=2e-3)  # triangle
    assert not torch.allclose(after[0], before[0], atol=2e-3)
    assert "know 2 of the 3 classes" in job.text


def test_freezing_shows_its_stages_and_holds_the_layers(
    registry: Registry, job: RecordingJob
) -> None:
    base = narrow_network(registry, "detect")
    plan = recipe(
        registry, "detect", mode="freeze_strategy", model=base, epochs=3, min_epochs_per_stage=1
    )
    old, _ = load_model(registry.get(base).path)
    last = job.folder / "checkpoints" / "last.pt"
    held: list[bool] = []

    def look(job: RecordingJob) -> None:
        if len(held) < len(job.checkpoints):
            saved = torch.load(last, weights_only=False)["ema"].state_dict()
            weight = saved["model.2.cv1.conv.weight"].float()
            held.append(
                torch.allclose(weight, old.state_dict()["model.2.cv1.conv.weight"], atol=1e-3)
            )

    job.stop_when = look
    run(plan, job)
    assert [line for line in job.lines if line.startswith("Stage")] == [
        "Stage 1 of 3: head learning.",
        "Stage 2 of 3: neck and head learning.",
        "Stage 3 of 3: backbone and neck and head learning.",
    ]
    assert held[:2] == [True, True]
    assert {metrics["stage"] for metrics in job.metrics} == {1.0, 2.0, 3.0}


def test_without_the_strategy_all_layers_learn_at_once(
    registry: Registry, job: RecordingJob
) -> None:
    base = narrow_network(registry, "classify")
    plan = recipe(
        registry,
        "classify",
        mode="freeze_strategy",
        use_freeze_strategy=False,
        model=base,
        epochs=1,
    )
    run(plan, job)
    assert "all layers train from the start" in job.text
    assert not any(line.startswith("Stage") for line in job.lines)


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
    assert "Training from epoch 2 to epoch 5" in job.text


CHILD = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.training.trainer_job import RecordingJob
from training.modes import trainer
from training.recipe import Recipe
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
    plan = recipe(registry, "classify", model=base, epochs=40, patience=0)
    (tmp_path / "recipe.json").write_text(plan.model_dump_json())
    code = CHILD.format(
        root=str(ROOT), recipe=str(tmp_path / "recipe.json"), folder=str(job.folder)
    )
    child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL)
    last = job.folder / "checkpoints" / "last.pt"
    deadline = time.monotonic() + 60
    while epochs_in(last) < 3:
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    done = epochs_in(last)

    shorter = plan.model_copy(update={"epochs": plan.epochs})
    job.stop_when = lambda job: Stopped() if len(job.checkpoints) == 2 else None
    with pytest.raises(Stopped):
        run(shorter, job)
    assert f"Training from epoch {done + 1} to epoch 40" in job.text
    assert job.checkpoints == [done + 1, done + 2]
    assert epochs_in(last) == done + 2


def test_a_damaged_checkpoint_is_replaced_by_the_one_before(
    registry: Registry, job: RecordingJob
) -> None:
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


def test_a_full_disk_fails_with_the_remedy_and_publishes_nothing(
    registry: Registry, job: RecordingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = recipe(registry, "classify", model=narrow_mobilenet(registry, ("a", "b", "c")), epochs=1)
    count = len(registry.list())

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(mobilenet.torch, "save", full)
    with pytest.raises(VisionLoopError, match="disk is full"):
        run(plan, job)
    monkeypatch.undo()
    trained = run(plan, job)
    for broken in ("shutil.copyfile", "training.publication.run_module"):
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
    monkeypatch.setattr(publication, "EXPORT_TIMEOUT", 0.01)
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


def listing(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def epochs_in(checkpoint: Path) -> int:
    """Whole epochs in a checkpoint; 0 without one."""
    try:
        saved = torch.load(checkpoint, weights_only=False)
    except (OSError, RuntimeError, EOFError):
        return 0
    return saved["epoch"] + 1 if "epoch" in saved else saved["state"]["epoch"]
