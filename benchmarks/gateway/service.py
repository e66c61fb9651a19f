"""The service with an engine that computes nothing: what is left is the cost of serving.

Every model finds its first class. Images are decoded as always.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.cancellation import Halt
from inference.engine import Engine
from inference.engine_files import load_description
from inference.prediction import Float
from inference.preprocess import LetterboxKind
from inference.runtime.model_runtime import ModelRuntime
from models_store.description import ModelDescription
from serving import model_runner
from settings import Settings


class NoOpEngine:
    """A classifier that looks at nothing."""

    backend = "no-op"
    batched = False
    letterbox: LetterboxKind = "square"

    def __init__(self, classes: int) -> None:
        self._answer = np.zeros((1, classes), np.float32)
        self._answer[0, 0] = 1.0

    def run(
        self, pixels: NDArray[np.uint8], wide: bool = False, halt: Halt | None = None
    ) -> tuple[Float, ...]:
        return (np.repeat(self._answer, len(pixels), axis=0),)


def load_nothing(folder: Path, settings: Settings) -> tuple[Engine, ModelDescription]:
    """A NoOpEngine with the model's own description, which must be a classifier's."""
    description = load_description(folder)
    return NoOpEngine(len(description.names)), description


model_runner.ModelRuntime = partial(ModelRuntime, load=load_nothing)  # type: ignore[misc, assignment]

from service import VisionLoop  # noqa: E402

__all__ = ["VisionLoop"]
