from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from errors import InvalidModelFile
from models_store.registry import Registry
from models_store.weights import load_model
from settings import get_settings
from tests.support.trainer_job import RecordingJob, narrow_network
from training.planning.base_models import choose_base
from training.start_weights import load_start


def test_weights_of_a_file_are_converted_and_started_from(
    registry: Registry, job: RecordingJob, tmp_path: Path
) -> None:
    """A checkpoint as Ultralytics writes it, under VISIONLOOP_PRETRAINED."""
    known, description = load_model(registry.get(narrow_network(registry, "classify")).path)
    network: Any = known
    network.yaml = dict(description.architecture)
    folder = tmp_path / "pretrained"
    folder.mkdir()
    torch.save(
        {"model": known, "epoch": -1, "train_args": {"imgsz": 64}}, folder / "yolov8n-cls.pt"
    )
    settings = get_settings().model_copy(update={"pretrained": folder})
    base = choose_base("n", None, "classify", registry, settings)
    assert base.kind == "file"
    for _ in range(2):  # the second time from what the first has kept
        start = load_start(base, job.folder / "base", settings)
        assert start.names == ("circle", "square", "triangle")
        assert isinstance(start.model, torch.nn.Module)
        weight = "model.0.conv.weight"
        assert torch.allclose(
            start.model.state_dict()[weight], known.state_dict()[weight], atol=1e-3
        )
        (folder / "yolov8n-cls.pt").unlink(missing_ok=True)
    with pytest.raises(InvalidModelFile, match=r"yolov8n-cls\.pt no longer exist"):
        load_start(base, tmp_path / "another", settings)
