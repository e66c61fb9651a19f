"""Incremental learning end to end: tiny trainings of every task, one up to its report."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dataset.label_files import LabelRow
from errors import ValidationFailed
from evaluation.results import INCREMENTAL
from evaluation.store import EvaluationStore
from jobs.job import Job
from models_store.description import ONNX_FILE, Task
from models_store.export import export_onnx
from models_store.registry import Registry
from models_store.weights import load_model
from settings import get_settings
from tests.support.shapes import write_shapes
from tests.support.trainer_job import RecordingJob, drawn, narrow_network, recipe, run
from training.incremental.class_prototypes import ClassPrototypes
from training.job import train as work
from training.modes.incremental import fit, set_up, strength_of
from training.replay.buffer import FILE
from training.yolo.feature_extractor import FeatureExtractor


def shapes(task: Task, seed: int, **changed: Any) -> str:
    """A small drawn dataset of its own; `changed` goes into its data.yaml."""
    folder = get_settings().home / "datasets" / f"small-{task}-{seed}"
    if not folder.exists():
        write_shapes(folder, task, train=12, val=4, imgsz=96, seed=seed)
    if task == "classify":
        return str(folder)
    content = yaml.safe_load((folder / "data.yaml").read_text()) | changed
    target = folder / f"{'-'.join(changed) or 'plain'}.yaml"
    target.write_text(yaml.safe_dump(content))
    return str(target)


def planned(registry: Registry, task: Task, base: str, **fields: Any) -> Any:
    options = {"old_data": shapes(task, 1), "max_replay_samples": 4}
    hyper = {} if task == "classify" else {"mosaic": 0.5}
    defaults = {"mode": "incremental", "base_model": base, "data": shapes(task, 2), "epochs": 1}
    return recipe(registry, task, **({**defaults, "incremental": options, "hyper": hyper} | fields))


@pytest.mark.parametrize("task", ["segment", "pose", "classify"])
def test_every_task_learns_new_classes(registry: Registry, job: RecordingJob, task: Task) -> None:
    known = ("arrow",) if task == "pose" else ("Triangle", "lamp")
    base = narrow_network(registry, task, known)
    data = shapes(task, 2, names={0: "dart"}) if task == "pose" else shapes(task, 2)
    trained = run(planned(registry, task, base, data=data), job)
    model, description = load_model(trained.folder)
    added = ("dart",) if task == "pose" else ("circle", "square")
    assert description.names == (*known, *added)
    assert f"{len(known)} classes of" in job.text
    assert "4 of 12 old images are kept for replay" in job.text
    assert "25% of each epoch are old images" in job.text
    assert set(trained.class_counts) == {*known, *added}
    assert model is not None


def test_a_job_learns_and_reports_forgetting(registry: Registry, job: RecordingJob) -> None:
    base = narrow_network(registry, "detect", ("Triangle", "lamp"))
    export_onnx(registry.get(base).path)
    plan = planned(registry, "detect", base, epochs=2, name="more-shapes")
    memory: list[str] = []

    class Stopped(BaseException):
        """Stands for JobCancelled."""

    job.stop_when = lambda job: Stopped() if len(job.checkpoints) == 1 else None
    row = Job(recipe=plan.model_dump(mode="json"))
    with pytest.raises(Stopped):
        work(job, row, registry)
    memory.append((job.folder / FILE).read_text())
    job.stop_when = lambda _: None
    version = work(job, row, registry)
    memory.append((job.folder / FILE).read_text())
    assert memory[0] == memory[1]
    assert "Training from epoch 2 to epoch 2" in job.text

    assert version.description.names == ("Triangle", "lamp", "circle", "square")
    assert version.source["parent"] == base
    assert version.source["mode"] == "incremental"
    store = EvaluationStore(registry.database)
    row_of_new = store.of_job(job.id, version.id)
    assert row_of_new is not None
    kept = store.folder(row_of_new)
    assert [row.dataset for row in store.history(version.id)] == [
        Path(shapes("detect", 1)).parent.name,
        row_of_new.dataset,
    ]
    assert len(store.history(base)) == 2  # the gate need not measure again
    assert registry.get(base).metrics is None
    assert not any("has changed since" in note for note in store.report(row_of_new)["notes"])
    store.database.close()
    found = json.loads((kept / "forgetting.json").read_text())
    assert found["metric"] == "mAP50_95"
    kinds = {row["name"]: row["kind"] for row in found["classes"]}
    assert kinds == {"Triangle": "old", "circle": "new", "square": "new"}
    assert found["unmeasured"] == ["lamp"]
    assert (kept / "plots" / "forgetting.png").is_file()
    assert "forgetting" in json.loads((kept / "report.json").read_text())["plots"]
    assert version.source["class_counts"] == {}  # what the base model was trained on is not known
    metrics = registry.get(version.id).metrics or {}
    assert metrics["evaluation"] == row_of_new.id
    assert {"old_classes_before", "old_classes", "new_classes", "mAP50"} <= set(metrics)
    assert {"old_classes", "new_classes"} <= set(job.metrics[-1])
    assert "Old classes: " in job.text
    assert "each a mean mAP50_95" in job.text
    stored = json.loads((kept / "report.json").read_text())
    assert next(iter(stored)) == "forgetting"
    assert list(metrics)[:4] == list(found)[3:7] == [*INCREMENTAL]
    assert found["added"] == ["circle", "square"]

    # killed after the report was stored
    registry.set_metrics(version.id, {})
    job.metrics.clear()
    assert work(job, row, registry).id == version.id
    again = registry.get(version.id).metrics or {}
    assert {name: again[name] for name in INCREMENTAL} == {
        name: found[name] for name in INCREMENTAL
    }
    assert job.metrics == [row_of_new.figures, {name: found[name] for name in INCREMENTAL}]


@pytest.mark.parametrize(
    ("has_prototypes", "imgsz", "has"),
    [(False, 96, False), (True, 96, True), (True, 64, False)],  # the base model is of 96 pixels
)
def test_one_new_class_without_old_images(
    registry: Registry, job: RecordingJob, has_prototypes: bool, imgsz: int, has: bool
) -> None:
    base = narrow_network(registry, "classify", ("circle", "square"))
    before, _ = load_model(registry.get(base).path)
    if has_prototypes:
        width = before.model[-1].linear.in_features  # type: ignore[index, union-attr]
        means = ClassPrototypes(torch.rand(2, width), torch.tensor([30, 20]))
        means.save(registry.get(base).path)
    folder = Path(shapes("classify", 3))
    for split in ("train", "val"):
        for name in ("circle", "square"):
            for file in (folder / split / name).glob("*.jpg"):
                file.unlink()
    fields = {"data": str(folder), "incremental": None, "imgsz": imgsz}
    trained = run(planned(registry, "classify", base, **fields), job)
    after, description = load_model(trained.folder)
    assert description.names == ("circle", "square", "triangle")
    assert "1 new ones: triangle" in job.text
    assert "replay" not in job.text
    # Only the new row was trained, so the old classes' prototypes are still valid.
    rows = [model.state_dict()["model.9.linear.weight"] for model in (before, after)]
    assert torch.allclose(rows[0], rows[1][:2], atol=1e-3)
    assert (f"The base model {'has' if has else 'lacks'} class prototypes") in job.text
    found = ClassPrototypes.load(trained.folder)
    assert found is not None
    assert found.counts[:2].tolist() == ([30, 20] if has else [0, 0])
    assert found.counts[2] > 0


def test_weight_decay_does_not_shrink_the_rows_of_old_classes(
    registry: Registry, job: RecordingJob
) -> None:
    base = narrow_network(registry, "classify", ("Triangle", "lamp"))
    setup = set_up(planned(registry, "classify", base, incremental=None), job, get_settings())
    assert setup.rows_only
    network: Any = setup.start.model
    loss = setup.classifier_loss(network.train(), torch.device("cpu"))
    linear = network.model[-1].linear
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.5)
    batch = {"img": torch.rand(4, 3, 64, 64), "cls": torch.tensor([2, 3, 2, 3])}
    for _ in range(3):
        before = linear.weight.detach().clone()
        loss(network(batch["img"]), batch)[0].backward()
        optimizer.step()
        optimizer.zero_grad()
    network(batch["img"])
    old: Any = setup.old.model
    assert torch.equal(linear.weight[:2], old.model[-1].linear.weight)
    assert torch.equal(linear.bias[:2], old.model[-1].linear.bias)
    assert not torch.equal(linear.weight[2:], before[2:])


def test_old_data_of_other_classes_is_refused(registry: Registry, job: RecordingJob) -> None:
    base = narrow_network(registry, "detect", ("lamp",))
    with pytest.raises(
        ValidationFailed, match="old_data_path has none of the base model's classes"
    ):
        planned(registry, "detect", base)  # before it is queued
    plan = planned(registry, "detect", narrow_network(registry, "detect", ("circle",)))
    plan = plan.model_copy(update={"base": plan.base.model_copy(update={"value": base})})
    with pytest.raises(
        ValidationFailed, match="old_data_path has none of the base model's classes"
    ):
        run(plan, job)  # a weights file's classes are known only once it is loaded


def test_a_third_step_holds_what_the_second_taught(registry: Registry, job: RecordingJob) -> None:
    """The old data are those of the first step: nobody labelled the lamps in them."""
    base = narrow_network(registry, "detect", ("Triangle", "lamp"))
    plan = planned(registry, "detect", base)
    note = f"old_data_path has no objects of 'lamp', which {base} knows"
    assert any(note in line for line in plan.notes)
    setup = set_up(plan, job, get_settings())
    assert setup.unlabelled == [1]
    assert note not in job.text  # said in the answer; the log begins with the answer's notes
    unnoted = plan.model_copy(update={"notes": ()})  # of a weights file, planning knows no class
    set_up(unnoted, job, get_settings())
    assert note in job.text

    base = narrow_network(registry, "classify", ("Triangle", "lamp"))
    options = {"old_data": shapes("classify", 1), "max_replay_samples": 1000}
    equal = planned(registry, "classify", base, incremental=options)
    setup = set_up(equal, RecordingJob(job.folder.with_name("equal")), get_settings())
    assert setup.strength.scores > 0


def test_a_classifier_learns_a_class_without_images_of_the_old_ones(
    registry: Registry, job: RecordingJob
) -> None:
    """Trained, published with class prototypes, then trained further without old images."""
    everything = drawn("classify", imgsz=64)
    folders = {"old": ("circle", "square"), "new": ("triangle",)}
    for phase, names in folders.items():
        for split in ("train", "val"):
            for name in names:
                target = get_settings().home / "datasets" / phase / split / name
                shutil.copytree(everything / split / name, target)
    home = get_settings().home / "datasets"
    fields = {"data": str(home / "old"), "epochs": 8, "model": narrow_network(registry, "classify")}
    trained = run(recipe(registry, "classify", **fields), job)
    (trained.folder / ONNX_FILE).write_bytes(b"never served")
    base = registry.publish(trained.folder, "shapes", {"kind": "train"}).id

    plan = planned(registry, "classify", base, data=str(home / "new"), incremental=None, epochs=2)
    after = RecordingJob(job.folder.with_name("after"))
    learned = run(plan, after)
    assert "has class prototypes" in after.text

    def accuracy(folder: Path, *names: str) -> float:
        model, description = load_model(folder)
        truth = {
            image: (LabelRow(description.names.index(name), ()),)
            for name in names
            for image in (everything / "val" / name).iterdir()
        }
        extractor = FeatureExtractor(model, "classify", 64, torch.device("cpu"))
        return float((extractor.extract(list(truth), truth).hardness < 0.5).mean())

    assert accuracy(trained.folder, "circle", "square") > 0.8
    assert accuracy(learned.folder, "circle", "square") > 0.7
    assert accuracy(learned.folder, "triangle") > 0.5


@pytest.mark.parametrize(("buffer_size", "kept"), [(9, False), (0, True)])
def test_with_replay_statistics_are_updated(buffer_size: int, kept: bool) -> None:
    assert strength_of(buffer_size).statistics is kept


def test_scores_are_held_unless_all_classes_are_equally_frequent() -> None:
    assert strength_of(9).scores > 0
    assert strength_of(9, balanced=True).scores == 0


@pytest.mark.parametrize("kept", [True, False])
def test_statistics_are_frozen_as_set(registry: Registry, job: RecordingJob, kept: bool) -> None:
    base = narrow_network(registry, "classify", ("Triangle", "lamp"))
    setup = set_up(planned(registry, "classify", base), job, get_settings())
    strength = replace(setup.strength, statistics=kept)
    trained = fit(replace(setup, strength=strength), job)
    means = [
        load_model(folder)[0].state_dict()["model.0.bn.running_mean"]
        for folder in (registry.get(base).path, trained.folder)
    ]
    assert torch.equal(*means) is kept
