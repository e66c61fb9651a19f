"""Makes small models with random weights: `python tests/api/random_models.py FOLDER`.

A program of its own because it needs torch, and the test process should not.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from models_store.export import export_onnx
from models_store.weights import build_model, describe_mobilenet, describe_yolo, save_model

DETECT = {
    "nc": 3,
    "scale": "n",
    "scales": {"n": [0.33, 0.125, 1024]},
    "backbone": [
        [-1, 1, "Conv", [64, 3, 2]],
        [-1, 1, "Conv", [128, 3, 2]],
        [-1, 3, "C2f", [128, True]],
        [-1, 1, "Conv", [256, 3, 2]],
        [-1, 3, "C2f", [256, True]],
    ],
    "head": [[[4], 1, "Detect", ["nc"]]],
}
SEGMENT = DETECT | {"head": [[[4], 1, "Segment", ["nc", 32, 256]]]}
POSE = DETECT | {"nc": 1, "kpt_shape": [5, 3], "head": [[[4], 1, "Pose", ["nc", "kpt_shape"]]]}


def main(root: Path) -> None:
    torch.manual_seed(0)
    models = {
        "boxes": describe_yolo(DETECT, imgsz=160, names=("ant", "bee", "cat")),
        "masks": describe_yolo(SEGMENT, imgsz=96, names=("ant", "bee", "cat")),
        "points": describe_yolo(POSE, imgsz=96, names=("ant",)),
        "kinds": describe_mobilenet(4, 64, names=("ash", "birch", "cedar", "date"), width=0.25),
    }
    for name, description in models.items():
        folder = root / name
        folder.mkdir(parents=True)
        model = build_model(description)
        with torch.no_grad():  # scores spread, instead of all near zero
            for key, value in model.named_parameters():
                if ".cv3." in key and key.endswith("2.bias"):
                    value.fill_(-1.0)
        save_model(folder, model, description)
        export_onnx(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
