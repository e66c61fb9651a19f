"""Post-training quantisation of a model to int8 with NNCF. Only child processes import this."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engines._nncf import RangeEstimatorParametersSet, nncf
from errors import VisionLoopError
from inference.cpu._openvino import openvino
from inference.images import decode
from inference.prediction import Float
from inference.preprocess import Letterbox, LetterboxKind, normalise, prepare
from models_store.description import ModelDescription

MOST_IMAGES = 300
# How the range of an activation follows from the images, in the order in which they are tried: the
# first keeps most accuracy for most models, but each is at times the only one that loses little.
RANGES = ("MEAN_MINMAX", "HISTOGRAM", "MINMAX")


def quantised(
    graph: Path, images: Sequence[Path], read: Callable[[Path], Float], ranges: str = RANGES[0]
) -> Any:
    """The network of an ONNX file with weights and activations in int8, as OpenVINO has it.

    What the head does after its last convolutions stays in fp32: it puts boxes in pixels and scores
    from 0 to 1 into one array, for which one scale cannot do.

    Args:
        graph: The ONNX file.
        images: The image files that it is calibrated on.
        read: The input of the network (1, 3, h, w) for an image file. It is called again in each
            pass over the images: 300 inputs of 640 x 640 are 1.5 GB.
        ranges: One of RANGES.

    Raises:
        VisionLoopError: There are no images.
    """
    if not images:
        raise VisionLoopError("There is no image to calibrate int8 with.")
    network = openvino.Core().read_model(str(graph))
    ignored = after_convolutions(network)
    path = list(sys.path)
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bar
        found = nncf.quantize(
            network,
            nncf.Dataset(images, read),
            subset_size=len(images),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER,  # keeps attention exact; no effect without it
            ignored_scope=nncf.IgnoredScope(names=ignored),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                # A CPU without VNNI adds two products of 8 bits in 16, where those of the first
                # layer, whose inputs reach the end of their range, do not fit: its weights get 7.
                # 7 bits for all layers lose more than they save (docs/explanation/serving.md).
                overflow_fix=nncf.OverflowFix.FIRST_LAYER,
                activations_range_estimator_params=getattr(RangeEstimatorParametersSet, ranges),
            ),
        )
    sys.path[:] = path  # setuptools, which torch imports, puts a folder of its own into it
    return found


def write(network: Any, path: Path) -> None:
    """Write a network as `path` (`.xml`) and its weights beside it (`.bin`)."""
    openvino.save_model(network, str(path), compress_to_fp16=False)


def after_convolutions(network: Any) -> list[str]:
    """The names of the operations between the last convolutions and the outputs.

    Found from the outputs backwards; constants, and the shapes that sizes are computed from, are
    left out.
    """
    found: dict[str, None] = {}
    waiting = [output.get_node() for output in network.outputs]
    seen: set[str] = set()
    while waiting:
        node = waiting.pop()
        name = node.get_friendly_name()
        if name in seen:
            continue
        seen.add(name)
        if node.get_type_name() in ("Parameter", "Constant"):
            continue
        sources = [port.get_source_output().get_node() for port in node.inputs()]
        if _is_convolution(node, sources):
            continue
        if node.get_type_name() != "Result":
            found[name] = None
        waiting += sources
    return list(found)


def _is_convolution(node: Any, sources: Sequence[Any]) -> bool:
    """Whether a node is a trained layer, or adds the bias of one.

    The convolution in Ultralytics' `dfl` is none: it takes the mean of a distribution.
    """
    if "/dfl/" in node.get_friendly_name():
        return False
    kinds = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul")
    if node.get_type_name() in kinds:
        return True
    return node.get_type_name() == "Add" and any(s.get_type_name() in kinds for s in sources)


def calibration(images: Sequence[Path]) -> list[Path]:
    """At most MOST_IMAGES images, evenly spread over those given."""
    places = np.linspace(0, len(images) - 1, min(len(images), MOST_IMAGES)).round().astype(int)
    return [images[place] for place in dict.fromkeys(places.tolist())]


def network_input(
    path: Path, description: ModelDescription, kind: LetterboxKind, max_pixels: int
) -> Float:
    """The input (1, 3, h, w) that serving makes of an image file, decoded in full."""
    pixels = decode(path.read_bytes(), max_pixels)
    height, width = pixels.shape[:2]
    place = Letterbox.of(description, kind, width, height)
    return normalise(prepare(pixels, description, place)[None], description.preprocessing)
