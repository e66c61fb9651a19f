"""Small networks with random weights that do find something."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.support.scenes import scene
from tests.support.seeds import derived

IMGSZ = 160
NAMES = ("stop", "give way", "priorité")


def folders(root: Path) -> Callable[[str], Path]:
    """A function that answers the folder of a small exported model, by what it is; made once."""

    def folder(kind: str) -> Path:
        path = root / kind
        if not path.exists():  # aside, so that one that cannot be made is not taken for whole
            making = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=root))
            _make_model(kind, making)
            making.rename(path)
        return path

    return folder


def _make_model(kind: str, folder: Path) -> None:
    from models_store import ultralytics_env

    ultralytics_env.prepare()

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
