"""Export of a model folder to ONNX: `python -m models_store.export FOLDER …`.

Runs as a child process, because it imports torch. Writes `model.onnx` (fp32, dynamic batch, fixed
size) and its differences from PyTorch to `engines.json`. A file that does not reproduce PyTorch is
deleted.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from errors import VisionLoopError
from files import atomic_path, sha256_of
from models_store._onnxruntime import onnxruntime
from models_store.description import ONNX_FILE, ModelDescription, record
from models_store.subprocesses import limit_self
from models_store.weights import load_model
from shell import Parser

OPSET = 17  # supported by ONNX Runtime 1.31, TensorRT 10 and the TorchScript exporter
INPUT = "images"

MAX_BOX_ERROR = 0.1  # pixels of the network's input: boxes and keypoints
MAX_SCORE_ERROR = 1e-3  # probabilities
MAX_MASK_ERROR = 1e-2  # prototypes and mask coefficients, relative to their largest value


class ExportError(VisionLoopError):
    """The export failed, or its outputs differ from PyTorch's."""


class ServingModule(nn.Module):
    """Wraps a loaded model, so that its outputs are those of the serving engines.

    Input (n, 3, s, s) float32, normalised. Outputs, na anchors, xywh in input pixels:
        detect: (n, 4 + nc, na): xywh, class probabilities;
        segment: (n, 4 + nc + nm, na), and prototypes (n, nm, s/4, s/4);
        pose: (n, 4 + nc + k·d, na): with keypoints in input pixels, visibility 0..1;
        classify: (n, nc) probabilities.
    """

    def __init__(self, module: nn.Module, description: ModelDescription) -> None:
        super().__init__()
        self.module = module
        self.description = description

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        output = self.module(images)
        if self.description.family == "mobilenet":
            return output.softmax(1)
        output = output[0]  # in eval mode, Ultralytics returns (inference, training) outputs
        return (output[0], output[1]) if self.description.task == "segment" else output


def output_names(description: ModelDescription) -> list[str]:
    return ["output", "protos"] if description.task == "segment" else ["output"]


def export_onnx(folder: Path) -> dict[str, float | int]:
    """Write and check `model.onnx` in a model folder; returns its entry in `engines.json`.

    Raises:
        ExportError: The export failed, or the file does not reproduce PyTorch.
        InvalidModelFile: The folder holds no loadable model.
    """
    module, description = load_model(folder)
    serving = ServingModule(module, description).eval()
    size = description.imgsz
    generator = torch.Generator().manual_seed(0)
    example = torch.rand(2, 3, size, size, generator=generator)
    names = output_names(description)
    with atomic_path(folder / ONNX_FILE) as partial:
        with torch.inference_mode():
            expected = {n: _outputs(serving, example[:n]) for n in (1, 2)}
            _to_onnx(serving, example, partial, names)
        entry = _compare(partial, example, expected, description)
        sha256 = sha256_of(partial)
    record(folder, "onnx", entry | {"sha256": sha256})
    return entry


def _to_onnx(serving: nn.Module, example: Tensor, path: Path, names: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of tests on shapes, which are fixed here
        torch.onnx.export(
            serving,
            (example,),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=names,
            dynamic_axes={name: {0: "batch"} for name in (INPUT, *names)},
        )


def _outputs(serving: nn.Module, images: Tensor) -> list[np.ndarray]:
    output = serving(images)
    parts = output if isinstance(output, tuple) else (output,)
    arrays = [part.numpy() for part in parts]
    if not all(np.isfinite(array).all() for array in arrays):
        raise ExportError(
            "The model's output is NaN or infinite. Its weights may be damaged: train or import "
            "it again."
        )
    return arrays


def _compare(
    path: Path,
    example: Tensor,
    expected: dict[int, list[np.ndarray]],
    description: ModelDescription,
) -> dict[str, float | int]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    box = score = mask = 0.0
    for n, reference in expected.items():
        actual = session.run(None, {INPUT: example[:n].numpy()})
        for a, b in zip(actual, reference, strict=True):
            if a.shape != b.shape:
                raise ExportError(f"The ONNX output has shape {a.shape} instead of {b.shape}.")
        errors = parity(actual, reference, description)
        box, score, mask = (max(x, y) for x, y in zip((box, score, mask), errors, strict=True))
    if box > MAX_BOX_ERROR or score > MAX_SCORE_ERROR or mask > MAX_MASK_ERROR:
        raise ExportError(
            f"ONNX Runtime does not reproduce PyTorch: boxes are off by up to {box:.3g} px "
            f"(allowed {MAX_BOX_ERROR}), scores by {score:.3g} (allowed {MAX_SCORE_ERROR}), "
            f"masks by {mask:.3g} (allowed {MAX_MASK_ERROR})."
        )
    return {
        "max_box_error_px": box,
        "max_score_error": score,
        "max_mask_error": mask,
        "opset": OPSET,
    }


def parity(
    actual: Sequence[np.ndarray], reference: Sequence[np.ndarray], description: ModelDescription
) -> tuple[float, float, float]:
    """The largest differences between raw outputs of two engines, in the form of `ServingModule`.

    Returns:
        Boxes and keypoints (pixels), probabilities, and masks (relative to the largest
        reference value); 0 where the task has none.
    """
    difference = np.abs(actual[0].astype(np.float64) - reference[0])
    if description.task == "classify":
        return 0.0, float(difference.max()), 0.0
    nc = len(description.names)
    box = float(difference[:, :4].max())
    score = float(difference[:, 4 : 4 + nc].max())
    rest = difference[:, 4 + nc :]
    if description.task == "pose" and description.keypoint_shape:
        k, d = description.keypoint_shape
        points = rest.reshape(len(rest), k, d, -1)
        box = max(box, float(points[:, :, :2].max()))
        if d == 3:
            score = max(score, float(points[:, :, 2].max()))
    mask = 0.0
    if description.task == "segment":
        protos = np.abs(actual[1].astype(np.float64) - reference[1])
        mask = max(
            float(rest.max() / max(np.abs(reference[0][:, 4 + nc :]).max(), 1e-6)),
            float(protos.max() / max(np.abs(reference[1]).max(), 1e-6)),
        )
    return box, score, mask


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(prog="python -m models_store.export", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="+", help="folder with model.json")
    folders = parser.parse_args(arguments).folder
    limit_self()
    failed = 0
    for folder in folders:
        try:
            entry = export_onnx(folder)
            print(json.dumps({"folder": str(folder), "onnx": entry}), flush=True)
        except VisionLoopError as error:
            print(f"{folder.name}: {error.message}", file=sys.stderr, flush=True)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
