from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from database import Database
from errors import (
    DatasetInvalid,
    DatasetNotFound,
    Forbidden,
    JobNotFound,
    ModelNotFound,
    ValidationFailed,
)
from jobs.artifacts import note_best
from jobs.job import Job, Kind
from jobs.store import JobStore
from models_store.description import Task
from models_store.registry import Registry
from settings import Settings
from tests.support.shapes import write_shapes
from training.planning.base_models import choose_base
from training.planning.plan import plan
from training.planning.recipe import Recipe, TrainingRequest, shown_config


class Paths:
    def resolve(self, reference: str) -> Path:
        return Path(reference)


def planned(registry: Registry, settings: Settings, data: Path | None, **fields: Any) -> Recipe:
    request = TrainingRequest(data=str(data) if data else None, **fields)
    return plan(request, registry, Paths(), settings)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"task": "detect", "name": "detect_yolov8s", "imgsz": 640, "parent": None}),
        ({"model": "n", "task": "detect"}, {"name": "detect_yolov8n"}),
        ({"model": "yolo11n"}, {"name": "detect_yolo11n", "family": "yolo"}),
        ({"model": "signs"}, {"name": "signs", "imgsz": 320}),
        ({"model": "signs", "imgsz": 100, "name": "mine"}, {"name": "mine", "imgsz": 128}),
        ({"model": "n", "weights": "signs"}, {"name": "signs"}),
        ({"model": "m"}, {"name": "detect_yolov8m"}),  # pretrained, in the registry
        ({"epochs": 1, "batch": 1, "patience": 0}, {"epochs": 1, "batch": 1, "patience": 0}),
        (
            {"hyper": {"lr0": "0.01", "mosaic": 0, "seed": ""}},
            {"hyper": {"lr0": 0.01, "mosaic": 0}},
        ),
        ({"mode": "freeze_strategy"}, {"min_epochs_per_stage": 5}),
        ({"mode": "freeze_strategy", "epochs": 4}, {"min_epochs_per_stage": 1}),
        ({"mode": "freeze_strategy", "epochs": 200}, {"min_epochs_per_stage": 15}),
        ({"mode": "freeze_strategy", "min_epochs_per_stage": 14}, {"min_epochs_per_stage": 14}),
        (
            {"mode": "freeze_strategy", "epochs": 10, "min_epochs_per_stage": 14},
            {"min_epochs_per_stage": 3},
        ),
        (
            {
                "mode": "freeze_strategy",
                "epochs": 10,
                "min_epochs_per_stage": 9,
                "task": "classify",
                "data": "classes",
            },
            {"min_epochs_per_stage": 5},
        ),
        (
            {"mode": "freeze_strategy", "epochs": 10, "use_freeze_strategy": False},
            {"min_epochs_per_stage": 15},
        ),
    ],
)
def test_a_request_becomes_a_recipe(
    registry: Registry, settings: Settings, data: Path, fields: Any, expected: dict[str, Any]
) -> None:
    if fields.get("data") == "classes":
        fields = fields | {"data": write_shapes(data.parent.parent / "kinds", "classify", 6, 3, 32)}
    recipe = planned(registry, settings, **{"data": data} | fields)
    assert {name: getattr(recipe, name) for name in expected} == expected
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


@pytest.mark.parametrize("mode", ["freeze_strategy", "distillation"])
def test_a_mobilenet_is_trained_in_every_mode(
    registry: Registry, settings: Settings, data: Path, mode: str
) -> None:
    images = write_shapes(data.parent.parent / "kinds", "classify", 6, 3, 32)
    more: dict[str, Any] = {mode: {"teacher": "leaves"}} if mode == "distillation" else {}
    recipe = planned(registry, settings, images, mode=mode, model="mobilenet", **more)
    assert (recipe.mode, recipe.family) == (mode, "mobilenet")


