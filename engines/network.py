"""The exports that PyTorch writes: `.pt`, TorchScript, graphs of another size. Imports torch."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engines.metadata import DOCS, LICENSE, keypoint_names
from engines.options import ExportOptions, Precision
from engines.parity import Run
from inference.prediction import Float
from models_store.description import ModelDescription, Preprocessing
from models_store.export import ServingModule, tracing, write_onnx
from models_store.weights import build_model, load_model


class FromUnit(nn.Module):
    """A network with the outputs of `ServingModule`, whose input is RGB from 0 to 1."""

    mean: Tensor
    std: Tensor

    def __init__(self, module: nn.Module, description: ModelDescription) -> None:
        super().__init__()
        self.serving = ServingModule(module, description)
        how = description.preprocessing
        self.plain = not any(how.mean) and all(value == 1 for value in how.std)
        self.register_buffer("mean", torch.tensor(how.mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(how.std).reshape(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        result: Tensor | tuple[Tensor, Tensor] = self.serving(
            images if self.plain else (images - self.mean) / self.std
        )
        return result


class Network:
    """A stored model as PyTorch runs it."""

    def __init__(self, folder: Path) -> None:
        self.module, self.description = load_model(folder)

    def run(self, images: Float) -> list[Float]:
        """A `parity.Run`: what the weights give for images of any size."""
        return run_module(FromUnit(self.module, self.description).eval(), images)

    def write_graph(self, path: Path, imgsz: int, dynamic: bool) -> None:
        """Write an ONNX graph with a free number of images; `dynamic`: of any size.

        Its input is normalised, as that of the graph that serves.
        """
        serving = ServingModule(self.module, self.description).eval()
        write_onnx(serving, self.description, imgsz, dynamic, path)

    def write_torchscript(
        self, path: Path, options: ExportOptions, metadata: Mapping[str, Any]
    ) -> None:
        """Write a traced network; Ultralytics reads the metadata from `config.txt` in it."""
        import json

        example = torch.zeros(2, 3, options.imgsz, options.imgsz)
        with tracing(self.module, options.dynamic), torch.inference_mode(False), torch.no_grad():
            network = FromUnit(self.module, self.description).eval()
            traced = torch.jit.trace(network, example, strict=False, check_trace=False)
        content = io.BytesIO()  # torch 2.13's own file ends the process where the disk is full
        with _still_torchscript():
            torch.jit.save(traced, content, _extra_files={"config.txt": json.dumps(dict(metadata))})
        path.write_bytes(content.getbuffer())

    def write_checkpoint(self, path: Path, precision: Precision) -> None:
        """Write a `.pt`: Ultralytics' checkpoint, or a state dict for torchvision's MobileNetV2."""
        module = self.module.half() if precision == "fp16" else self.module.float()
        if self.description.family == "mobilenet":
            torch.save(module.state_dict(), path)
            return
        from ultralytics import __version__

        prepare_for_ultralytics(module, self.description)
        content = {
            "epoch": -1,
            "best_fitness": None,
            "model": module,
            "ema": None,
            "updates": None,
            "optimizer": None,
            "train_args": {"task": self.description.task, "imgsz": self.description.imgsz},
            "date": datetime.now(UTC).isoformat(),
            "version": __version__,
            "license": LICENSE,
            "docs": DOCS,
        }
        torch.save(content, path)


def prepare_for_ultralytics(module: nn.Module, description: ModelDescription) -> None:
    """Set the attributes from which Ultralytics' predictor takes key points and transforms."""
    for parameter in module.parameters():
        parameter.requires_grad = False
    network: Any = module
    if (names := keypoint_names(description)) is not None:
        network.kpt_names = names
    if description.task == "classify":
        network.transforms = _transforms(description.preprocessing)


def _transforms(how: Preprocessing) -> Any:
    from torchvision import transforms as T

    mode = T.InterpolationMode(how.interpolation)
    cut = how.resize == "centre_crop"
    resize = T.Resize(how.resize_to or how.imgsz, mode) if cut else T.Resize((how.imgsz,) * 2, mode)
    crop = [T.CenterCrop(how.imgsz)] if cut else []
    normalise = T.Normalize(torch.tensor(how.mean), torch.tensor(how.std))
    return T.Compose([resize, *crop, T.ToTensor(), normalise])


def read_checkpoint(path: Path, description: ModelDescription) -> Run:
    """A `.pt` that was just written, read as its users read it."""
    if description.family == "mobilenet":
        module = build_model(description)
        module.load_state_dict(torch.load(path, weights_only=True))
    else:
        from ultralytics.nn.tasks import load_checkpoint

        module = load_checkpoint(path)[0]
    network = FromUnit(module.float().eval(), description).eval()
    return lambda images: run_module(network, images)


@contextlib.contextmanager
def _still_torchscript() -> Iterator[None]:
    """Without PyTorch's advice (2.13) to use another format: TorchScript is what was asked for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit", FutureWarning)
        yield


def read_torchscript(path: Path) -> Run:
    """A TorchScript file, as `torch.jit.load` reads it."""
    with _still_torchscript():
        module = torch.jit.load(str(path))
    return lambda images: run_module(module, images)


def run_module(module: nn.Module, images: Float) -> list[Float]:
    with torch.inference_mode():
        output = module(torch.from_numpy(images))
    parts = output if isinstance(output, tuple) else (output,)
    return [np.asarray(part.float().numpy()) for part in parts]
