"""The starter models at the first and every later start."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from database import Database
from errors import VisionLoopError
from models_store import seed as seeding
from models_store.description import ModelDescription
from models_store.export import export_onnx
from models_store.registry import Registry
from models_store.seed import FIRST_ACTIVE, METRICS_FILE, seed, starters
from settings import Settings
from synthetic.scenes import _FREQUENCY

OTHER = "a_classifier"


@pytest.fixture
def shipped(tmp_path: Path, model_folder: Path) -> Path:
    """Two starter folders, as models_store/starter has them: without engines."""
    for name in (FIRST_ACTIVE, OTHER):
        folder = tmp_path / "starter" / name
        folder.mkdir(parents=True)
        for file in ("model.json", "model.safetensors"):
            shutil.copyfile(model_folder / file, folder / file)
    (tmp_path / "starter" / OTHER / "source.json").write_text('{"class_counts": {"round": 5}}')
    (tmp_path / "starter" / "half").mkdir()
    (tmp_path / "starter" / "half" / "model.json").write_text("{}")
    return tmp_path / "starter"


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Engines are made here instead of in a child; the names of those made."""
    made: list[str] = []

    def export(folders: list[Path]) -> None:
        for folder in folders:
            made.append(folder.name)
            export_onnx(folder)

    monkeypatch.setattr(seeding, "_export", export)
    return made


def change(folder: Path, text: str) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"description": text}))


def test_the_first_start_seeds_through_one_child_and_the_second_does_nothing(
    registry: Registry, shipped: Path
) -> None:
    assert len(seed(registry, shipped)) == 3
    models = registry.list()
    assert [(model.name, model.promoted) for model in models] == [
        (OTHER, True),
        (FIRST_ACTIVE, True),
    ]
    assert all(model.source["kind"] == "starter" for model in models)
    assert [model.source.get("class_counts") for model in models] == [{"round": 5}, None]
    assert registry.active().name == registry.active_pointer() == FIRST_ACTIVE
    assert seed(registry, shipped) == []
    assert registry.list() == models


def test_two_processes_starting_at_once_seed_once(
    registry: Registry, shipped: Path, in_process: list[str]
) -> None:
    other = Registry(Database(Settings()))
    threads = [threading.Thread(target=seed, args=(r, shipped)) for r in (registry, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    registry.refresh()
    assert len(registry.list()) == 2
    assert sorted(in_process) == [OTHER, FIRST_ACTIVE]
    other.database.close()


def test_changed_weights_become_a_new_promoted_version(
    registry: Registry, shipped: Path, in_process: list[str]
) -> None:
    seed(registry, shipped)
    old = registry.active()
    change(shipped / FIRST_ACTIVE, "better")
    assert len(seed(registry, shipped)) == 1
    assert registry.active().description.description == "better"
    assert registry.get(old.id).promoted is False
    assert in_process == [OTHER, FIRST_ACTIVE, FIRST_ACTIVE]


def test_an_own_promoted_version_and_an_own_active_model_stay(
    registry: Registry, shipped: Path, model_folder: Path, in_process: list[str]
) -> None:
    mine = registry.publish(model_folder, "mine", {"kind": "import"})
    registry.activate(mine.id)
    seed(registry, shipped)
    own = registry.publish(model_folder, FIRST_ACTIVE, {"kind": "train"}, promote=True)
    change(shipped / FIRST_ACTIVE, "better")
    seed(registry, shipped)
    assert registry.get(FIRST_ACTIVE).id == own.id
    assert registry.active().id == mine.id
    assert len([model for model in registry.list() if model.name == FIRST_ACTIVE]) == 3


def test_a_deleted_starter_stays_away_until_asked_for(
    registry: Registry, shipped: Path, in_process: list[str]
) -> None:
    seed(registry, shipped)
    registry.delete(OTHER)
    assert seed(registry, shipped) == []
    assert len(seed(registry, shipped, again=True)) == 1
    assert registry.get(OTHER).promoted


def test_no_starters_is_no_error(registry: Registry, tmp_path: Path) -> None:
    assert starters(tmp_path / "none") == []
    assert seed(registry, tmp_path / "none") == []


def test_starters_that_cannot_be_prepared_are_an_error_that_says_so(
    registry: Registry, shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeding, "EXPORT_TIMEOUT", 0.2)
    with pytest.raises(VisionLoopError, match=r"could not be prepared: .* still running"):
        seed(registry, shipped)
    assert registry.list() == []
    assert list((registry.settings.home / "scratch").iterdir()) == []


def test_the_shipped_starters_tell_how_often_their_classes_are_drawn() -> None:
    drawn = {"detect": _FREQUENCY, "classify": np.full(34, 1 / 34)}
    for starter in starters():
        description = ModelDescription.load(starter.folder)
        counts = seeding._source(starter)["class_counts"]
        assert tuple(counts) == description.names
        shares = np.array(list(counts.values())) / sum(counts.values())
        assert shares == pytest.approx(drawn[description.task])


def test_the_shipped_starters_come_with_metrics_of_their_own_weights(
    registry: Registry, in_process: list[str]
) -> None:
    """`make starters` measures what it has trained."""
    seed(registry)
    models = registry.list()
    assert len(models) == 2
    for model in models:
        metrics = model.metrics or {}
        assert {"accuracy", "precision", "recall", "f1_score", "inference_time"} <= set(metrics)
        assert (metrics["dataset"], metrics["split"]) == ("drawn traffic signs", "val")
        assert "when the starter was made" in metrics["measured_with"]
        assert ("mAP50" in metrics) == (model.description.task == "detect")
    assert seed(registry) == []


def test_recorded_metrics_are_for_the_weights_that_they_were_measured_with(
    registry: Registry, shipped: Path, in_process: list[str]
) -> None:
    def record(name: str, accuracy: float) -> None:
        (content,) = (s.content for s in starters(shipped) if s.name == name)
        text = json.dumps({"content": content, "metrics": {"accuracy": accuracy}})
        (shipped / name / METRICS_FILE).write_text(text)

    record(OTHER, 0.5)
    change(shipped / OTHER, "other weights")
    seed(registry, shipped)
    assert registry.get(OTHER).metrics is None
    record(OTHER, 0.7)  # a home that was seeded before there were metrics
    record(FIRST_ACTIVE, 0.6)
    registry.set_metrics(FIRST_ACTIVE, {"accuracy": 0.1})  # measured here
    assert seed(registry, shipped) == [f"Added the recorded metrics of {registry.get(OTHER).id}."]
    assert registry.get(OTHER).metrics == {"accuracy": 0.7}
    assert registry.get(FIRST_ACTIVE).metrics == {"accuracy": 0.1}
    assert seed(registry, shipped) == []
