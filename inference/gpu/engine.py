"""What the engines that run batches on a device have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.cancellation import Halt
from inference.gpu.pipeline import Pipeline
from inference.postprocess import Found, Thresholds
from inference.prediction import Float
from inference.preprocess import Letterbox, LetterboxKind


class PipelineEngine:
    """The `DeviceEngine` of a pipeline; a subclass makes the pipeline and names the `backend`."""

    backend: str
    batched = True
    letterbox: LetterboxKind = "rect"

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.decodes = pipeline.decodes

    def run(
        self, pixels: NDArray[np.uint8], wide: bool = False, halt: Halt | None = None
    ) -> tuple[Float, ...]:
        if halt is not None:
            halt.check()
        return self._pipeline.run(pixels)

    def detect(
        self,
        images: Sequence[Any],
        places: Sequence[Letterbox],
        wanted: Sequence[Thresholds],
        halt: Halt | None = None,
    ) -> list[Found]:
        return self._pipeline.detect(images, places, wanted, halt)

    def decode(self, jpegs: Sequence[bytes], places: Sequence[Letterbox]) -> list[Any]:
        return self._pipeline.decode(jpegs, places)
