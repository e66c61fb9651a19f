"""A student with a teacher, for real and small: every task, resumed, published, with old data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from errors import ValidationFailed
from jobs.handle import JobCancelled
from jobs.store import JobStore
from jobs.worker import WorkerJob
from jobs.worker import run as run_job
from models_store.description import Task
from models_store.registry import Registry
from models_store.weights import build_model, load_model, save_model
from tests.support.dispatching import begin
from tests.support.seeds import drawing
from tests.support.trainer_job import (
    RecordingJob,
    drawn,
    narrow_mobilenet,
    narrow_network,
    recipe,
    run,
)
from training.distillation.criterion import Criterion
from training.modes.distillation import STATE
from training.planning.options import DistillationOptions
from training.planning.recipe import Recipe
from training.publish import Trained, publish
from worker import work

TERMS = {
    "detect": {"distill_cls", "distill_box", "distill_feat"},
    "segment": {"distill_cls", "distill_box", "distill_feat", "distill_mask"},
    "classify": {"distill_cls", "distill_feat"},
}
FAST: dict[str, Any] = {"mosaic": 0}


class Stopped(BaseException):
    """Stands for JobCancelled."""


def planned(
    registry: Registry, task: Task, epochs: int, teacher: str | None = None, **options: Any
) -> Recipe:
    return recipe(
        registry,
        task,
        mode="distillation",
        model=narrow_network(registry, task),
        epochs=epochs,
        hyper={} if task == "classify" else FAST,
        distillation=DistillationOptions(
            teacher=teacher or narrow_network(registry, task), **options
        ),
    )


@pytest.mark.parametrize(
    "task", ["detect", "classify", pytest.param("segment", marks=pytest.mark.slow)]
)
def test_a_student_learns_is_resumed_and_stays_a_plain_network(
    registry: Registry, job: RecordingJob, task: Task
) -> None:
    plan = planned(registry, task, epochs=2, enable_consistency=True)
    job.stop_when = lambda job: Stopped() if job.checkpoints else None
    with pytest.raises(Stopped):
        run(plan, job)
    folder = job.folder / "checkpoints"
    first = torch.load(folder / STATE, weights_only=True)
    average = torch.load(folder / "last.pt", weights_only=False)["ema"]
    assert not any("projector" in name or "teacher" in name for name in average.state_dict())

    job.stop_when = lambda _: None
    trained = run(plan, job)
    assert job.checkpoints == [1, 2]
    assert list(job.history) == [1, 2]
    assert job.history[2] == job.metrics[-1], "an epoch's last report"
    assert "Training from epoch 2" in job.text
    assert "start with new weights" not in job.text
    assert set(job.metrics[-1]) >= TERMS[task] | {"consistency"}
    second = torch.load(folder / STATE, weights_only=True)
    steps = [state["optimizer"]["state"][0]["step"] for state in (first, second)]
    assert steps[1] == 2 * steps[0]
    assert all(steps)

    model, description = load_model(trained.folder)
    assert description.names == ("circle", "square", "triangle")
    assert list(model.state_dict()) == list(build_model(description).state_dict())
    assert not any("projector" in name for name in model.state_dict())


def test_a_student_learns_its_teachers_outputs(registry: Registry, tmp_path: Path) -> None:
    """The teacher takes every image for the first class, whatever the labels are."""
    model, description = load_model(registry.get(narrow_network(registry, "classify")).path)
    with torch.no_grad():
        head: Any = dict(model.named_modules())["model.9.linear"]
        head.weight.zero_()
        head.bias.copy_(torch.tensor([9.0, 0, 0]))
    folder = tmp_path / "teacher"
    folder.mkdir()
    save_model(folder, model, description)
    name = publish_quickly(registry, folder)
    job = RecordingJob(tmp_path / "student")
    plan = planned(registry, "classify", 3, teacher=name, cls_weight=50.0)
    taught = run(plan, job)
    assert "knows 3 of the 3 classes" in job.text
    assert first_class(taught) > 0.9  # without a teacher between 0.1 and 0.7


def first_class(trained: Trained) -> float:
    """The mean probability that a network gives its first class, on noise."""
    model, _ = load_model(trained.folder)
    with torch.no_grad(), drawing():
        found = model.eval()(torch.rand(16, 3, 64, 64))
    return float((found[0] if isinstance(found, tuple) else found)[:, 0].mean())


def publish_quickly(registry: Registry, folder: Path) -> str:
    (folder / "model.onnx").write_bytes(b"never served")
    return registry.publish(folder, "able", {"kind": "import"}).id


def test_the_published_model_names_its_teacher(registry: Registry, job: RecordingJob) -> None:
    plan = planned(registry, "classify", 1)
    assert plan.teacher is not None
    version = publish(run(plan, job), plan, job, registry)
    assert version.source["mode"] == "distillation"
    assert version.source["teacher"] == plan.teacher.value
    assert version.source["parent"] == plan.base.value


def test_a_job_ends_with_a_version_that_is_a_plain_network(registry: Registry) -> None:
    """What the worker does with a job's row, from start to end."""
    plan = planned(registry, "segment", 1)
    plan = plan.model_copy(update={"name": "taught"})
    store = JobStore(registry.database)
    row = store.create("training", config={}, recipe=plan.model_dump(mode="json"))
    begin(store, row.id)
    row = store.get(row.id)
    assert run_job(WorkerJob(store, row), row, registry, work) == 0
    job = store.get(row.id)
    assert (job.outcome, job.error) == ("completed", None)
    assert job.progress == 100
    assert (job.current_epoch, job.total_epochs, job.checkpoint) == (1, 1, 1)
    assert TERMS["segment"] | {"mask_mAP50_95"} <= set(job.metrics)

    assert plan.teacher is not None
    version = registry.get(str(job.model_id))
    assert version.id.startswith("taught:")
    assert version.source["teacher"] == plan.teacher.value
    assert version.metrics is not None  # measured with the engine that serves
    model, description = load_model(version.path)
    assert list(model.state_dict()) == list(build_model(description).state_dict())
    files = {file.name for file in version.path.iterdir()}
    assert STATE not in files
    assert "model.onnx" in files