@pytest.mark.parametrize(
    ("fields", "gpus", "note"),
    [
        ({}, 2, "Trains on 2 GPUs, with 4 images of a batch on each."),
        ({"mode": "freeze_strategy"}, 2, "Trains on 2 GPUs, with 4 images of a batch on each."),
        ({"batch": 9}, 1, "instead of 2 (VISIONLOOP_TRAIN_GPUS): batch 9 is not a multiple of 2."),
        ({"batch": 1}, 1, "instead of 2 (VISIONLOOP_TRAIN_GPUS): batch 1 is not a multiple of 2."),
        (
            {"mode": "distillation", "distillation": {"teacher": "yolov8m"}},
            1,
            "instead of 2 (VISIONLOOP_TRAIN_GPUS): mode distillation cannot use several.",
        ),
        (
            {"model": "mobilenet"},
            1,
            "instead of 2 (VISIONLOOP_TRAIN_GPUS): only YOLO models can use several.",
        ),
    ],
)
def test_a_training_uses_the_gpus_of_the_settings_or_says_why_not(
    registry: Registry,
    settings: Settings,
    data: Path,
    fields: dict[str, Any],
    gpus: int,
    note: str,
) -> None:
    if fields.get("model") == "mobilenet":
        data = write_shapes(data.parent.parent / "kinds", "classify", 6, 3, 32)
    two = settings.model_copy(update={"train_gpus": 2})
    recipe = planned(registry, two, data, **fields)
    assert recipe.gpus == gpus
    assert recipe.notes[-1].endswith(note)
    alone = planned(registry, settings, data, **fields)
    assert (alone.gpus, alone.notes) == (1, recipe.notes[:-1])


def test_a_default_stage_length_is_lowered_and_said(
    registry: Registry, settings: Settings, data: Path
) -> None:
    recipe = planned(registry, settings, data, mode="freeze_strategy", epochs=50)
    (said,) = recipe.decisions
    assert "min_epochs_per_stage is 5, a tenth of the 50 epochs" in said
    assert said in recipe.notes
    chosen = planned(registry, settings, data, mode="freeze_strategy", min_epochs_per_stage=14)
    assert chosen.decisions == ()


@pytest.mark.parametrize("stage", [15, 7])
def test_layers_that_no_epoch_is_left_for_are_told(
    registry: Registry, settings: Settings, data: Path, stage: int
) -> None:
    fields: dict[str, Any] = {"mode": "freeze_strategy", "min_epochs_per_stage": stage}
    short = planned(registry, settings, data, epochs=2, **fields)
    assert short.min_epochs_per_stage == 1
    assert "only 2 of the 3 stages are trained" in short.decisions[0]
    long = planned(registry, settings, data, epochs=3, **fields)
    assert "are trained" not in " ".join(long.decisions)


def test_label_smoothing_is_refused_where_the_loss_has_none(
    registry: Registry, settings: Settings, data: Path, tmp_path: Path
) -> None:
    leaves = registry.get("leaves").description
    described = leaves.model_copy(update={"family": "mobilenet"})
    described.save(tmp_path)
    for file in ("model.safetensors", "model.onnx"):
        (tmp_path / file).touch()
    registry.publish(tmp_path, "mobile", {"kind": "import"})
    images = write_shapes(data.parent.parent / "kinds", "classify", 6, 3, 32)
    hyper = {"label_smoothing": 0.1}
    assert planned(registry, settings, images, model="mobile", hyper=hyper).hyper == hyper
    with pytest.raises(ValidationFailed, match="no effect in mode incremental"):
        planned(registry, settings, images, mode="incremental", base_model="mobile", hyper=hyper)
    registry.delete("mobile")


