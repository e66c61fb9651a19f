"""What the Detector and the Annotator are: holders of models."""

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
    from inference.runtime import ModelRuntime
    from models_store.registry import Registry


async def predict_alone(runtime: ModelRuntime, images: Sequence[Path]) -> list[dict[str, Any]]:
    """Answers of a runner that is served without the gateway: by the active model.

    An item's error stands in its place, because an exception would fail the whole batch.
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
    # SQLAlchemy; only a runner served alone
    from database import Database
    from models_store.registry import Registry

    return Registry(Database(get_settings()))


class ModelRunner:
    """Holds models by tag, and predicts lists of pictures with them."""

    def __init__(self) -> None:
        self.runtime = ModelRuntime(locate, get_settings())
        self.drain = Drain()

    @bentoml.on_startup
    async def settle(self) -> None:
        self.drain.arm()
        lifecycle.settle(get_settings())

    @bentoml.api
    async def predict_batch(self, items: Any) -> Any:
        """A Parcel of InferenceItems in, a Parcel of as many ItemResults out."""
        with self.drain:
            return Envelope(await self.runtime.predict_batch(items.content))

    @bentoml.api
    async def compare(self, asked: Any) -> Any:
        """A Parcel of an InferenceItem and a live Prediction in, a Parcel of a Comparison out."""
        return Envelope(await self.runtime.compare(*asked.content))

    @bentoml.api
    async def halt(self) -> None:
        """Stop the comparisons under way."""
        self.runtime.halt()

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=60_000)
    async def predict(self, image: list[Path]) -> list[dict[str, Any]]:
        """Pictures gathered by BentoML, for a runner that is served alone or scaled apart."""
        return await predict_alone(self.runtime, image)

    @bentoml.api
    async def warm(self, tag: str) -> Any:
        """A Parcel of the error, if there is one: BentoML would make it a bare 500."""
        try:
            await self.runtime.warm(tag)
        except VisionLoopError as error:
            return Envelope(error)
        return Envelope(None)

    @bentoml.api
    async def unload(self, tag: str) -> bool:
        return await self.runtime.unload(tag)

    @bentoml.api
    async def status(self) -> dict[str, Any]:
        return self.runtime.status()