def test_classes_that_the_teacher_does_not_know_are_learned_from_labels(
    registry: Registry, job: RecordingJob
) -> None:
    teacher = narrow_network(registry, "detect", ("lamp", "Square"))
    run(planned(registry, "detect", 1, teacher=teacher), job)
    assert "knows 1 of the 3 classes" in job.text


def test_unsuitable_teachers_are_refused_before_the_job_is_queued(registry: Registry) -> None:
    stranger = narrow_network(registry, "detect", ("lamp", "tree"))
    with pytest.raises(ValidationFailed, match="knows none of the dataset's classes"):
        planned(registry, "detect", 1, teacher=stranger)
    with pytest.raises(ValidationFailed, match="a model for detect, but task is classify"):
        planned(registry, "classify", 1, teacher=stranger)
    with pytest.raises(ValidationFailed, match="not for pose"):
        planned(registry, "pose", 1)


def test_weights_of_zero_leave_terms_out(registry: Registry, job: RecordingJob) -> None:
    plan = planned(registry, "detect", 1, feat_weight=0, reg_weight=0)
    run(plan, job)
    assert "distill_cls" in job.metrics[-1]
    assert not {"distill_feat", "distill_box", "consistency"} & set(job.metrics[-1])
    assert not (job.folder / "checkpoints" / STATE).exists()