@pytest.mark.parametrize("mode", ["regular", "freeze_strategy", "distillation"])
def test_a_version_that_knows_less_than_the_last_is_told(
    registry: Registry, settings: Settings, data: Path, mode: str
) -> None:
    """The model `signs` knows `a` and `circle`; the shapes are circle, square and triangle."""
    fields: dict[str, Any] = {"mode": mode, "model": "signs"}
    fields |= {"distillation": {"teacher": "yolov8m"}} if mode == "distillation" else {}
    word = f"will not know 'a', which {registry.get('signs').id} knows"
    assert any(word in note for note in planned(registry, settings, data, **fields).notes)
    for other in ({"name": "mine"}, {"model": "m"}):  # another model than the one that knows it
        found = planned(registry, settings, data, **fields | other)
        assert not any("will not know" in note for note in found.notes)
    if mode == "distillation":
        content = data.read_text().replace("square", "a")
        old = data.with_name("old.yaml")
        old.write_text(content)
        fields["distillation"] |= {"old_data": str(old)}
        found = planned(registry, settings, data, **fields)
        assert not any("will not know" in note for note in found.notes)


def test_the_learning_modes_resolve_what_they_learn_from(
    registry: Registry, settings: Settings, data: Path
) -> None:
    options = {
        "old_data": str(data),
        "new_classes": ("circle", "square", "triangle"),
        "max_replay_samples": 5,
    }
    recipe = planned(
        registry, settings, data, mode="incremental", base_model="signs", incremental=options
    )
    assert recipe.parent == registry.get("signs").id
    assert (recipe.name, recipe.teacher, recipe.distillation) == ("signs", None, None)
    assert recipe.incremental is not None
    assert recipe.incremental.replays
    assert recipe.incremental.new_classes[0] == "circle"

    student = planned(
        registry,
        settings,
        data,
        mode="distillation",
        model="n",
        distillation={"teacher": "yolov8m", "old_data": " "},
    )
    assert student.teacher is not None
    assert student.teacher.value == registry.get("yolov8m").id
    assert student.base.kind == "scratch"
    assert student.distillation is not None
    assert student.distillation.old_data is None
    shown = shown_config(student)
    assert shown["teacher"] == {"kind": "model", "from": student.teacher.value}
    assert shown["distillation"]["temperature"] == 2.0
    assert "incremental" not in shown
    for made in (recipe, student):
        assert Recipe.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize(("model", "told"), [("n", False), ("signs", False), ("yolo11n", True)])
def test_a_model_beside_the_one_to_extend_is_told(
    registry: Registry, settings: Settings, data: Path, model: str, told: bool
) -> None:
    fields: dict[str, Any] = {"mode": "incremental", "base_model": "signs", "model": model}
    notes = planned(registry, settings, data, **fields).notes
    assert any(f"The model '{model}' is not used" in note for note in notes) is told


def test_old_pictures_that_are_still_here_are_pointed_out(
    registry: Registry, settings: Settings, data: Path, tmp_path: Path
) -> None:
    class Uploads(Paths):
        def resolve(self, reference: str) -> Path:
            if reference == "gone":
                raise DatasetNotFound("It was deleted.")
            return Path(reference)

    old = str(settings.data_roots[0] / "old")
    made = {}
    for name, source in (("kept", old), ("same", str(data)), ("lost", "gone")):
        copied = registry.get("signs").path
        made[name] = registry.publish(copied, name, {"kind": "training", "dataset": source}).id
    for name, options in (("kept", {}), ("same", {}), ("lost", {}), ("kept", {"old_data": data})):
        request = TrainingRequest.model_validate(
            {"mode": "incremental", "data": str(data), "base_model": name}
            | {"incremental": {key: str(value) for key, value in options.items()}}
        )
        recipe = plan(request, registry, Uploads(), settings)
        told = [note for note in recipe.notes if "No old images" in note]
        pointed = name == "kept" and not options
        assert len(told) == pointed
        assert all(made[name] in note and old in note for note in told)
    for model in made.values():
        registry.delete(model)


