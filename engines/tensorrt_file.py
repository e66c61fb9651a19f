"""The TensorRT export: an engine for the GPU and the TensorRT version of this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorrt as trt
import torch

from engines.options import ExportOptions
from engines.parity import Run
from inference.prediction import Float
from inference.tensorrt_engine import Sizes, TensorRTEngine, build_plan
from models_store.description import ModelDescription, Preprocessing

HEADER = 4  # bytes of the length of the metadata before the engine, as Ultralytics writes it


def gpu_name() -> str:
    """The name of the GPU that an engine is built on."""
    return str(torch.cuda.get_device_name())


def engine_key(options: ExportOptions) -> str:
    """`options.key` with the GPU and the TensorRT version, which the engine is bound to."""
    gpu = re.sub(r"\W+", "-", gpu_name())
    return f"{options.key}-{gpu}-trt{trt.__version__}"


def write_engine(
    graph: Path, path: Path, options: ExportOptions, metadata: Mapping[str, Any]
) -> None:
    """Build an engine; takes minutes."""
    image = (3, options.imgsz, options.imgsz)
    plan = build_plan(
        graph, Sizes(image, image, image), options.max_batch, half=options.precision == "fp16"
    )
    header = json.dumps(dict(metadata)).encode()
    path.write_bytes(len(header).to_bytes(HEADER, "little", signed=True) + header + plan)


def read_engine(path: Path, description: ModelDescription, options: ExportOptions) -> Run:
    """The engine in a file, as TensorRT runs it on this machine."""
    content = path.read_bytes()
    start = HEADER + int.from_bytes(content[:HEADER], "little", signed=True)
    how = Preprocessing(resize="squash", imgsz=options.imgsz)  # the graph normalises
    plain = description.model_copy(update={"preprocessing": how})
    engine = TensorRTEngine(plain, options.max_batch, content[start:])

    def run(images: Float) -> list[Float]:
        pixels = np.rint(images * 255).astype(np.uint8).transpose(0, 2, 3, 1)
        return list(engine.run(np.ascontiguousarray(pixels)))

    return run
