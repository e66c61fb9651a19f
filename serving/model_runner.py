"""A service process with loaded models: the base class of the Detector and the Annotator."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bentoml

import tracing
from errors import VisionLoopError, our_fault
from inference.prediction import InferenceItem, ItemResult
from inference.runtime.model_runtime import ModelRuntime
from models_store.shared.model_trees import located
from serving import lifecycle
from serving.answers import infer_answer
from serving.envelope import Envelope
from serving.shutdown import Drain
from settings import get_settings

if TYPE_CHECKING:
    from models_store.registry import Registry


async def predict_alone(runtime: ModelRuntime, images: Sequence[Path]) -> list[dict[str, Any]]:
    """Predict with the active model, in a runner that is served without the gateway.

    Returns one response per image, which is an error for an image that failed, because an exception
    would fail the whole batch.
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
    # Imported late: only a runner that is served without the gateway needs SQLAlchemy.
    from database import Database
    from models_store.registry import Registry

    return Registry(Database(get_settings()))


class ModelRunner:
    """Loads models by tag (`name:version`) and predicts batches of images with them."""

    def __init__(self) -> None:
        settings = get_settings()
        self.runtime = ModelRuntime(partial(located, settings=settings), settings)
        self.drain = Drain()

    @bentoml.on_startup
    async def start(self) -> None:
        self.drain.arm()
        lifecycle.finish_startup(get_settings())

    @bentoml.api
    async def predict_batch(self, items: Any) -> Any:
        """Predict an Envelope of InferenceItems. Returns an Envelope of ItemResults in order."""
        with self.drain:
            return Envelope(await self._predict(items.content))

    async def _predict(self, items: list[InferenceItem]) -> list[ItemResult]:
        if not tracing.enabled():
            return await self.runtime.predict_batch(items)
        spans = [
            tracing.start("predict", item.traceparent, "SERVER", {"visionloop.model": item.model})
            for item in items
        ]
        traced = [
            replace(item, traceparent=tracing.traceparent(span))
            for item, span in zip(items, spans, strict=True)
        ]
        results = await self.runtime.predict_batch(traced)
        for result, span in zip(results, spans, strict=True):
            if result.error is not None:
                tracing.failed(span, result.error.code)
            span.end()
        return results

    @bentoml.api
    async def compare(self, pair: Any) -> Any:
        """Compare an Envelope of (InferenceItem, live Prediction).

        Returns an Envelope of a Comparison.
        """
        return Envelope(await self.runtime.compare_with_live(*pair.content))

    @bentoml.api
    async def halt(self) -> None:
        """Stop the running comparisons."""
        self.runtime.halt()

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=60_000)
    async def predict(self, image: list[Path]) -> list[dict[str, Any]]:
        """Predict images batched by BentoML, in a runner served alone or scaled separately."""
        return await predict_alone(self.runtime, image)

    @bentoml.api
    async def warm(self, tag: str) -> Any:
        """Load a model. Returns an Envelope of the error or None.

        BentoML would turn an exception into a 500 without its message.
        """
        try:
            await self.runtime.warm(tag)
        except VisionLoopError as error:
            return Envelope(error)
        return Envelope(None)

    @bentoml.api
    async def load(self, tag: str) -> Any:
        """Load a model for requests that wait for it. Returns an Envelope of the error or None."""
        with self.drain:
            try:
                await self.runtime.load(tag)
            except VisionLoopError as error:
                return Envelope(error)
            except Exception as error:
                return Envelope(our_fault(error, f"Loading {tag}"))
            return Envelope(None)

    @bentoml.api
    async def unload(self, tag: str) -> bool:
        """Evict a model. Returns whether it was loaded."""
        return await self.runtime.unload(tag)

    @bentoml.api
    async def status(self) -> dict[str, Any]:
        """The device, the loaded engines and the limits of list calls.

        The gateway asks for it again and again; so new engines are loaded also without requests.
        """
        self.runtime.replace_renewed()
        return self.runtime.status()
