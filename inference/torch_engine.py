"""The PyTorch engine: half precision on a GPU; single precision on a CPU, as reference in tests.

This module imports torch; `inference.engine` imports it only where a GPU is used.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from inference.cancellation import Halt
from inference.prediction import Float
from inference.preprocess import LetterboxKind
from models_store.description import Preprocessing
from models_store.export import ServingModule
from models_store.weights import load_model


class TorchEngine:
    """A PyTorch module in channels-last memory format. Calls run one at a time on the device.

    Images are copied to the device as uint8 and normalised there.
    """

    batched = True
    letterbox: LetterboxKind = "rect"

    def __init__(self, folder: Path, device: Literal["cpu", "cuda"], half: bool) -> None:
        module: Any
        module, description = load_model(folder)
        self.backend = f"pytorch-{device}-{'fp16' if half else 'fp32'}"
        self._device = torch.device(device)
        self._dtype = torch.float16 if half else torch.float32
        self._preprocessing = description.preprocessing
        if description.family == "yolo":
            module.fuse(verbose=False)  # fuse batch normalisation into the preceding convolutions
        serving = ServingModule(module, description).eval()
        self._module = serving.to(self._device, self._dtype).to(memory_format=torch.channels_last)
        self._lock = threading.Lock()

    def run(
        self, pixels: NDArray[np.uint8], wide: bool = False, halt: Halt | None = None
    ) -> tuple[Float, ...]:
        with self._lock, torch.inference_mode():
            images = to_device(pixels, self._preprocessing, self._device, self._dtype)
            outputs = self._module(images)
            if isinstance(outputs, torch.Tensor):
                outputs = (outputs,)
            return tuple(output.float().cpu().numpy() for output in outputs)


def to_device(
    pixels: NDArray[np.uint8], how: Preprocessing, device: torch.device, dtype: Any
) -> torch.Tensor:
    """Copy (n, h, w, c) uint8 from the host to the device, normalised, as (n, c, h, w)."""
    images = torch.from_numpy(np.ascontiguousarray(pixels)).to(device).permute(0, 3, 1, 2)
    images = images.to(torch.float32).div_(255)
    if any(how.mean) or any(value != 1 for value in how.std):
        mean = torch.tensor(how.mean[: images.shape[1]], device=device).view(-1, 1, 1)
        std = torch.tensor(how.std[: images.shape[1]], device=device).view(-1, 1, 1)
        images = images.sub_(mean).div_(std)
    return images.to(dtype, memory_format=torch.channels_last)
