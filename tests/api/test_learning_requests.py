"""What both client families ask of the learning modes arrives in the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from models_store.description import ModelDescription, Preprocessing
from tests.support.training_app import FORM, Service


@pytest.fixture
def signs(service: Service, tmp_path: Path) -> str:
    """The id of a detector that knows `square` and `lamp`; the data has circles and triangles."""
    return detector(service, tmp_path / "signs", ("Square", "lamp"))


def detector(service: Service, folder: Path, names: tuple[str, ...]) -> str:
    """The id of a detector that is never served."""
    folder.mkdir()
    ModelDescription(
        task="detect",
        family="yolo",
        names=names,
        architecture={"backbone": [1], "head": [1]},
        preprocessing=Preprocessing(resize="letterbox", imgsz=64),
    ).save(folder)
    for file in ("model.safetensors", "model.onnx"):
        (folder / file).write_bytes(b"never served")
    return service.gateway.registry.publish(folder, folder.name, {"kind": "import"}).id


@pytest.mark.parametrize(
    "names", [["circle", "triangle"], "circle, triangle", " circle ,triangle,"], ids=str
)
def test_incremental_of_the_second_family(service: Service, signs: str, names: Any) -> None:
    body = FORM | {
        "data_path": str(service.data),
        "old_data_path": str(service.data),
        "base_model_path": signs,
        "new_classes": names,
        "max_replay_samples": 7,
        "rehearsal": "k_centre",
    }
    answer = service.post("/api/training/incremental", body)
    assert answer.status_code == 200, answer.text
    job = service.jobs.get(answer.json()["task_id"])
    assert job.mode == "incremental"
    assert job.model_name == "signs"
    options = job.recipe["incremental"]
    assert options["new_classes"] == ["circle", "triangle"]
    assert Path(options["old_data"]) == service.data
    assert (options["replay_ratio"], options["max_replay_samples"]) == (0.2, 7)
    assert options["rehearsal"] == "k_centre"
    assert job.recipe["base"]["value"] == signs


def test_new_data_without_a_new_class_is_told_at_the_start(
    service: Service, signs: str, tmp_path: Path
) -> None:
    known = detector(service, tmp_path / "known", ("circle", "Square", "triangle"))
    notes = {}
    for base in (known, signs):
        body = FORM | {"data_path": str(service.data), "base_model_path": base}
        answer = service.post("/api/training/incremental", body)
        assert answer.status_code == 200, answer.text
        task = service.get(f"/api/training/tasks/{answer.json()['task_id']}")
        notes[base] = " ".join(task["config"]["resolved"]["notes"])
    assert f"The new data has no class that {known} lacks, so no class is added" in notes[known]
    assert "no class that" not in notes[signs]


def test_incremental_of_the_first_family_goes_on_from_model_id(
    service: Service, signs: str
) -> None:
    body = {
        "model_id": "signs",
        "dataset_path": str(service.data),
        "parameters": {"mode": "incremental", "replay_ratio": 0.5},
    }
    body |= {"promote": "auto"}  # beside `parameters`, too
    job = service.jobs.get(service.post("/train", body).json()["job_id"])
    assert job.recipe["promote"] == "auto"
    assert (job.mode, job.recipe["base"]["value"]) == ("incremental", signs)
    assert job.recipe["incremental"]["replay_ratio"] == 0.5
    assert job.recipe["incremental"]["old_data"] is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"new_classes": ["circle"]}, "data_path has objects of 'triangle'"),
        ({"new_classes": ["circle", "tram"]}, "new_classes has 'tram'"),
        ({"old_data_path": "/etc"}, "old_data_path: "),
        ({"replay_ratio": 1}, "replay_ratio is 1"),
        ({"max_replay_samples": -1}, "'max_replay_samples'"),
        ({"rehearsal": "luck"}, "herding"),
        ({"task": "segment"}, "for detect"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_said(
    service: Service, signs: str, fields: dict[str, Any], words: str
) -> None:
    body = FORM | {"data_path": str(service.data), "base_model_path": signs} | fields
    answer = service.post("/api/training/incremental", body)
    assert answer.status_code in (400, 403), answer.text
    assert words in answer.json()["message"]


def test_distillation(service: Service, signs: str) -> None:
    body = FORM | {
        "data_path": str(service.data),
        "teacher_model_path": signs,
        "distill_feat_weight": 0,
        "enable_consistency": "true",
    }
    answer = service.post("/api/training/distillation", body)
    assert answer.status_code == 200, answer.text
    recipe = service.jobs.get(answer.json()["task_id"]).recipe
    assert recipe["teacher"]["value"] == signs
    assert recipe["distillation"]["feat_weight"] == 0
    assert recipe["distillation"]["enable_consistency"] is True
    assert recipe["distillation"]["temperature"] == 2.0
