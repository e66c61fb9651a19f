"""An incremental training that resumes from a failed job's weights retains the original model."""

from __future__ import annotations

from pathlib import Path

import torch

from database import Database
from jobs.store import JobStore
from models_store.registry import Registry
from models_store.weights import load_model
from settings import get_settings
from tests.support.shapes import write_shapes
from tests.support.trainer_job import RecordingJob, narrow_network, recipe, run
from training.modes.incremental import set_up


def test_the_old_model_is_the_one_before_the_interrupted_training(
    registry: Registry, tmp_path: Path
) -> None:
    folder = get_settings().home / "datasets" / "resumed"
    write_shapes(folder, "classify", train=9, val=6, imgsz=64)
    base = narrow_network(registry, "classify", ("circle", "lamp"))
    fields = {"mode": "incremental", "base_model": base, "data": str(folder), "epochs": 1}
    plan = recipe(registry, "classify", **fields)
    store = JobStore(Database(get_settings()))
    row = store.create("training", config={}, recipe=plan.model_dump(mode="json"), task="classify")
    trained = run(plan, RecordingJob(store.folder(row.id)))
    store.finish(row.id, "failed")
    store.database.close()

    job = RecordingJob(tmp_path / "again")
    again = set_up(recipe(registry, "classify", **fields, weights=row.id), job, get_settings())
    assert again.old.names == ("circle", "lamp")
    assert f"2 classes of {base} are kept; 2 new ones: square, triangle." in job.text
    assert again.start.names == ("circle", "lamp", "square", "triangle")
    begun, _ = load_model(trained.folder)
    before, _ = load_model(registry.get(base).path)
    for start, source in ((again.start, begun), (again.old, before)):
        assert start.model is not None
        found, expected = (model.state_dict() for model in (start.model, source))
        assert all(torch.allclose(found[key], expected[key], atol=1e-3) for key in expected)
    for name in ("circle", "lamp"):
        assert name in again.dataset.names

    other = recipe(registry, "classify", **fields, weights=row.id)
    other = other.model_copy(update={"dataset": str(_squares(tmp_path))})
    anew = set_up(other, RecordingJob(tmp_path / "other"), get_settings())
    assert anew.start.names == ("circle", "lamp", "square")


def _squares(tmp_path: Path) -> Path:
    folder = get_settings().home / "datasets" / "squares"
    write_shapes(folder, "classify", train=6, val=3, imgsz=64)
    for file in folder.glob("*/triangle/*"):
        file.unlink()
    return folder
