"""The OpenVINO engine on the CPU: the ONNX file in fp32, or a quantised network in int8."""

from __future__ import annotations

import threading
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.cancellation import Halt
from inference.cpu._openvino import openvino
from inference.device import cpu_sessions
from inference.prediction import Float
from inference.preprocess import LetterboxKind, normalise
from models_store.description import ModelDescription
from settings import Settings

FP32, INT8 = "openvino-cpu-fp32", "openvino-cpu-int8"  # names of the backends


class OpenVinoEngine:
    """One network, compiled for many images at once, for a single one, and for low priority.

    For many images there is a stream of one thread per core; callers wait for theirs. The single
    image is distributed over all cores. All of them return the same values, to the last bit
    (OpenVINO 2026.4.1; the tests compare them).

    A call with `halt` runs in the caller's thread, and so at its priority: the threads of streams
    have the priority of the process. It is compiled at the first such call.

    The network takes any size that its file takes. One that is compiled for a size is 5 % faster
    in fp32 and 10 % in int8, but in int8 its answers differ from those of the network for any size,
    so that an answer would depend on the images before it.
    """

    batched = False

    def __init__(
        self, path: Path, backend: str, description: ModelDescription, settings: Settings
    ) -> None:
        """`path` is an ONNX file, or the `.xml` of a network in OpenVINO's own form."""
        self.backend = backend
        self._preprocessing = description.preprocessing
        self._core = openvino.Core()
        self._network = self._core.read_model(str(path))
        fixed = self._network.inputs[0].get_partial_shape()[2].is_static
        self.letterbox: LetterboxKind = "square" if fixed else "rect"
        cores = cpu_sessions(settings)
        self._narrow = self._compiled(streams=cores, threads=cores)
        self._wide = self._compiled(streams=1, threads=cores) if cores > 1 else self._narrow
        self._requests = threading.local()
        self._lock = threading.Lock()

    def run(
        self, pixels: NDArray[np.uint8], wide: bool = False, halt: Halt | None = None
    ) -> tuple[Float, ...]:
        images = normalise(pixels, self._preprocessing)
        if halt is None:
            return _outputs(self._request("wide" if wide else "narrow"), images)
        halt.check()
        with self._lock:
            network = self._quiet
        request = network.create_infer_request()  # its own: a late order does not stop the next run
        halt.on_order(request.cancel)  # checked between layers
        halt.check()
        try:
            return _outputs(request, images)
        except RuntimeError:
            halt.check()
            raise

    @cached_property
    def _quiet(self) -> Any:
        return self._compiled(streams=0, threads=1)  # no streams: in the caller's thread

    def _request(self, name: str) -> Any:
        """The calling thread's own request of a compiled network."""
        found = getattr(self._requests, name, None)
        if found is None:
            network = self._wide if name == "wide" else self._narrow
            found = network.create_infer_request()
            setattr(self._requests, name, found)
        return found

    def _compiled(self, streams: int, threads: int) -> Any:
        config = {
            # otherwise a CPU with bfloat16 computes in that, far less precisely
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": str(streams),
            "INFERENCE_NUM_THREADS": str(threads),
            "ENABLE_CPU_PINNING": "NO",  # the cores are also those of the decoding
        }
        return self._core.compile_model(self._network, "CPU", config)


def _outputs(request: Any, images: Float) -> tuple[Float, ...]:
    return tuple(request.infer([images], share_inputs=True).values())
