"""Export of a model folder to ONNX: `python -m models_store.export FOLDER …`.

Runs as a child process, because it imports torch. Writes `model.onnx` (fp32) and its differences
from PyTorch to `engines.json`. The number of images is free; so are height and width, unless all
images of the model are scaled to one size, as a classifier's are. A file that does not reproduce
PyTorch is deleted.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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

    Input (n, 3, h, w) float32, normalised. Outputs, na anchors, xywh in input pixels:
        detect: (n, 4 + nc, na): xywh, class probabilities;
        segment: (n, 4 + nc + nm, na), and prototypes (n, nm, h/4, w/4);
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
    channels = description.channels
    examples = [torch.rand(2, channels, size, size, generator=generator)]
    if description.any_size:
        rows = max(description.stride, size * 3 // 4 // description.stride * description.stride)
        examples.append(torch.rand(1, channels, rows, size, generator=generator))
    with atomic_path(folder / ONNX_FILE) as partial:
        with torch.inference_mode():
            expected = [(image, _outputs(serving, image)) for image in (examples[0][:1], *examples)]
        write_onnx(serving, description, size, description.any_size, partial)
        entry = _compare(partial, expected, description)
        sha256 = sha256_of(partial)
    record(
        folder,
        "onnx",
        entry | {"sha256": sha256, "size": "any" if description.any_size else "fixed"},
    )
    return entry


def write_onnx(
    serving: nn.Module, description: ModelDescription, imgsz: int, any_size: bool, path: Path
) -> None:
    """Write the graph of a network in the form of `ServingModule`.

    Args:
        serving: The network; in evaluation mode.
        description: Its task gives the names of the outputs.
        imgsz: Height and width of the image that is traced.
        any_size: Leave height and width free. The number of images is always free.
        path: The file to write.
    """
    names = output_names(description)
    axes = {name: {0: "batch"} for name in (INPUT, *names)}
    if any_size:
        axes[INPUT] |= {2: "height", 3: "width"}
        if description.task != "classify":
            axes["output"] |= {2: "anchors"}
        if "protos" in axes:
            axes["protos"] |= {2: "mask_height", 3: "mask_width"}
    # Ultralytics' heads store their anchors on the way, which inference mode forbids to trace.
    with tracing(serving, any_size), torch.inference_mode(False), torch.no_grad():
        torch.onnx.export(
            serving,
            (torch.zeros(2, description.channels, imgsz, imgsz),),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=names,
            dynamic_axes=axes,
        )


class tracing:
    """A context in which a network's head can be traced, for one size or for any.

    Heads keep the positions of their candidates for the last size that they saw (Ultralytics
    8.4.190): a trace of them would hold this size.
    """

    def __init__(self, module: nn.Module, any_size: bool) -> None:
        self.heads: list[Any] = [m for m in module.modules() if hasattr(m, "dynamic")]
        self.any_size = any_size
        self._quiet = warnings.catch_warnings()

    def __enter__(self) -> None:
        self._quiet.__enter__()
        warnings.simplefilter("ignore")  # tracing warns of tests on shapes, which are fixed here
        for head in self.heads:
            head.dynamic, head.shape = self.any_size, None

    def __exit__(self, *_: object) -> None:
        for head in self.heads:
            head.dynamic, head.shape = False, None
        self._quiet.__exit__(None, None, None)


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
    expected: Sequence[tuple[Tensor, list[np.ndarray]]],
    description: ModelDescription,
) -> dict[str, float | int]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    box = score = mask = 0.0
    for images, reference in expected:
        actual = session.run(None, {INPUT: images.numpy()})
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
