"""Exported files in the programs that they are for, without our code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from engines.child import ExportTask, make
from engines.options import ExportRequest
from inference.images import DecodedImage
from inference.onnx_engine import OnnxEngine
from inference.predict import predict
from inference.prediction import Prediction
from models_store.description import ModelDescription
from settings import Settings
from tests.support.patience import PATIENCE
from tests.support.scenes import scene
from tests.support.serving import ROOT

SCRIPT = ROOT / "benchmarks" / "exports" / "plain_predict.py"
FORMATS = ("pt", "onnx", "openvino", "torchscript")


def exported(folder: Path, format: str, home: Path, place: Path, dynamic: bool = False) -> Path:
    """The file of an export, or the folder that its zip holds, in `place`."""
    settings = Settings(home=home, device="cpu")
    task = ExportTask(
        folder=folder,
        model_id="small:1",
        content="0" * 64,
        target=home / "exports",
        request=ExportRequest.model_validate({"format": format, "dynamic": dynamic or None}),
    )
    record = make(task, settings, lambda step, share: None)
    name = f"dynamic-{record.file}" if dynamic else record.file
    file = shutil.copy(home / "exports" / record.id / record.file, place / name)
    if format != "openvino":
        return Path(file)
    with zipfile.ZipFile(file) as archive:
        archive.extractall(place)
    return Path(file).with_suffix("")


def plain(place: Path, image: Path, files: list[str]) -> list[dict[str, Any]]:
    """What Ultralytics answers in a process that cannot import our code."""
    ours = ("PYTHONPATH", "VISIONLOOP", "BENTOML", "ULTRALYTICS_SAFE_LOAD")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(
        [sys.executable, "-P", str(SCRIPT), str(image), *files],
        cwd=place,
        env=kept,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout.splitlines()[-1]))


def served(folder: Path, pixels: np.ndarray, square: bool = False) -> Prediction:
    """What `/infer` answers; or would, if it padded images to a square."""
    description = ModelDescription.load(folder)
    engine = OnnxEngine(folder, description, Settings(device="cpu"))
    if square:
        engine.letterbox = "square"
    lowest = 0.0 if description.task == "classify" else 0.3
    return predict(
        engine,
        description,
        [DecodedImage.full(pixels)],
        confidence=lowest,
        max_det=None if lowest else len(description.names),
    )[0]


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("segment", "pose")]


@pytest.mark.parametrize("kind", ["detect", "classify", *SLOW])
def test_ultralytics_alone_gives_the_answers_of_the_server(
    kind: str, model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder, place = model_folder(kind), tmp_path / "empty"
    place.mkdir()
    home = tmp_path / "home"
    # a .pt takes any size, a dynamic file too; the others get squares from Ultralytics
    files = [(exported(folder, format, home, place), format != "pt") for format in FORMATS]
    if kind != "classify":
        files += [
            (exported(folder, format, home, place, dynamic=True), False)
            for format in ("onnx", "torchscript")
        ]
    description = ModelDescription.load(folder)
    size = (description.imgsz,) * 2 if kind == "classify" else (320, 240)
    pixels = scene(*size, seed=3)
    image = place / "scene.png"
    cv2.imwrite(str(image), pixels[..., ::-1])
    dynamic = [
        f"@{description.imgsz}" if file.name.startswith("dynamic") else "" for file, _ in files
    ]
    names = [file.name + size for (file, _), size in zip(files, dynamic, strict=True)]
    answers = plain(place, image, names)
    for (file, square), answer in zip(files, answers, strict=True):
        format = file.name
        ours = served(folder, pixels, square)
        assert answer["task"] == kind, format
        assert answer["names"] == list(description.names), format
        # bfloat16 on a CPU that has it; how far it goes is in the export's record
        if file.is_dir():
            continue
        scores = np.array(answer["scores"])
        if kind == "classify":
            theirs = scores[ours.class_ids]
            np.testing.assert_allclose(ours.scores, theirs, atol=1e-3, err_msg=format)
            continue
        assert len(ours) == len(scores) > 0, format
        boxes = np.array(answer["boxes"])
        apart = np.abs(ours.boxes[:, None] - boxes[None]).max(-1)
        # boxes that reach beyond the image are cut at its edges, and may then be the same
        unlike = apart + np.abs(ours.scores[:, None] - scores[None])
        unlike += 1000 * (ours.class_ids[:, None] != np.array(answer["class_ids"])[None])
        order = unlike.argmin(1)
        assert sorted(order) == list(range(len(ours))), format
        assert unlike.min(1).max() <= 0.1, format
        np.testing.assert_allclose(ours.scores, scores[order], atol=1e-3, err_msg=format)
        if kind == "pose":
            assert ours.keypoints is not None
            points = np.array(answer["points"])[order]
            np.testing.assert_allclose(ours.keypoints[..., :2], points, atol=0.5, err_msg=format)
        if kind == "segment":
            assert len(answer["areas"]) == len(ours), format


def test_onnx_runs_in_openvino_as_it_is(
    model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    from engines.openvino_files import read_openvino
    from models_store._onnxruntime import onnxruntime

    file = exported(model_folder("detect"), "onnx", tmp_path / "home", tmp_path)
    images = np.ascontiguousarray(scene(160, 160).transpose(2, 0, 1)[None] / np.float32(255))
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    [expected] = session.run(None, {"images": images.astype(np.float32)})
    run, precision = read_openvino(file, exact=True)
    assert precision == "f32"
    [actual] = run(images.astype(np.float32))
    np.testing.assert_allclose(actual, expected, atol=0.01)
