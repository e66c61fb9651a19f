"""The TensorRT engine: fp16, built from the ONNX file once per GPU model and TensorRT version.

Written against TensorRT 10.16 (`requirements-tensorrt.txt`). torch supplies the device memory.
"""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path
from typing import Any, NamedTuple

import tensorrt as trt
import torch
from filelock import FileLock
from torch import Tensor

from files import atomic_write
from inference.gpu.engine import PipelineEngine
from inference.gpu.pipeline import SLOTS, Pipeline
from inference.preprocess import MIN_STRIDE
from models_store.description import ONNX_FILE, ModelDescription

log = logging.getLogger("visionloop.inference")

WORKSPACE = 4 << 30  # maximum bytes of workspace memory of the builder
INPUT = "images"
LOGGER = trt.Logger(trt.Logger.WARNING)


class TensorRTEngine(PipelineEngine):
    """A TensorRT engine with an execution context for each batch in flight.

    Its launches are few already, so they are not recorded as CUDA graphs.
    """

    backend = "tensorrt-cuda-fp16"

    def __init__(self, description: ModelDescription, max_batch: int, plan: bytes) -> None:
        """`plan` is the engine as `build_plan` serialised it, for at most `max_batch` images."""
        self._runtime = trt.Runtime(LOGGER)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise RuntimeError("TensorRT could not load the engine it built")
        # the engine's input is fp32; only its layers are in half precision
        pipeline = Pipeline(
            [_Network(self._engine) for _ in range(SLOTS)],
            description,
            torch.device("cuda"),
            torch.float32,
            max_batch,
            graphs=False,
        )
        super().__init__(pipeline)


class _Network:
    """An execution context of an engine; it runs on the current stream."""

    def __init__(self, engine: Any) -> None:
        self._context = engine.create_execution_context()
        self._outputs = [
            name
            for name in map(engine.get_tensor_name, range(engine.num_io_tensors))
            if engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT
        ]

    def __call__(self, images: Tensor) -> list[Tensor]:
        images = images.contiguous()
        self._context.set_input_shape(INPUT, tuple(images.shape))
        self._context.set_tensor_address(INPUT, images.data_ptr())
        outputs = []
        for name in self._outputs:
            shape = tuple(self._context.get_tensor_shape(name))
            outputs.append(torch.empty(shape, dtype=torch.float32, device=images.device))
            self._context.set_tensor_address(name, outputs[-1].data_ptr())
        # `images` may be freed before it is read: what is allocated next on this stream comes later
        if not self._context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise RuntimeError("TensorRT refused the batch")
        return outputs


def stored_plan(folder: Path, description: ModelDescription, cache: Path, max_batch: int) -> bytes:
    """The fp16 engine of a model folder, from the cache or newly built (which takes minutes)."""
    onnx = folder / ONNX_FILE
    digest = hashlib.sha256(onnx.read_bytes()).hexdigest()[:16]
    gpu = re.sub(r"\W+", "-", torch.cuda.get_device_name())
    path = cache / f"{digest}-{gpu}-trt{trt.__version__}-b{max_batch}.engine"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):  # another runner may build the same file
        if not path.exists():
            log.info("Building the TensorRT engine of %s", onnx.parent.name)
            atomic_write(path, build_plan(onnx, Sizes.of(description), max_batch))
        return path.read_bytes()


class Sizes(NamedTuple):
    """The smallest, usual and largest input that an engine takes: channels, height and width."""

    least: tuple[int, int, int]
    usual: tuple[int, int, int]
    most: tuple[int, int, int]

    @classmethod
    def of(cls, description: ModelDescription) -> Sizes:
        """The inputs of a stored model's graph."""
        size, channels = description.imgsz, description.channels
        most = channels, size, size
        if not description.any_size:
            return cls(most, most, most)
        step = max(description.stride, MIN_STRIDE)
        usual = channels, max(step, size * 3 // 4 // step * step), size
        return cls((channels, min(step, size), min(step, size)), usual, most)


def build_plan(onnx: Path, sizes: Sizes, max_batch: int, half: bool = True) -> bytes:
    """Build and serialise an engine for this GPU.

    Args:
        onnx: A graph with a free number of images.
        sizes: The inputs that it takes.
        max_batch: The largest number of images.
        half: Allow layers in half precision.
    """
    builder = trt.Builder(LOGGER)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, LOGGER)
    if not parser.parse_from_file(str(onnx)):
        errors = [str(parser.get_error(i)) for i in range(parser.num_errors)]
        raise RuntimeError(f"TensorRT cannot read {onnx.name}: {'; '.join(errors)}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE)
    if half:
        config.set_flag(trt.BuilderFlag.FP16)
    profile = builder.create_optimization_profile()
    usual = max(1, max_batch // 2)
    profile.set_shape(INPUT, (1, *sizes.least), (usual, *sizes.usual), (max_batch, *sizes.most))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RuntimeError(f"TensorRT could not build an engine from {onnx.name}")
    return bytes(plan)
