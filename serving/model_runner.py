"""A service process that holds models: the base of the Detector and the Annotator."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bentoml

from errors import VisionLoopError
from inference.prediction import InferenceItem
from inference.runtime import ModelRuntime
from models_store.store import locate
from serving import lifecycle
from serving.answers import infer_answer
from serving.envelope import Envelope
from serving.shutdown import Drain
from settings import get_settings

if TYPE_CHECKING:
    from models_store.registry import Registry


async def predict_alone(runtime: ModelRuntime, images: Sequence[Path]) -> list[dict[str, Any]]:
    """Responses of a runner that is served without the gateway, by the active model.

    One response an image. An image that fails has its error in its place: an exception would fail
    the whole batch.
    """
    try:
        model = (await asyncio.to_thread(_registry)).active().id
    except VisionLoopError as error:
        return [error.to_json() for _ in images]
    items = [InferenceItem(await asyncio.to_thread(p.read_bytes), model) for p in images]
    answers = []
    for result in await runtime.predict_batch(items):
        try:
            answers.append(infer_answer(model, result))
        except VisionLoopError as error:
            answers.append(error.to_json())
    return answers


@lru_cache(maxsize=1)
def _registry() -> Registry:
    # Late: only a runner that is served alone needs SQLAlchemy.
    from database import Database
    from models_store.registry import Registry

    return Registry(Database(get_settings()))


class ModelRunner:
    """Loads models by tag (`name:version`) and predicts batches of images with them."""

    def __init__(self) -> None:
        self.runtime = ModelRuntime(locate, get_settings())
        self.drain = Drain()

    @bentoml.on_startup
    async def start(self) -> None:
        self.drain.arm()
        lifecycle.finish_startup(get_settings())

    @bentoml.api
    async def predict_batch(self, items: Any) -> Any:
        """Envelope of InferenceItems in, Envelope of as many ItemResults out, in the same order."""
        with self.drain:
            return Envelope(await self.runtime.predict_batch(items.content))

    @bentoml.api
    async def compare(self, pair: Any) -> Any:
        """Envelope of (InferenceItem, live Prediction) in, Envelope of a Comparison out."""
        return Envelope(await self.runtime.compare_with_live(*pair.content))

    @bentoml.api
    async def halt(self) -> None:
        """Stop the running comparisons."""
        self.runtime.halt()

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=60_000)
    async def predict(self, image: list[Path]) -> list[dict[str, Any]]:
        """Images batched by BentoML, for a runner that is served alone or scaled separately."""
        return await predict_alone(self.runtime, image)

    @bentoml.api
    async def warm(self, tag: str) -> Any:
        """Load a model. Envelope of its error or None: BentoML would make the error a bare 500."""
        try:
            await self.runtime.warm(tag)
        except VisionLoopError as error:
            return Envelope(error)
        return Envelope(None)

    @bentoml.api
    async def unload(self, tag: str) -> bool:
        """Evict a model; whether it was loaded."""
        return await self.runtime.unload(tag)

    @bentoml.api
    async def status(self) -> dict[str, Any]:
        """Device, loaded engines, slots."""
        return self.runtime.status()
