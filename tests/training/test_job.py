"""Every trainer on drawn data, for real: it learns, reports, keeps what it knew, publishes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.artifacts import clear
from models_store.description import Task
from models_store.registry import Registry
from models_store.weights import load_model
from tests.support.trainer_job import (
    RecordingJob,
    drawn,
    narrow_mobilenet,
    narrow_network,
    recipe,
    run,
)
from training.publish import publish

# 0.8 and more were seen of what learned, 0.0 of what did not: how well a small network learns in
# a few epochs depends on its seed and on the CPU.
LEARNED = 0.25
FAST: dict[str, Any] = {"mosaic": 0}  # whole pictures at once: seconds instead of a minute


@pytest.mark.slow
def test_yolov8n_from_scratch_finds_shapes_and_is_published(
    registry: Registry, job: RecordingJob
) -> None:
    data = drawn("detect")
    before = listing(data.parent)
    plan = recipe(registry, "detect", model="n", epochs=10, name="shapes", hyper=FAST)
    trained = run(plan, job)

    assert trained.metrics["mAP50"] > LEARNED, job.text
    assert "from scratch" in job.text
    assert job.fractions == sorted(job.fractions)
    assert max(job.fractions) <= 0.97
    inside = [f for f, epoch in zip(job.fractions, job.epochs, strict=True) if epoch == 3]
    assert len(set(inside)) >= 9  # eight batches, and validation
    assert {"loss", "accuracy", "mAP50", "mAP50_95", "val_loss"} <= set(job.metrics[-1])
    assert job.checkpoints == list(range(1, 11))
    assert list(job.history) == list(range(1, 11))
    assert job.history[10] == job.metrics[-1], "an epoch's last report"
    assert max(job.counted) == (8, 8)
    assert listing(data.parent) == before  # no cache, nothing else, in the user's folder

    version = publish(trained, plan, job, registry)
    assert version.id in [model.id for model in registry.list()]
    assert not version.promoted
    assert version.description.names == ("circle", "square", "triangle")
    assert version.description.imgsz == 96
    assert version.source["kind"] == "train"
    assert version.source["job_id"] == job.id
    assert version.source["dataset_fingerprint"] == trained.dataset_fingerprint
    assert set(version.source["class_counts"]) == {"circle", "square", "triangle"}
    assert min(version.source["class_counts"].values()) > 0
    assert version.metrics is None  # until it is evaluated, with the engine that serves it
    assert publish(trained, plan, job, registry).id == version.id  # once, however often it runs
    clear(job.folder, completed=True)
    assert sorted(path.name for path in job.folder.iterdir()) == ["run"]


@pytest.mark.parametrize(
    ("task", "epochs", "figure", "least"),
    [
        pytest.param("segment", 10, "mask_mAP50", LEARNED, marks=pytest.mark.slow),
        pytest.param("pose", 6, "pose_mAP50", LEARNED, marks=pytest.mark.slow),
        ("classify", 8, "accuracy", 0.5),  # by chance a third
    ],
)
def test_every_task_learns(
    registry: Registry, job: RecordingJob, task: Task, epochs: int, figure: str, least: float
) -> None:
    hyper = {} if task == "classify" else FAST
    base = narrow_network(registry, task)
    plan = recipe(registry, task, model=base, epochs=epochs, hyper={**hyper, "lr0": 0.004})
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
    plan = recipe(registry, "classify", model=base, epochs=10, hyper={"lr0": 0.004})
    assert plan.family == "mobilenet"
    trained = run(plan, job)
    assert trained.metrics["accuracy"] > 0.5, job.text  # by chance a third
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


def test_a_head_of_the_start_weights_width_is_kept(registry: Registry, job: RecordingJob) -> None:
    many = ("square", *(f"thing {i}" for i in range(47)))  # hidden layers 48 wide, not 32
    base = narrow_network(registry, "detect", many)
    run(recipe(registry, "detect", model=base, epochs=1, hyper={"optimizer": "SGD"}), job)
    _, description = load_model(job.folder / "model")
    assert description.head_width == 48
    assert len(description.names) == 3


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


def test_nothing_is_uploaded_where_ultralytics_finds_a_key(
    registry: Registry, job: RecordingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics.utils.callbacks import platform

    called: list[Any] = []
    monkeypatch.setenv("ULTRALYTICS_API_KEY", "key")
    for event in platform.callbacks:
        monkeypatch.setitem(platform.callbacks, event, called.append)
    run(recipe(registry, "classify", model=narrow_network(registry, "classify"), epochs=1), job)
    assert called == []
    monkeypatch.undo()


def listing(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))
