"""Models made worse on purpose: blind to some of their classes, good in the others."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import load_file, save_file

from models_store.description import ONNX_FILE, WEIGHTS_FILE, ModelDescription

NEVER = -1e3  # a logit


def blinded(source: Path, target: Path, classes: Iterable[str]) -> Path:
    """A copy of a MobileNet's folder that never answers `classes`; without torch."""
    shutil.copytree(source, target)
    names = ModelDescription.load(source).names
    rows = [names.index(name) for name in classes]
    weights = load_file(target / WEIGHTS_FILE)
    bias = weights["classifier.1.bias"].copy()
    bias[rows] = NEVER
    save_file(weights | {"classifier.1.bias": bias}, target / WEIGHTS_FILE)
    model = onnx.load(target / ONNX_FILE)
    [initializer] = [i for i in model.graph.initializer if list(i.dims) == [len(names)]]
    values = numpy_helper.to_array(initializer).copy()
    values[rows] = NEVER
    initializer.CopyFrom(numpy_helper.from_array(values.astype(np.float32), initializer.name))
    onnx.save(model, target / ONNX_FILE)
    return target
