"""A runtime of small models, and photographs for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from inference.engine import load_engine
from inference.runtime.loaded_models import Load
from inference.runtime.model_runtime import ModelRuntime
from settings import Settings
from tests.support.scenes import encoded, scene

KINDS = ("detect", "segment", "pose", "classify", "mobilenet")


@contextmanager
def running(
    locate: Callable[[str], Path], load: Load = load_engine, **settings: Any
) -> Iterator[ModelRuntime]:
    given: dict[str, Any] = {"device": "cpu", "sessions": 2, "max_pixels": 1_000_000}
    runtime = ModelRuntime(locate, Settings(**(given | settings)), load)
    yield runtime
    runtime.close()


def photo(seed: int = 0, width: int = 300, height: int = 200) -> bytes:
    return encoded(scene(width, height, seed))