@pytest.mark.parametrize("mode", ["incremental", "distillation"])
def test_a_part_of_the_data_is_not_taken_where_old_pictures_are_replayed(
    registry: Registry, settings: Settings, data: Path, mode: str
) -> None:
    """Ultralytics would leave out the old pictures first: their names come last."""
    options = {"old_data": str(data), "teacher": "yolov8m"}
    if mode == "incremental":
        del options["teacher"]
    fields = {"mode": mode, "base_model": "signs", mode: options}
    with pytest.raises(
        ValidationFailed, match=r"fraction is 0\.5, which is not allowed with old_data_path"
    ):
        planned(registry, settings, data, hyper={"fraction": 0.5}, **fields)
    assert planned(registry, settings, data, hyper={"fraction": 1.0}, **fields).mode == mode


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"data": None}, ValidationFailed, "data_path"),
        ({"task": "obb"}, ValidationFailed, "detect, segment, classify, pose"),
        ({"epochs": 0}, ValidationFailed, "epochs is 0; allowed is 1"),
        ({"batch": -1}, ValidationFailed, "batch"),
        ({"imgsz": 31}, ValidationFailed, "imgsz"),
        ({"patience": -1}, ValidationFailed, "patience"),
        ({"min_epochs_per_stage": 0}, ValidationFailed, "min_epochs_per_stage"),
        ({"mode": "incremental"}, ValidationFailed, "base_model_path is missing"),
        ({"mode": "incremental", "base_model": "nothing"}, ModelNotFound, "Known: leaves"),
        ({"mode": "incremental", "base_model": "/etc/x.pt"}, Forbidden, "VISIONLOOP_DATA_ROOTS"),
        (
            {"mode": "incremental", "base_model": "leaves", "task": "detect"},
            ValidationFailed,
            "for classify",
        ),
        (
            {"mode": "incremental", "base_model": "signs", "incremental": {"old_data": "/gone"}},
            Forbidden,
            "old_data_path: ",
        ),
        (
            {"mode": "incremental", "base_model": "signs", "incremental": {"replay_ratio": 0.999}},
            ValidationFailed,
            "replay_ratio is 0.999; allowed is 0 to 0.9",
        ),
        (
            {"mode": "incremental", "base_model": "signs", "incremental": {"new_classes": ["bus"]}},
            ValidationFailed,
            "new_classes has 'bus'",
        ),
        ({"mode": "distillation"}, ValidationFailed, "teacher_model_path is missing"),
        (
            {"mode": "distillation", "distillation": {"teacher": "nothing"}},
            ModelNotFound,
            "Known: leaves",
        ),
        (
            {"mode": "distillation", "distillation": {"teacher": "leaves"}},
            ValidationFailed,
            "for classify",
        ),
        ({"model": "nothing"}, ModelNotFound, "Known: leaves"),
        ({"model": "yolo11q"}, ValidationFailed, "'yolo11q' is not a known network"),
        ({"model": "leaves", "task": "detect"}, ValidationFailed, "for classify"),
        ({"model": "yolov8n-seg", "task": "detect"}, ValidationFailed, "is for segment"),
        ({"model": "mobilenet", "task": "detect"}, ValidationFailed, "is a classifier"),
        ({"name": "Not OK!"}, ValidationFailed, "not a valid model name"),
        ({"hyper": {"exec": 1}}, ValidationFailed, "Known: amp"),
        ({"hyper": {"lr0": 5}}, ValidationFailed, "lr0 is '5'"),
        ({"weights": "/etc/passwd"}, Forbidden, "VISIONLOOP_DATA_ROOTS"),
        ({"weights": "0" * 32}, JobNotFound, "No job"),
        ({"weights": "../best.pt"}, Forbidden, "VISIONLOOP_DATA_ROOTS"),
        ({"task": "classify"}, DatasetInvalid, ""),
    ],
)
def test_a_wrong_request_is_refused_with_its_remedy(
    registry: Registry,
    settings: Settings,
    data: Path,
    fields: dict[str, Any],
    error: type[Exception],
    words: str,
) -> None:
    request: dict[str, Any] = {"data": data} | fields
    with pytest.raises(error) as caught:
        planned(registry, settings, **request)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "status", "epoch", "task", "words"),
    [
        ("training", "failed", 3, None, None),
        ("training", "stopped", 3, "classify", None),
        ("training", "failed", 0, None, "has no weights"),
        ("training", "completed", 3, None, "Start from its model m:1"),
        ("training", "queued", 3, None, "has not ended"),
        ("evaluation", "failed", 3, None, "not a training"),
        ("training", "failed", 3, "detect", "trained for classify"),
    ],
)
def test_a_job_that_came_to_no_model_can_be_started_from(
    registry: Registry,
    settings: Settings,
    kind: Kind,
    status: Any,
    epoch: int,
    task: Task | None,
    words: str | None,
) -> None:
    store = JobStore(Database(settings))
    recipe = {"family": "mobilenet", "task": "classify", "name": "leaves", "imgsz": 96}
    job = store.create(kind, config={}, recipe=recipe, task="classify")
    if epoch:
        checkpoints = store.folder(job.id) / "checkpoints"
        checkpoints.mkdir()
        (checkpoints / "best.pt").touch()
        note_best(checkpoints, epoch)
    if status != "queued":
        store.finish(job.id, status, model_id="m:1" if status == "completed" else None)
    store.database.close()
    if words is None:
        base = choose_base("n", job.id, task, registry, settings)
        assert (base.kind, base.family, base.default_name) == ("job", "mobilenet", "leaves")
        assert (base.imgsz, base.shown) == (96, f"job {job.id}")
        assert f"job {job.id}, of its epoch {epoch}" in base.sentence
    else:
        with pytest.raises(ValidationFailed, match=words):
            choose_base("n", job.id, task, registry, settings)