@pytest.mark.parametrize("task", ["detect", "classify"])
def test_old_images_are_replayed_and_weighted(
    registry: Registry, job: RecordingJob, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = drawn(task, train=24)
    weights: list[float] = []
    original = Criterion.importance

    def noted(self: Any, batch: dict[str, Any]) -> torch.Tensor:
        found = original(self, batch)
        weights.extend(found.tolist())
        return found

    monkeypatch.setattr(Criterion, "importance", noted)
    options: dict[str, Any] = {
        "old_data": str(old),
        "replay_ratio": 0.2,
        "replay_distill_boost": 3.0,
    }
    run(planned(registry, task, 1, max_replay_samples=12, **options), job)
    assert "12 old images are replayed, 20% of each epoch" in job.text
    assert len(weights) == 80
    assert weights.count(3.0) == 16
    assert weights.count(1.0) == 64


def test_the_teacher_supplies_missing_labels(registry: Registry, job: RecordingJob) -> None:
    old = drawn("detect", train=16).parent / "data.yaml"
    text = old.read_text()
    other = old.with_name("other.yaml")
    other.write_text(text.replace("square", "lamp"))
    options: dict[str, Any] = {"old_data": str(other), "replay_ratio": 0.3}
    trained = run(planned(registry, "detect", 1, **options), job)
    assert "which adds the classes lamp" in job.text
    assert "In new images the teacher supplies the labels of: lamp." in job.text
    assert "In old images the teacher supplies the labels of: square." in job.text
    assert load_model(trained.folder)[1].names == ("circle", "square", "triangle", "lamp")


def test_a_student_of_another_family_learns_where_its_head_allows(
    registry: Registry, job: RecordingJob
) -> None:
    """YOLO26 has two branches, and boxes without bins."""
    plan = recipe(
        registry,
        "detect",
        mode="distillation",
        model="yolo26n",
        epochs=1,
        hyper=FAST,
        distillation=DistillationOptions(teacher=narrow_network(registry, "detect")),
    )
    trained = run(plan, job)
    assert "box loss is disabled" in job.text
    assert {"distill_cls", "distill_feat"} <= set(job.metrics[-1])
    assert "distill_box" not in job.metrics[-1]
    model, description = load_model(trained.folder)
    assert list(model.state_dict()) == list(build_model(description).state_dict())


def test_a_mobilenet_may_teach_a_classifier(registry: Registry, job: RecordingJob) -> None:
    teacher = narrow_mobilenet(registry, ("square", "lamp", "circle"))
    run(planned(registry, "classify", 1, teacher=teacher), job)
    assert "knows 2 of the 3 classes" in job.text


def test_a_stop_within_an_epoch_loses_no_step_of_the_projectors(
    registry: Registry, job: RecordingJob
) -> None:
    plan = planned(registry, "classify", 2)
    job.leave_when = lambda job: len(job.fractions) >= 1 + 10 + 5  # 8 batches, then 2 reports
    with pytest.raises(JobCancelled):
        run(plan, job)
    assert job.batches == [(1, 5)]
    assert projector_steps(job) == 8 + 5
    job.leave_when = lambda _: False
    run(plan, job)
    assert "Training from batch 6 of 8 in epoch 2" in job.text
    assert projector_steps(job) == 2 * 8


def test_a_non_finite_loss_does_not_change_the_projectors(
    registry: Registry, job: RecordingJob
) -> None:
    """Ultralytics restores its checkpoint then; the projectors must not be NaN."""
    lost: list[int] = []

    def spoil(self: Any, batch: dict[str, Any]) -> torch.Tensor:
        lost.append(len(lost))
        return torch.ones(len(batch["img"])) * (math.nan if len(lost) == 8 + 4 else 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Criterion, "importance", spoil)
        run(planned(registry, "classify", 2), job)
    state = torch.load(job.folder / "checkpoints" / STATE, weights_only=True)
    assert all(value.isfinite().all() for value in state["features"].values())
    assert math.isfinite(job.metrics[-1]["distill_feat"])


def projector_steps(job: RecordingJob) -> int:
    state = torch.load(job.folder / "checkpoints" / STATE, weights_only=True)
    return int(state["optimizer"]["state"][0]["step"])


def test_damaged_projectors_do_not_fail_a_resumed_training(
    registry: Registry, job: RecordingJob
) -> None:
    plan = planned(registry, "classify", 2)
    job.stop_when = lambda job: Stopped() if job.checkpoints else None
    with pytest.raises(Stopped):
        run(plan, job)
    (job.folder / "checkpoints" / STATE).write_bytes(b"cut off")
    job.stop_when = lambda _: None
    run(plan, job)
    assert "projectors start with new weights" in job.text
    assert job.checkpoints == [1, 2]
