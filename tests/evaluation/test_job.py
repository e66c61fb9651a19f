"""Evaluations as jobs: at the end of a training, asked for, of a starter, ended, failed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from database import Database
from errors import ValidationFailed
from evaluation import job as evaluating
from evaluation.recipe import EvaluationRecipe, plan_evaluation
from evaluation.store import EvaluationStore
from jobs.store import JobStore
from models_store.description import Task
from models_store.registry import Registry
from settings import get_settings
from synthetic import evaluation_sets
from synthetic.signs import CLASS_NAMES
from tests.support.shapes import write_shapes
from tests.support.small_models import NAMES, make_model
from tests.support.trainer_job import Paths, RecordingJob, drawn, narrow_network, recipe, run
from training.job import evaluate_training, train
from training.publish import publish


@pytest.fixture
def evaluations() -> Iterator[EvaluationStore]:
    store = EvaluationStore(Database(get_settings()))
    yield store
    store.database.close()


@pytest.fixture
def jobs() -> Iterator[JobStore]:
    store = JobStore(Database(get_settings()))
    yield store
    store.database.close()


def published(
    registry: Registry, folder: Path, name: str, names: tuple[str, ...] = NAMES, **source: Any
) -> str:
    """The id of a small detector that has learned nothing."""
    make_model(folder, "detect")
    text = (folder / "model.json").read_text()
    for old, new in zip(NAMES, names, strict=True):
        text = text.replace(f'"{old}"', f'"{new}"')
    (folder / "model.json").write_text(text)
    return registry.publish(folder, name, {"kind": "import"} | source).id


def data(name: str, task: Task = "detect") -> Path:
    folder = get_settings().home / "datasets" / name
    return write_shapes(folder, task, train=4, val=3, imgsz=64)


def planned(
    registry: Registry, jobs: JobStore, model_id: str, dataset: str | None, split: str | None = None
) -> EvaluationRecipe:
    return plan_evaluation(model_id, dataset, split, registry, Paths(), jobs, get_settings())


def test_a_training_ends_with_an_evaluation_equal_to_ultralytics(
    registry: Registry, job: RecordingJob, evaluations: EvaluationStore, tmp_path: Path
) -> None:
    hyper = {"mosaic": 0.0, "fliplr": 0.0, "workers": 0, "lr0": 0.004}
    plan = recipe(
        registry,
        "segment",
        model=narrow_network(registry, "segment"),
        epochs=8,
        name="trained-shapes",
        hyper=hyper,
    )
    row: Any = SimpleNamespace(recipe=plan.model_dump(mode="json"))
    version = train(job, row, registry)
    found = evaluations.of_job(job.id, version.id)
    assert found is not None
    metrics = registry.get(version.id).metrics or {}
    assert metrics["mask_mAP50"] == found.figures["mask_mAP50"], job.text
    assert found.figures["mask_mAP50"] > 0.02, "nothing was learned that could be compared"
    assert (metrics["split"], metrics["last_updated"]) == ("val", found.created_at)
    assert job.metrics[-1] == found.figures
    assert job.fractions[-1] == 1.0
    assert "Evaluated on 16 images: accuracy 0." in job.text
    assert evaluations.report(found)["model"]["id"] == version.id
    assert not (job.folder / "evaluation").exists()

    wanted = validated(version.path, tmp_path)
    for prefix, metric in (("", wanted.box), ("mask_", wanted.seg)):
        assert found.figures[f"{prefix}mAP50"] == pytest.approx(metric.map50, abs=1e-4)
        assert found.figures[f"{prefix}mAP50_95"] == pytest.approx(metric.map, abs=1e-4)
        assert found.figures[f"{prefix}precision"] == pytest.approx(metric.mp, abs=1e-3)
        assert found.figures[f"{prefix}recall"] == pytest.approx(metric.mr, abs=1e-3)

    # killed after that: neither trained, published nor evaluated again
    registry.set_metrics(version.id, {})
    lines = len(job.lines)
    assert train(job, row, registry).id == version.id
    assert len(job.lines) == lines
    assert [row.id for row in evaluations.history(version.id)] == [found.id]
    assert (registry.get(version.id).metrics or {})["mAP50"] == found.figures["mAP50"]


def validated(folder: Path, tmp_path: Path) -> Any:
    from ultralytics import YOLO

    from dataset.inspection import check
    from models_store.weights import load_model

    dataset = check(drawn("segment"), "segment", [get_settings().home])
    model: Any = YOLO("yolov8n-seg.yaml", task="segment")
    model.model, _ = load_model(folder)
    options = {"rect": False, "plots": False, "verbose": False, "workers": 0, "device": "cpu"}
    view = dataset.materialise(tmp_path / "view")
    return model.val(data=str(view), imgsz=96, project=str(tmp_path / "runs"), **options)


def test_the_report_says_what_was_chosen_in_place_of_the_request(
    registry: Registry, job: RecordingJob, evaluations: EvaluationStore
) -> None:
    base = narrow_network(registry, "classify")
    plan = recipe(registry, "classify", mode="freeze_strategy", model=base, epochs=2)
    (said,) = plan.decisions
    version = publish(run(plan, job), plan, job, registry)
    row = evaluate_training(version, plan, job, registry)
    assert row is not None, job.text
    assert "min_epochs_per_stage is 1" in said
    assert said in evaluations.report(row)["notes"]
    assert said in job.lines


def test_data_of_a_single_new_class_can_be_measured(registry: Registry, jobs: JobStore) -> None:
    """As it is after a training that added one class to a classifier."""
    base = narrow_network(registry, "classify")
    folder = data("one", "classify")
    for split in ("train", "val"):
        for other in ("square", "triangle"):
            shutil.rmtree(folder / split / other)
    assert planned(registry, jobs, base, str(folder)).dataset == str(folder)


def test_an_evaluation_that_fails_does_not_lose_the_model(
    registry: Registry, job: RecordingJob, evaluations: EvaluationStore
) -> None:
    model_id = narrow_network(registry, "detect")
    version = registry.get(model_id)
    for name in ("model.onnx", "model.safetensors"):
        (version.path / name).write_bytes(b"damaged")
    plan = recipe(registry, "detect", model=model_id, name="fails")
    assert evaluate_training(version, plan, job, registry) is None
    assert registry.get(model_id).metrics is None
    assert f"The evaluation failed: The model '{model_id}' is damaged" in job.text
    assert f"The model {model_id} stays published." in job.text
    assert evaluations.history(model_id) == []


def test_a_version_that_is_deleted_while_it_is_measured_leaves_nothing(
    registry: Registry, job: RecordingJob, evaluations: EvaluationStore, tmp_path: Path
) -> None:
    model_id = published(registry, tmp_path / "model", "vanishing", ("circle", "b", "c"))
    version = registry.get(model_id)
    plan = recipe(registry, "detect", model=narrow_network(registry, "detect"), name="vanishing")

    def delete(job: RecordingJob) -> None:
        if registry.list() and model_id in [model.id for model in registry.list()]:
            registry.delete(model_id)

    folders = get_settings().home / "evaluations"
    before = set(folders.glob("*"))
    job.stop_when = delete
    assert evaluate_training(version, plan, job, registry) is None
    assert evaluations.history(model_id) == []
    assert set(folders.glob("*")) == before


@pytest.mark.slow
def test_metrics_stay_on_the_data_that_a_model_was_trained_with(
    registry: Registry, job: RecordingJob, tmp_path: Path
) -> None:
    names = ("circle", "square", "triangle")
    source = {"kind": "train", "dataset_fingerprint": "as-it-was"}
    taught = published(registry, tmp_path / "taught", "taught", names, **source)
    foreign = published(registry, tmp_path / "foreign", "foreign", names)
    own, other = data("own-data"), data("other-data")

    def measure(model_id: str, path: Path, split: str = "val", **fields: Any) -> tuple[str, str]:
        auxiliary = fields.pop("auxiliary", False)
        plan = EvaluationRecipe(
            model_id=model_id, task="detect", dataset=str(path), split=split, **fields
        )
        evaluating.run_evaluation(plan, job, registry, auxiliary=auxiliary)
        metrics = registry.get(model_id).metrics or {}
        return metrics.get("dataset", ""), metrics.get("split", "")

    assert measure(taught, own, auxiliary=True) == ("", "")
    assert measure(taught, own, trained_on="as-it-was") == ("own-data", "val")
    registry.set_metrics(
        taught, {**(registry.get(taught).metrics or {}), "old_classes": 0.5, "mAP50": 9.0}
    )
    assert measure(taught, other) == ("own-data", "val")
    assert measure(taught, own, "train", trained_on="as-it-was") == ("own-data", "val")
    assert (registry.get(taught).metrics or {})["mAP50"] == 9.0
    assert measure(taught, own) == ("own-data", "val")
    again = registry.get(taught).metrics or {}
    assert (again["old_classes"], again["mAP50"] <= 1) == (0.5, True)

    assert measure(foreign, own, "train") == ("own-data", "train")
    assert measure(foreign, own) == ("own-data", "val")
    assert measure(foreign, other, "train") == ("own-data", "val")
    assert measure(foreign, other, auxiliary=True) == ("own-data", "val")
    assert measure(foreign, other) == ("other-data", "val")


def test_an_evaluation_that_was_asked_for(
    registry: Registry,
    job: RecordingJob,
    jobs: JobStore,
    evaluations: EvaluationStore,
    tmp_path: Path,
) -> None:
    names = ("circle", "Square", "star")
    model_id = published(registry, tmp_path / "model", "asked", names)
    path = data("asked")
    plan = planned(registry, jobs, "asked", str(path), "TRAIN")
    assert plan == EvaluationRecipe(
        model_id=model_id, task="detect", dataset=str(path), split="train"
    )
    row = evaluating.run_evaluation(plan, job, registry)
    assert (row.dataset, row.split, row.job_id) == ("asked", "train", job.id)
    assert row.figures["images"] == 4.0
    report = evaluations.report(row)
    assert report["unknown_classes"] == ["triangle"]
    assert "does not know the dataset's class triangle" in job.text
    again = evaluating.run_evaluation(plan, job, registry)
    assert [r.id for r in evaluations.history(model_id)] == [again.id, row.id]
    assert evaluations.latest(model_id, row.fingerprint, "train", "rect") is not None
    assert evaluations.latest(model_id, row.fingerprint, "val", "rect") is None
    assert evaluations.latest(model_id, row.fingerprint, "train", "square") is None

    folders = [evaluations.folder(r) for r in (row, again)]
    assert all((folder / "predictions.npz").is_file() for folder in folders)
    assert evaluations.delete_for(model_id) == 2
    assert not any(folder.exists() for folder in folders)
    assert evaluations.history(model_id) == []


def test_cancelling_leaves_no_evaluation(
    registry: Registry,
    job: RecordingJob,
    jobs: JobStore,
    evaluations: EvaluationStore,
    tmp_path: Path,
) -> None:
    class Cancelled(BaseException):
        pass

    model_id = published(registry, tmp_path / "model", "cancelled", ("circle", "b", "c"))
    plan = planned(registry, jobs, model_id, str(data("cancelled")))
    job.stop_when = lambda job: Cancelled() if len(job.fractions) > 2 else None
    with pytest.raises(Cancelled):
        evaluating.run_evaluation(plan, job, registry)
    assert evaluations.history(model_id) == []
    assert registry.get(model_id).metrics is None


def test_what_it_was_trained_with_is_taken_unless_told_otherwise(
    registry: Registry, job: RecordingJob, jobs: JobStore, tmp_path: Path
) -> None:
    path = data("trained-with")
    made = jobs.create("training", config={}, recipe={"dataset": str(path)})
    source = {"job_id": made.id, "dataset_fingerprint": "another", "dataset": "trained-with"}
    names = ("circle", "square", "triangle")
    model_id = published(registry, tmp_path / "model", "taught", names, **source)
    plan = planned(registry, jobs, model_id, None)
    assert (plan.dataset, plan.split, plan.trained_on) == (str(path), "val", "another")
    row = evaluating.run_evaluation(plan, job, registry)
    assert "The dataset has changed since the model was trained on it." in job.text
    assert row.dataset == "trained-with"

    expected = r"'split' is 'test', but this dataset has train, val\."
    with pytest.raises(ValidationFailed, match=expected):
        planned(registry, jobs, model_id, None, "test")
    shutil.rmtree(path.parent)
    with pytest.raises(ValidationFailed, match=r"\(trained-with\) no longer exists.*dataset_path"):
        planned(registry, jobs, model_id, None)


def test_models_of_unknown_origin_need_a_data_set_of_their_classes(
    registry: Registry, jobs: JobStore, tmp_path: Path
) -> None:
    model_id = published(registry, tmp_path / "model", "foreign")
    with pytest.raises(
        ValidationFailed, match=r"training data of foreign:.* is not known.*dataset_path"
    ):
        planned(registry, jobs, model_id, "")
    written = (data("foreign").read_text()).replace("square", "b").replace("circle", "a")
    (get_settings().home / "datasets/foreign/data.yaml").write_text(written)
    with pytest.raises(ValidationFailed, match="no class in common: the model knows round, square"):
        planned(registry, jobs, model_id, str(get_settings().home / "datasets/foreign/data.yaml"))


def test_starters_draw_their_pictures_once(
    registry: Registry,
    job: RecordingJob,
    jobs: JobStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evaluation_sets, "SCENES", 2)
    monkeypatch.setattr(evaluation_sets, "TRAIN", 1)
    names = CLASS_NAMES[:3]
    model_id = published(registry, tmp_path / "model", "starting", names, kind="starter")
    plan = planned(registry, jobs, model_id, None)
    assert plan.dataset is None
    row = evaluating.run_evaluation(plan, job, registry)
    assert (row.dataset, row.figures["images"]) == ("drawn traffic signs", 2.0)
    assert [path.name for path in get_settings().paths.starter_sets.iterdir()] == ["scenes-1"]
    assert job.fractions == sorted(job.fractions)
    drawn_at = Path(row.dataset_path).stat().st_mtime_ns
    again = evaluating.run_evaluation(plan, job, registry)
    assert again.fingerprint == row.fingerprint
    assert Path(row.dataset_path).stat().st_mtime_ns == drawn_at
    with pytest.raises(ValidationFailed, match="this dataset has val"):
        planned(registry, jobs, model_id, None, "train")
