"""MobileNet learns in every mode: tiny trainings on drawn data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluation.store import EvaluationStore
from jobs.job import Job
from models_store.description import ONNX_FILE
from models_store.registry import Registry
from models_store.weights import load_model
from settings import get_settings
from tests.support.trainer_job import (
    RecordingJob,
    drawn,
    narrow_mobilenet,
    narrow_network,
    recipe,
    run,
)
from training.incremental.class_prototypes import ClassPrototypes
from training.job import train as work
from training.modes.incremental import set_up
from training.replay.buffer import FILE
from training.start_weights import last_layer

OLD, NEW = ("circle", "square"), ("triangle",)


def part(name: str, classes: tuple[str, ...]) -> str:
    """The drawn data of some classes only."""
    folder = get_settings().home / "datasets" / f"mobilenet-{name}"
    for split in ("train", "val"):
        for cls in classes:
            if not (folder / split / cls).exists():
                shutil.copytree(drawn("classify", 64) / split / cls, folder / split / cls)
    return str(folder)


def incremental(registry: Registry, base: str, **fields: Any) -> Any:
    options = {"old_data": part("old", OLD), "max_replay_samples": 10}
    defaults = {"mode": "incremental", "base_model": base, "data": part("new", NEW), "epochs": 2}
    return recipe(registry, "classify", **({**defaults, "incremental": options} | fields))


def taught(registry: Registry, job: RecordingJob) -> str:
    """A MobileNet that knows the old classes, published."""
    base = narrow_mobilenet(registry, OLD)
    plan = recipe(
        registry, "classify", model=base, data=part("old", OLD), epochs=8, hyper={"lr0": 0.004}
    )
    trained = run(plan, RecordingJob(job.folder.with_name("taught")))
    (trained.folder / ONNX_FILE).write_bytes(b"never served")
    return registry.publish(trained.folder, "known-shapes", {"kind": "train"}).id


def test_a_class_is_added_and_the_old_outputs_do_not_change_before_training(
    registry: Registry, job: RecordingJob
) -> None:
    base = narrow_mobilenet(registry, OLD)
    setup = set_up(incremental(registry, base), job, get_settings())
    assert setup.start.names == (*OLD, *NEW)
    images = torch.rand(4, 3, 64, 64)
    old, new = (some.model.eval()(images) for some in (setup.old, setup.start))  # type: ignore[union-attr]
    assert torch.allclose(old, new[:, :2], atol=1e-6)
    assert len(setup.old_prototypes.counts) == 2  # type: ignore[union-attr]  # of the old images


def test_it_learns_with_old_images_and_keeps_them_when_resumed(
    registry: Registry, job: RecordingJob
) -> None:
    base = taught(registry, job)
    plan = incremental(registry, base, epochs=4)

    class Stopped(BaseException):
        """Stands for JobCancelled."""

    job.stop_when = lambda job: Stopped() if len(job.checkpoints) == 1 else None
    with pytest.raises(Stopped):
        run(plan, job)
    memory = (job.folder / FILE).read_text()
    job.stop_when = lambda _: None
    trained = run(plan, job)
    assert (job.folder / FILE).read_text() == memory
    assert "Training from epoch 2 to epoch 4" in job.text
    assert "10 of " in job.text
    assert "old images are kept for replay" in job.text
    last = job.metrics[-1]
    assert {"old_classes", "new_classes", "old_scores"} <= set(last)
    best = trained.metrics
    epochs = [m for m in job.metrics if "old_classes" in m and "val_loss" in m]
    highest = max(m["old_classes"] + m["new_classes"] for m in epochs)
    assert best["old_classes"] + best["new_classes"] >= highest - 1e-6  # more if recovered
    assert best["old_classes"] > 0.5
    _, description = load_model(trained.folder)
    assert description.names == (*OLD, *NEW)
    assert set(trained.class_counts) == {*OLD, *NEW}
    assert trained.class_counts["circle"] == 0  # counts are of the new data only


def test_it_learns_a_class_without_old_images(registry: Registry, job: RecordingJob) -> None:
    base = taught(registry, job)
    trained = run(incremental(registry, base, incremental=None), job)
    assert "has class prototypes" in job.text
    before, after = (load_model(f)[0] for f in (registry.get(base).path, trained.folder))
    rows = [last_layer(model).weight for model in (before, after)]
    assert torch.equal(rows[0], rows[1][:2])  # only the new row was trained
    states = [model.state_dict()["features.0.1.running_mean"] for model in (before, after)]
    assert torch.equal(*states)
    found = ClassPrototypes.load(trained.folder)
    assert found is not None
    assert bool((found.counts > 0).all())


def test_a_job_reports_forgetting(registry: Registry, job: RecordingJob) -> None:
    from models_store.export import export_onnx

    base = taught(registry, job)
    export_onnx(registry.get(base).path)
    plan = incremental(registry, base, name="more-known-shapes")
    version = work(job, Job(recipe=plan.model_dump(mode="json")), registry)
    store = EvaluationStore(registry.database)
    row = store.of_job(job.id, version.id)
    assert row is not None, job.text
    found = json.loads((store.folder(row) / "forgetting.json").read_text())
    store.database.close()
    assert {r["name"]: r["kind"] for r in found["classes"]} == {
        "circle": "old",
        "square": "old",
        "triangle": "new",
    }
    assert found["old_classes"] is not None
    assert "Old classes: " in job.text


@pytest.mark.parametrize("family", ["yolo", "mobilenet"])
def test_it_learns_from_a_teacher(registry: Registry, job: RecordingJob, family: str) -> None:
    names = (*OLD, *NEW)
    teacher = taught(registry, job)
    if family == "yolo":
        teacher = narrow_network(registry, "classify", names)
    student = narrow_mobilenet(registry, names)
    options = {"teacher": teacher, "enable_consistency": True}
    fields: dict[str, Any] = {"mode": "distillation", "model": student, "distillation": options}
    plan = recipe(registry, "classify", epochs=2, **fields)

    class Stopped(BaseException):
        """Stands for JobCancelled."""

    job.stop_when = lambda job: Stopped() if len(job.checkpoints) == 1 else None
    with pytest.raises(Stopped):
        run(plan, job)
    assert (job.folder / "checkpoints" / "distillation.pt").is_file()
    job.stop_when = lambda _: None
    trained = run(plan, job)
    known = 2 if family == "mobilenet" else 3
    assert f"knows {known} of the 3 classes" in job.text
    assert "Training from epoch 2 to epoch 2" in job.text
    assert "projectors start with new weights" not in job.text
    assert {"distill_cls", "distill_feat", "consistency"} <= set(job.metrics[-1])
    model, description = load_model(trained.folder)
    assert description.architecture["width_mult"] == 0.25
    assert not any("projectors" in name for name in model.state_dict())


def test_old_images_are_replayed_in_a_distillation(registry: Registry, job: RecordingJob) -> None:
    teacher = taught(registry, job)
    student = narrow_mobilenet(registry, (*OLD, *NEW))
    options = {"teacher": teacher, "old_data": part("old", OLD), "max_replay_samples": 6}
    options["replay_distill_boost"] = 2.0
    data = part("two", ("square", "triangle"))
    fields: dict[str, Any] = {"mode": "distillation", "model": student, "distillation": options}
    trained = run(recipe(registry, "classify", epochs=1, data=data, **fields), job)
    assert "6 old images are replayed, 20% of each epoch, which adds the classes circle" in job.text
    _, description = load_model(trained.folder)
    assert description.names == ("square", "triangle", "circle")


def test_layers_are_unfrozen_in_two_stages(registry: Registry, job: RecordingJob) -> None:
    base = narrow_mobilenet(registry, OLD)
    before = load_model(registry.get(base).path)[0].state_dict()
    last = job.folder / "checkpoints" / "last.pt"
    held: list[bool] = []

    def look(job: RecordingJob) -> None:
        if len(held) < len(job.checkpoints):
            saved = torch.load(last, weights_only=True)["model"]
            names = ("features.0.0.weight", "features.0.1.running_mean")
            held.append(all(torch.equal(saved[name], before[name]) for name in names))

    job.stop_when = look
    plan = recipe(registry, "classify", mode="freeze_strategy", model=base, epochs=3, patience=1)
    assert plan.min_epochs_per_stage == 1
    run(plan, job)
    assert held[:2] == [True, False]
    assert [line for line in job.lines if line.startswith("Stage")] == [
        "Stage 1 of 2: head learning.",
        "Stage 2 of 2: backbone and head learning.",
    ]
    assert {m["stage"] for m in job.metrics if "stage" in m} == {1.0, 2.0}


def test_without_the_strategy_all_layers_learn(registry: Registry, job: RecordingJob) -> None:
    base = narrow_mobilenet(registry, OLD)
    fields: dict[str, Any] = {"mode": "freeze_strategy", "use_freeze_strategy": False}
    trained = run(recipe(registry, "classify", model=base, epochs=1, **fields), job)
    assert "all layers train from the start" in job.text
    assert ClassPrototypes.load(trained.folder) is not None
    assert Path(trained.folder / "model.safetensors").is_file()


def test_with_few_old_images_only_the_new_rows_are_trained(
    registry: Registry, job: RecordingJob
) -> None:
    base = taught(registry, job)
    options = {"old_data": part("old", OLD), "max_replay_samples": 6}
    trained = run(incremental(registry, base, incremental=options), job)
    said = trained.decisions[0]
    assert "6 old images are kept for 2 old classes" in said
    assert said in job.lines
    before, after = (load_model(f)[0] for f in (registry.get(base).path, trained.folder))
    rows = [last_layer(model).weight for model in (before, after)]
    assert torch.equal(rows[0], rows[1][:2])
    assert "old_classes" in trained.metrics  # old val images still choose the epoch
