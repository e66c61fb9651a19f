"""The PyTorch engine: half precision on a GPU; single precision on a CPU, as reference in tests.

This module imports torch; `inference.engine` imports it only where a GPU is used.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from inference.device import GPU_BATCH
from inference.gpu.engine import PipelineEngine
from inference.gpu.pipeline import SLOTS, Pipeline
from models_store.export import ServingModule
from models_store.weights import load_model


class TorchEngine(PipelineEngine):
    """A PyTorch module in channels-last memory format, with two batches in flight."""

    def __init__(
        self,
        folder: Path,
        device: Literal["cpu", "cuda"],
        half: bool,
        max_batch: int = GPU_BATCH,
        *,
        graphs: bool | None = None,
        decodes: bool | None = None,
    ) -> None:
        """
        Args:
            folder: The model's folder.
            device: Where it runs.
            half: In half precision.
            max_batch: Most images that run together.
            graphs: Whether shapes of batches that recur get a graph; None: on a GPU.
            decodes: Whether JPEGs are decoded on the device; None: measured on a GPU.
        """
        module: Any
        module, description = load_model(folder)
        self.backend = f"pytorch-{device}-{'fp16' if half else 'fp32'}"
        where, dtype = torch.device(device), torch.float16 if half else torch.float32
        if description.family == "yolo":
            module.fuse(verbose=False)  # fuse batch normalisation into the preceding convolutions
        serving = ServingModule(module, description).eval().to(where, dtype)
        serving = serving.to(memory_format=torch.channels_last)
        for parameter in serving.parameters():
            parameter.requires_grad_(False)
        pipeline = Pipeline(
            [_Network(_sharing_weights(serving)) for _ in range(SLOTS)],
            description,
            where,
            dtype,
            max_batch,
            graphs=device == "cuda" if graphs is None else graphs,
            decodes=decodes,
        )
        super().__init__(pipeline)


def _sharing_weights(module: nn.Module) -> nn.Module:
    """A copy with the same weights, for another thread: heads keep state between two calls."""
    tensors = (*module.parameters(), *module.buffers())
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})


class _Network:
    """A serving module whose head decodes boxes and key points in single precision.

    In half precision the coordinates of boxes are multiples of half a pixel beyond 512. The grid of
    candidates is kept for each size of input: Ultralytics' head makes it on the CPU whenever the
    size changes (8.4.190), and a CUDA graph can neither copy from there nor lose it later.
    """

    def __init__(self, serving: nn.Module) -> None:
        self._serving = serving
        self._grids: dict[tuple[tuple[int, ...], ...], tuple[Tensor, Tensor]] = {}
        for head in serving.modules():
            if hasattr(head, "_get_decode_boxes"):
                self._decode_in_single_precision(head)

    def __call__(self, images: Tensor) -> Sequence[Tensor]:
        outputs = self._serving(images)
        return (outputs,) if isinstance(outputs, Tensor) else outputs

    def _decode_in_single_precision(self, head: Any) -> None:
        from ultralytics.utils.tal import make_anchors

        inference = head._inference
        if isinstance(head.dfl, nn.Module):
            head.dfl = copy.deepcopy(head.dfl).float()

        def decoded(raw: dict[str, Any]) -> Tensor:
            levels = [level[:, :1].float() for level in raw["feats"]]  # their size is what counts
            sizes = tuple(tuple(level.shape[2:]) for level in levels)
            if sizes not in self._grids:
                anchors, strides = make_anchors(levels, head.stride, 0.5)
                self._grids[sizes] = anchors.transpose(0, 1), strides.transpose(0, 1)
            head.anchors, head.strides = self._grids[sizes]
            head.shape = levels[0].shape
            return inference(
                {k: v.float() if isinstance(v, Tensor) else v for k, v in raw.items()}
                | {"feats": levels}
            )

        head._inference = decoded
