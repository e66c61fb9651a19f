"""Compares our evaluation with Ultralytics' `val()`: same weights, data, image size, thresholds.

    python -m benchmarks.evaluation_equality --data coco/data.yaml --weights yolov8n.pt
    python -m benchmarks.evaluation_equality            # the starter detector on drawn scenes

Our metrics are measured with the ONNX engine, which serves on a CPU, and with PyTorch, both with
the letterbox `square` or `val_rect`. Ultralytics evaluates the checkpoint itself, with `rect=False`
or `rect=True` and all other arguments at their default values. A last column has the metrics with
the letterbox that serves. The exit code is 1 if a mean average precision, except of this column,
differs by more than 0.001.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from evaluation.letterbox import ASKED
from shell import Parser

TOLERANCE = 0.001
SERVED = "as served"
DRAWN = 300  # drawn scenes; a fifth of them is the val split
KEYS = {"B": "", "M": "mask_", "P": "pose_"}
NAMES = {
    "precision": "precision",
    "recall": "recall",
    "mAP50": "mAP50",
    "mAP50_95": "mAP50-95",
}


def main() -> int:
    parser = Parser(
        prog="python -m benchmarks.evaluation_equality",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data", type=Path, help="data.yaml of a dataset; default: drawn street scenes"
    )
    parser.add_argument(
        "--weights", type=Path, help="an Ultralytics .pt; default: the starter detector"
    )
    parser.add_argument("--imgsz", type=int, default=640, help="image size in pixels (640)")
    parser.add_argument(
        "--letterbox",
        choices=ASKED,
        default="square",
        help="square: as val(rect=False), val_rect: as val(rect=True) (square)",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="evaluation-equality-") as scratch:
        os.environ |= {"VISIONLOOP_HOME": f"{scratch}/home", "BENTOML_HOME": f"{scratch}/bento"}
        return compare_with_ultralytics(options, Path(scratch))


def compare_with_ultralytics(options: argparse.Namespace, scratch: Path) -> int:
    """Evaluate with both, and print the table; returns the exit code."""
    from models_store import ultralytics_env

    ultralytics_env.prepare()
    from dataset.inspection import check
    from evaluation.evaluator import evaluate
    from evaluation.target import EvaluationTarget
    from inference.onnx_engine import OnnxEngine
    from inference.torch_engine import TorchEngine
    from models_store.description import ModelDescription
    from settings import Settings

    folder, theirs = model_of(options, scratch)
    description = ModelDescription.load(folder)
    data = options.data or drawn(scratch)
    dataset = check(data, description.task, [data.resolve().parent])
    settings = Settings(device="cpu")
    engines: dict[str, Any] = {
        "ONNX Runtime": OnnxEngine(folder, description, settings),
        "PyTorch": TorchEngine(folder, "cpu", half=False),
    }
    columns: dict[str, dict[str, float]] = {}
    for name, engine in (*engines.items(), (SERVED, engines["ONNX Runtime"])):
        output = scratch / name
        output.mkdir()
        began = time.perf_counter()
        letterbox = None if name == SERVED else options.letterbox
        found = evaluate(
            EvaluationTarget(folder, dataset, letterbox=letterbox),
            settings,
            output=output,
            progress=lambda *_: None,
            loaded=(engine, description),
        )
        columns[name] = found.metrics
        print(f"{name}: {time.perf_counter() - began:.1f} s", file=sys.stderr)
    rect = options.letterbox == "val_rect"
    view = dataset.materialise(scratch / "view")
    columns["Ultralytics"] = validated(theirs, view, options.imgsz, rect)
    print(f"{description.task}, {len(dataset.splits['val'])} images, imgsz {description.imgsz}")
    return table(columns)


def model_of(options: argparse.Namespace, scratch: Path) -> tuple[Path, Any]:
    """Our model folder with its ONNX file, and an Ultralytics model with the same weights."""
    import shutil

    from ultralytics import YOLO

    from models_store.export import export_onnx
    from models_store.foreign.importer import convert_checkpoint
    from models_store.weights import load_model
    from synthetic.train_starters import FOLDERS

    folder = scratch / "model"
    if options.weights is not None:
        folder.mkdir()
        convert_checkpoint(options.weights, folder, imgsz=options.imgsz)
        return folder, YOLO(options.weights)
    starter = Path(__file__).resolve().parents[1] / "models_store/starter" / FOLDERS["detector"]
    shutil.copytree(starter, folder)
    export_onnx(folder)
    theirs: Any = YOLO("yolov8n.yaml", task="detect")
    theirs.model, _ = load_model(folder)
    return folder, theirs


def drawn(scratch: Path) -> Path:
    from synthetic.scenes import write_detection_set

    return write_detection_set(scratch / "drawn", DRAWN, seed=7, size=640)


def validated(model: Any, data: Path, imgsz: int, rect: bool) -> dict[str, float]:
    """Ultralytics' metrics under our names."""
    found = model.val(
        data=str(data), imgsz=imgsz, rect=rect, device="cpu", plots=False, verbose=False, workers=0
    ).results_dict
    return {
        prefix + ours: float(found[f"metrics/{name}({letter})"])
        for letter, prefix in KEYS.items()
        for ours, name in NAMES.items()
        if f"metrics/{name}({letter})" in found
    }


def table(columns: dict[str, dict[str, float]]) -> int:
    """Print the metrics side by side, with the differences to Ultralytics; returns exit code."""
    theirs = columns.pop("Ultralytics")
    worst = 0.0
    heads = "".join(f"{name:>16}{'difference':>12}" for name in columns)
    print(f"{'':18}{'Ultralytics':>12}{heads}")
    for key, value in theirs.items():
        cells = ""
        for name, figures in columns.items():
            difference = figures[key] - value
            cells += f"{figures[key]:16.5f}{difference:+12.5f}"
            if "mAP" in key and name != SERVED:
                worst = max(worst, abs(difference))
        print(f"{key:18}{value:12.5f}{cells}")
    print(f"largest difference of a mean average precision: {worst:.5f} (allowed: {TOLERANCE})")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
