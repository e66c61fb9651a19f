from __future__ import annotations

from pathlib import Path

import torch

from models_store.weights import load_model
from tests.support.shapes import write_shapes
from tests.support.small_models import small_description, write_model
from training.yolo.feature_extractor import FeatureExtractor


def test_progress_of_many_images_is_logged(tmp_path: Path) -> None:
    write_model(tmp_path / "model", small_description("classify"), seed=1)
    model, _ = load_model(tmp_path / "model")
    images = sorted(write_shapes(tmp_path / "data", "classify", 100, 1, 32).glob("train/*/*.jpg"))
    lines: list[str] = []
    extractor = FeatureExtractor(model, "classify", 32, torch.device("cpu"))
    found = extractor.extract(images, dict.fromkeys(images, ()), log=lines.append, log_every=40)
    assert len(found.features) == 100
    assert lines == [f"Features of {done} of 100 images are computed." for done in (48, 80)]
