"""The whole way from file to prediction gives what Ultralytics' own `predict` gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from formats.geometry import fill_parts, overlap
from inference.engine import disagreement
from inference.images import DecodedImage, decode
from inference.onnx_engine import OnnxEngine
from inference.predict import predict
from inference.prediction import Prediction
from inference.preprocess import Letterbox, prepare
from models_store.description import ModelDescription
from settings import Settings
from tests.support.closeness import assert_close
from tests.support.scenes import encoded, scene

SIZES = [(320, 240), (97, 211), (640, 31), (160, 160), (2, 300)]
KINDS = ["detect", "segment", "pose", "pose2"]
# of images one or two mask pixels wide, half a mask pixel decides which masks are empty
CASES = [(k, size) for k in KINDS for size in SIZES if k != "segment" or min(size) > 90]


def ours(folder: Path, data: bytes, **thresholds: Any) -> Prediction:
    description = ModelDescription.load(folder)
    pixels = decode(data, 10_000_000)
    engine = OnnxEngine(folder, description, Settings(device="cpu"))
    return predict(engine, description, [DecodedImage.full(pixels)], **thresholds)[0]


def theirs(folder: Path, file: Path, **options: Any) -> Any:
    from ultralytics import YOLO

    from models_store.weights import load_model

    module, description = load_model(folder)
    suffix = {"detect": "", "segment": "-seg", "pose": "-pose", "classify": "-cls"}
    model: Any = YOLO(f"yolov8n{suffix[description.task]}.yaml", task=description.task)
    model.model = module
    return model.predict(file, imgsz=description.imgsz, verbose=False, device="cpu", **options)[0]


@pytest.mark.parametrize(("kind", "size"), CASES)
def test_detections_are_those_of_ultralytics(
    kind: str, size: tuple[int, int], model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    file = tmp_path / "scene.jpg"
    file.write_bytes(encoded(scene(*size, seed=3)))
    folder = model_folder(kind)
    got = ours(folder, file.read_bytes(), confidence=0.3)
    wanted = theirs(folder, file, conf=0.3, iou=0.7, retina_masks=True)

    assert len(got) == len(wanted.boxes)
    assert len(got) > 0 or min(size) < 50
    order = order_of(got, wanted)
    assert got.class_ids[order].tolist() == wanted.boxes.cls.int().tolist()
    np.testing.assert_allclose(got.scores, wanted.boxes.conf.numpy(), atol=1e-3)
    np.testing.assert_allclose(got.scores[order], wanted.boxes.conf.numpy(), atol=1e-3)
    np.testing.assert_allclose(got.boxes[order], wanted.boxes.xyxy.numpy(), atol=0.5)
    if kind.startswith("pose") and len(got):
        assert got.keypoints is not None
        points = wanted.keypoints.data.numpy()
        np.testing.assert_allclose(got.keypoints[order, :, :2], points[..., :2], atol=0.5)
        if kind == "pose":
            np.testing.assert_allclose(got.keypoints[order, :, 2], points[..., 2], atol=1e-3)
    if kind == "segment" and len(got):
        assert got.polygons is not None
        masks = wanted.masks.data.numpy().astype(bool)
        overlaps = [
            overlap(fill_parts(got.outlines(i), got.width, got.height), mask)
            for i, mask in zip(order, masks, strict=True)
            if mask.sum() > 400 and not has_holes(mask)
        ]
        # not more: random weights make ragged masks, whose smallest specks are left out
        assert min(overlaps, default=1) > 0.4, overlaps
        assert np.median(overlaps or [1]) > 0.75, overlaps


@pytest.mark.parametrize("size", [(320, 240), (97, 211), (700, 31), (160, 160)])
def test_classes_are_those_of_ultralytics(
    size: tuple[int, int], model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    file = tmp_path / "scene.png"
    file.write_bytes(encoded(scene(*size, seed=1), "PNG"))
    got = ours(model_folder("classify"), file.read_bytes())
    wanted = theirs(model_folder("classify"), file).probs
    assert got.class_ids.tolist() == wanted.top5
    np.testing.assert_allclose(got.scores, wanted.top5conf.numpy(), atol=1e-3)
    assert got.scores[0] > got.scores[-1] + 0.01


@pytest.mark.parametrize("kind", ["detect", "segment", "pose", "classify", "mobilenet"])
def test_pytorch_engine_agrees_with_onnx(kind: str, model_folder: Callable[[str], Path]) -> None:
    from inference.torch_engine import TorchEngine

    folder = model_folder(kind)
    description = ModelDescription.load(folder)
    onnx = OnnxEngine(folder, description, Settings(device="cpu"))
    torch = TorchEngine(folder, "cpu", half=False)
    assert disagreement(torch, onnx, description) is None
    place = Letterbox.of(description, "rect", 200, 100)
    picture = prepare(scene(200, 100), description, place)[None]
    for one, other in zip(torch.run(picture), onnx.run(picture), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def test_engine_that_differs_is_found_out(model_folder: Callable[[str], Path]) -> None:
    folder = model_folder("detect")
    description = ModelDescription.load(folder)
    onnx = OnnxEngine(folder, description, Settings(device="cpu"))

    class Broken(OnnxEngine):
        def run(self, pixels: Any, wide: bool = False, halt: Any = None) -> Any:
            outputs = super().run(pixels, wide, halt)
            outputs[0][:, 5] = np.nan
            return outputs

    broken = Broken(folder, description, Settings(device="cpu"))
    assert disagreement(onnx, onnx, description) is None
    assert "scores differ" in (disagreement(broken, onnx, description) or "")


@pytest.mark.parametrize("kind", ["detect", "segment", "pose", "classify", "mobilenet"])
@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_a_lone_image_and_one_among_many_are_answered_alike(
    kind: str, threads: int, model_folder: Callable[[str], Path]
) -> None:
    folder = model_folder(kind)
    description = ModelDescription.load(folder)
    engine = OnnxEngine(folder, description, Settings(device="cpu", sessions=threads))
    picture = scene(200, 100)
    answers = [
        predict(engine, description, [DecodedImage.full(picture)], wide=wide)[0]
        for wide in (False, True)
    ]
    assert len(answers[0]) > 0
    assert_close(*answers)


def order_of(got: Prediction, wanted: Any) -> list[int]:
    """Which of ours each of theirs is: scores that differ in their last bits have no order."""
    left, order = list(range(len(got))), []
    for cls, box in zip(wanted.boxes.cls.int().tolist(), wanted.boxes.xyxy.numpy(), strict=True):
        far = {i: (got.class_ids[i] != cls, np.abs(got.boxes[i] - box).max()) for i in left}
        order.append(min(far, key=far.__getitem__))
        left.remove(order[-1])
    return order


def has_holes(mask: Any) -> bool:
    _, tree = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return bool((tree[0, :, 3] >= 0).any())
