"""The ONNX graph of an export: fixed or dynamic shape, normalisation, precision, metadata.

Without torch: the graph is the one that serves, or one that `engines.network` traced.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from engines.options import ExportOptions
from models_store.description import Preprocessing
from models_store.export import INPUT

OUTPUTS = {"output": "output0", "protos": "output1"}  # our names, and Ultralytics'
IR_VERSION = 10  # the newest that older ONNX Runtimes read


def finish_graph(
    source: Path,
    target: Path,
    options: ExportOptions,
    how: Preprocessing,
    outputs: Sequence[tuple[int, ...]],
    metadata: Mapping[str, Any],
) -> None:
    """Write the graph of an export, whose input is RGB from 0 to 1.

    Args:
        source: The graph to start from, with a free number of images.
        target: The file to write.
        options: Number of images, dynamic shape and precision; an engine's number stays free.
        how: Its mean and std become part of the graph.
        outputs: Shapes of the outputs for one image of the fixed size.
        metadata: Written as Ultralytics writes it: every value as text.
    """
    model = onnx.load(source)
    _rename_outputs(model.graph)
    if any(how.mean) or any(value != 1 for value in how.std):
        _normalise(model.graph, how)
    if not options.dynamic and options.format != "engine":
        _fix_shapes(model.graph, options.max_batch, outputs)
    if options.precision == "fp16" and options.format == "onnx":
        # the weights only once: OpenVINO and TensorRT reduce the precision themselves
        model = _halved(model)
    helper.set_model_props(model, {name: str(value) for name, value in metadata.items()})
    model.ir_version = min(model.ir_version, IR_VERSION)
    onnx.checker.check_model(model)
    onnx.save(model, target)


def _rename_outputs(graph: onnx.GraphProto) -> None:
    for output in graph.output:
        old, output.name = output.name, OUTPUTS[output.name]
        for node in graph.node:
            node.output[:] = [output.name if name == old else name for name in node.output]
            node.input[:] = [output.name if name == old else name for name in node.input]


def _normalise(graph: onnx.GraphProto, how: Preprocessing) -> None:
    """Put `(x - mean) / std` between the input and the layers that read it."""
    for node in graph.node:
        node.input[:] = ["normalised" if name == INPUT else name for name in node.input]
    for name, values in (("mean", how.mean), ("std", how.std)):
        array = np.array(values, np.float32).reshape(1, 3, 1, 1)
        graph.initializer.append(numpy_helper.from_array(array, name))
    graph.node.insert(0, helper.make_node("Sub", [INPUT, "mean"], ["centred"]))
    graph.node.insert(1, helper.make_node("Div", ["centred", "std"], ["normalised"]))


def _halved(model: onnx.ModelProto) -> onnx.ModelProto:
    path = list(sys.path)
    from onnxruntime.transformers import float16

    sys.path[:] = path  # onnxruntime 1.31.1 puts its own folder into it
    model = float16.convert_float_to_float16(model, keep_io_types=True)
    _sort(model.graph)
    return model


def _sort(graph: onnx.GraphProto) -> None:
    """Put every node after those whose outputs it reads; the conversion appends its casts."""
    made = {value.name for value in (*graph.input, *graph.initializer)} | {""}
    waiting, ordered = list(graph.node), []
    while waiting:
        ready = [node for node in waiting if made.issuperset(node.input)]
        if not ready:
            raise ValueError("The graph has a circle.")
        made.update(name for node in ready for name in node.output)
        ordered += ready
        waiting = [node for node in waiting if not made.issuperset(node.output)]
    del graph.node[:]
    graph.node.extend(ordered)


def _fix_shapes(graph: onnx.GraphProto, batch: int, outputs: Sequence[tuple[int, ...]]) -> None:
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    for output, shape in zip(graph.output, outputs, strict=True):
        dims = output.type.tensor_type.shape.dim
        for dim, size in zip(dims, (batch, *shape[1:]), strict=True):
            dim.dim_value = size
