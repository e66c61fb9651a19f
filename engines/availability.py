"""Whether this machine can write a format; without importing what writes it."""

from __future__ import annotations

from engines.options import Format
from errors import Conflict
from inference.device import cuda_devices, installed
from settings import Settings


def check_available(wanted: Format, settings: Settings) -> None:
    """Check that a format can be written here.

    Raises:
        Conflict: A package or a GPU is missing; the message says what to do.
    """
    if wanted == "openvino" and not installed("openvino"):
        raise Conflict(
            "OpenVINO is not installed on this server. Install it with `pip install openvino`, or "
            "choose onnx, which OpenVINO reads too."
        )
    if wanted != "engine":
        return
    if not installed("tensorrt"):
        raise Conflict(
            "TensorRT is not installed on this server. Install requirements-tensorrt.txt on a "
            "machine with an NVIDIA GPU, or choose onnx and build the engine where it is to run."
        )
    if settings.device == "cpu" or cuda_devices() == 0:
        raise Conflict(
            "An engine is built on the GPU that runs it, and this server has none (or "
            "VISIONLOOP_DEVICE is cpu). Choose onnx and build the engine where it is to run."
        )
