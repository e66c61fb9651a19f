"""The ONNX Runtime engine on the CPU, the default without a GPU."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.cancellation import Halt
from inference.device import cpu_sessions
from inference.prediction import Float
from inference.preprocess import LetterboxKind, normalise
from models_store._onnxruntime import onnxruntime
from models_store.description import ONNX_FILE, ModelDescription
from settings import Settings


class OnnxEngine:
    """Two sessions of one model: narrow for many images at once, wide for a single one.

    The narrow session runs in the caller's thread and is called from as many threads as there are
    cores. This has the throughput of that many sessions with only one copy of the weights. The wide
    session distributes a single image over all cores. Both return the same values except for
    rounding: ONNX Runtime splits outputs, not sums, among threads, but the position of a split can
    change how a value is rounded (seen in 1.31 on CPUs with AVX2 and without AVX-512;
    docs/explanation/serving.md gives the bounds). Threads do not spin while they wait, because that
    would take CPU time from the decoding of other images.
    """

    backend = "onnxruntime-cpu"
    batched = False
    letterbox: LetterboxKind

    def __init__(self, folder: Path, description: ModelDescription, settings: Settings) -> None:
        self._preprocessing = description.preprocessing
        self._narrow = _session(folder / ONNX_FILE, 1)
        # A file that was exported with a fixed size serves until it is made again.
        rows = self._narrow.get_inputs()[0].shape[2]
        self.letterbox = "square" if isinstance(rows, int) else "rect"
        cores = cpu_sessions(settings)
        self._wide = _session(folder / ONNX_FILE, cores) if cores > 1 else self._narrow

    def run(
        self, pixels: NDArray[np.uint8], wide: bool = False, halt: Halt | None = None
    ) -> tuple[Float, ...]:
        session = self._wide if wide else self._narrow
        images = {"images": normalise(pixels, self._preprocessing)}
        if halt is None:
            return tuple(session.run(None, images))
        halt.check()
        options = onnxruntime.RunOptions()
        halt.on_order(partial(setattr, options, "terminate", True))  # checked between layers
        try:
            return tuple(session.run(None, images, options))
        except Exception:
            halt.check()
            raise


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only: its warnings are about details of the graph
    return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
