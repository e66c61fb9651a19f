"""Drawn pictures, and small networks with random weights that do find something."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from inference.images import Pixels
from tests.seeds import derived, rng

IMGSZ = 160
NAMES = ("stop", "give way", "priorité")


def scene(width: int, height: int, seed: int = 0) -> Pixels:
    """A gradient with coloured shapes on it."""
    random = rng(seed)
    ramp = np.linspace(40, 200, width)[None, :, None] + np.linspace(-30, 30, height)[:, None, None]
    image = Image.fromarray((ramp + np.array((0, 15, -20))).clip(0, 255).astype(np.uint8))
    canvas = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = random.uniform(0, width), random.uniform(0, height)
        w, h = random.uniform(0.05, 0.4, 2) * (width, height)
        colour = tuple(int(c) for c in random.integers(0, 256, 3))
        shape = canvas.ellipse if random.random() < 0.5 else canvas.rectangle
        shape((x, y, x + w, y + h), fill=colour)
    return np.asarray(image)


def encoded(pixels: Pixels | Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a small exported model, by what it is: made once a session."""
    root = tmp_path_factory.mktemp("models")

    def folder(kind: str) -> Path:
        path = root / kind
        if not path.exists():  # aside, so that one that cannot be made is not taken for whole
            making = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=root))
            _make_model(kind, making)
            making.rename(path)
        return path

    return folder


def _make_model(kind: str, folder: Path) -> None:
    from models_store import _ultralytics

    _ultralytics.prepare()

    import torch
    from torch import nn

    from models_store.export import export_onnx
    from models_store.weights import (
        build_model,
        describe_mobilenet,
        describe_yolo,
        save_model,
    )

    torch.manual_seed(derived(0))
    if kind == "mobilenet":
        description = describe_mobilenet(len(NAMES), 96, names=NAMES, width=0.25)
    else:
        from ultralytics.nn.tasks import yaml_model_load

        suffix = {"detect": "", "segment": "-seg", "pose": "-pose", "pose2": "-pose"}
        yaml = yaml_model_load(f"yolov8n{suffix.get(kind, '-cls')}.yaml")
        yaml |= {"nc": len(NAMES), "scale": "t", "scales": {"t": [0.33, 0.125, 1024]}}
        if kind.startswith("pose"):
            yaml["kpt_shape"] = [4, 2] if kind == "pose2" else [5, 3]
        description = describe_yolo(yaml, imgsz=IMGSZ, names=NAMES)
    module = build_model(description)

    # Statistics of real activations, then a head that is sure of itself here and there.
    pictures = np.stack([scene(description.imgsz, description.imgsz, seed) for seed in range(8)])
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
            layer.reset_running_stats()
    module.train()
    with torch.no_grad():
        module(torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255)
    module.eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if ".cv3." in name and name.endswith(".2.weight"):
                parameter.mul_(8)
            if ".cv3." in name and name.endswith(".2.bias"):
                parameter.fill_(-1.0)
            if name.endswith(("linear.weight", "classifier.1.weight")):
                parameter.mul_(8)
            if ".cv2." in name and name.endswith(".2.weight"):
                parameter.mul_(2)
    save_model(folder, module, description)
    export_onnx(folder)
