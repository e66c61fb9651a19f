"""Models taken away: answers of plain programs beside those of the server, as a table.

    python -m benchmarks.exports MODEL …

For each model of the registry: exports it, runs the files in Ultralytics (in an empty folder,
without our code), and imports the `.pt` back. The answers are compared with those of the serving
path on drawn images, or on the images given with --image. Files of detectors, segmenters and pose
models are `dynamic` where the format has it: Ultralytics then pads images as the server does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.cpu import cpu
from database import Database
from engines.making import make_export
from engines.options import ExportRequest, resolve
from engines.probe_images import probe_images
from engines.store import ExportStore
from inference.images import DecodedImage, Pixels, decode
from inference.onnx_engine import OnnxEngine
from inference.predict import predict
from inference.prediction import Prediction
from models_store.foreign.importer import import_model
from models_store.registry import Registry
from models_store.versions import ModelVersion
from settings import get_settings
from shell import Parser

SCRIPT = Path(__file__).with_name("plain_predict.py")
CONFIDENCE = 0.3
TIMEOUT = 900.0  # seconds
REQUESTS: tuple[dict[str, Any], ...] = (
    {"format": "pt"},
    {"format": "onnx"},
    {"format": "onnx", "precision": "fp16"},
    {"format": "openvino"},
    {"format": "torchscript"},
)


def main() -> int:
    parser = Parser(prog="python -m benchmarks.exports", description=__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--image", type=Path, action="append", default=[])
    options = parser.parse_args()
    registry = Registry(Database(get_settings()))
    images = [decode(path.read_bytes(), 10**8) for path in options.image] or probe_images()[:3]
    print(f"{cpu()}\n")
    print(
        "| model | file | largest raw difference: px, score | in Ultralytics: objects, px, score |"
    )
    print("|---|---|--:|--:|")
    for model_id in options.models:
        _measure(registry, registry.get(model_id), images)
    registry.database.close()
    return 0


def _measure(registry: Registry, model: ModelVersion, images: list[Pixels]) -> None:
    description, settings = model.description, registry.settings
    served = [_served(model, image) for image in images]
    for asked in REQUESTS:
        dynamic = True if description.any_size and asked["format"] != "pt" else None
        request = ExportRequest.model_validate({**asked, "dynamic": dynamic})
        options = resolve(request, description)
        record = make_export(model, request, options, settings, TIMEOUT)
        file = ExportStore(settings).path(model, record)
        raw = record.parity or {}
        box = f"{raw['max_box_error_px']:.2g}, " if "max_box_error_px" in raw else ""
        cell = f"{box}{raw['max_score_error']:.2g}"
        shown = "a state dict or another preparation of images"
        if description.family == "yolo":
            shown = _compared(served, _plain(file, images, description.imgsz if dynamic else None))
        print(f"| {model.name} | {record.id} | {cell} | {shown} |", flush=True)
        if record.id == "pt-fp32" and description.family == "yolo":
            back = import_model(registry, file, name=f"{model.name}-back")
            pairs = zip(served, [_served(back, image) for image in images], strict=True)
            same = all(_equal(one, other) for one, other in pairs)
            print(f"| {model.name} | imported back | | {'equal' if same else 'NOT EQUAL'} |")
            registry.delete(back.id)


def _served(model: ModelVersion, image: Pixels) -> Prediction:
    description = model.description
    engine = OnnxEngine(model.path, description, get_settings())
    classify = description.task == "classify"
    return predict(
        engine,
        description,
        [DecodedImage.full(image)],
        wide=True,
        confidence=0.0 if classify else CONFIDENCE,
        max_det=len(description.names) if classify else None,
    )[0]


def _plain(file: Path, images: list[Pixels], imgsz: int | None) -> list[dict[str, Any]]:
    """What Ultralytics answers in an empty folder that holds the file and the images.

    `imgsz` must be given for a dynamic file.
    """
    ours = ("PYTHONPATH", "VISIONLOOP", "BENTOML")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        target = place / file.name
        target.write_bytes(file.read_bytes())
        if file.suffix == ".zip":
            with zipfile.ZipFile(target) as archive:
                archive.extractall(place)
            target = target.with_suffix("")
        answers = []
        for i, image in enumerate(images):
            cv2.imwrite(str(place / f"{i}.png"), image[..., ::-1])
            done = subprocess.run(
                [sys.executable, "-P", str(SCRIPT), f"{i}.png", f"{target.name}@{imgsz or ''}"],
                cwd=place,
                env={k: v for k, v in os.environ.items() if not k.startswith(ours)},
                capture_output=True,
                text=True,
                check=True,
            )
            answers += json.loads(done.stdout.splitlines()[-1])
        return answers


def _compared(served: list[Prediction], answers: list[dict[str, Any]]) -> str:
    objects = unmatched = 0
    box = score = 0.0
    for ours, theirs in zip(served, answers, strict=True):
        scores = np.array(theirs["scores"])
        if "boxes" not in theirs:
            score = max(score, float(np.abs(ours.scores - scores[ours.class_ids]).max()))
            continue
        unmatched += abs(len(ours) - len(scores))
        if not len(ours) or not len(scores):
            continue
        apart = np.abs(ours.boxes[:, None] - np.array(theirs["boxes"])[None]).max(-1)
        other = ours.class_ids[:, None] != np.array(theirs["class_ids"])[None]
        order = (apart + 1000 * other).argmin(1)
        objects += len(ours)
        box = max(box, float(apart[np.arange(len(ours)), order].max()))
        score = max(score, float(np.abs(ours.scores - scores[order]).max()))
    if "boxes" not in answers[0]:
        return f"{score:.2g}"
    return (
        f"{objects}{f' ({unmatched} more or fewer)' if unmatched else ''}, {box:.2g}, {score:.2g}"
    )


def _equal(one: Prediction, other: Prediction) -> bool:
    return bool(
        np.array_equal(one.class_ids, other.class_ids)
        and np.array_equal(one.scores, other.scores)
        and np.array_equal(one.boxes, other.boxes)
    )


if __name__ == "__main__":
    sys.exit(main())
