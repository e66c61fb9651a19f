"""The metrics of the starters are measured, and written beside their weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluation.starters import record
from models_store.seed import METRICS_FILE, starters
from settings import Settings
from synthetic import evaluation_sets
from tests.support.small_models import make_model


def test_a_starter_is_measured_on_the_drawn_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation_sets, "SCENES", 2)
    monkeypatch.setattr(evaluation_sets, "TRAIN", 1)
    make_model(tmp_path / "starter" / "small", "detect")
    (starter,) = starters(tmp_path / "starter")
    assert record(starter, Settings(home=tmp_path / "home")) == starter.folder / METRICS_FILE
    written = json.loads((starter.folder / METRICS_FILE).read_text())
    assert written["content"] == starter.content
    metrics = written["metrics"]
    assert metrics["images"] == 2
    assert metrics["dataset"] == "drawn traffic signs"
    assert metrics["mAP50"] == 0  # it has learned nothing
    assert metrics["inference_time"] > 0
