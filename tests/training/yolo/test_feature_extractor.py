from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models_store.weights import load_model
from tests.support.shapes import write_shapes
from tests.support.small_models import small_description, write_model
from training.yolo import feature_extractor
from training.yolo.feature_extractor import FeatureExtractor


def test_a_long_look_shows_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_extractor, "TOLD", 40)
    write_model(tmp_path / "model", small_description("classify"), seed=1)
    model, _ = load_model(tmp_path / "model")
    images = sorted(write_shapes(tmp_path / "data", "classify", 100, 1, 32).glob("train/*/*.jpg"))
    said: list[str] = []
    extractor = FeatureExtractor(model, "classify", 32, torch.device("cpu"))
    seen = extractor.look(images, dict.fromkeys(images, ()), log=said.append)
    assert len(seen.features) == 100
    assert said == [f"{done} of 100 pictures were looked at." for done in (48, 80)]