def test_an_interrupted_training_resumes_from_its_job(
    registry: Registry, settings: Settings, data: Path
) -> None:
    store = JobStore(Database(settings))
    plain = {"family": "yolo", "task": "detect", "name": "signs", "imgsz": 96}
    job = _failed(store, plain)
    for mode in ("incremental", "distillation"):
        fields: dict[str, Any] = {"mode": mode, "base_model": "signs", "weights": job.id}
        fields |= {"distillation": {"teacher": "yolov8m"}} if mode == "distillation" else {}
        found = planned(registry, settings, data, **fields)
        assert found.base.value == job.id
        told = any("retains the classes of these weights" in note for note in found.notes)
        assert told == (mode == "incremental")

    # The original model is retained, however often the training is interrupted.
    original: dict[str, Any] = {"mode": "incremental", "base_model": "signs"}
    first = planned(registry, settings, data, **original)
    for _ in range(2):
        ended = _failed(store, first.model_dump(mode="json"))
        first = planned(registry, settings, data, **original, weights=ended.id)
        assert (first.base.kind, first.base.value) == ("job", ended.id)
        assert first.old_base is not None
        assert first.parent == first.origin.value == registry.get("signs").id
        assert any("retains the classes of signs:" in note for note in first.notes)
        assert shown_config(first)["old_base"] == {"kind": "model", "from": first.origin.shown}
    gone = first.origin.model_copy(update={"value": "gone:1"})
    ended = _failed(store, first.model_copy(update={"old_base": gone}).model_dump(mode="json"))
    assert planned(registry, settings, data, **original, weights=ended.id).old_base is None
    store.database.close()


def _failed(store: JobStore, recipe: dict[str, Any]) -> Job:
    """A training that left its best weights."""
    job = store.create("training", config={}, recipe=recipe, task="detect")
    checkpoints = store.folder(job.id) / "checkpoints"
    checkpoints.mkdir()
    (checkpoints / "best.pt").touch()
    note_best(checkpoints, 2)
    store.finish(job.id, "failed")
    return job
