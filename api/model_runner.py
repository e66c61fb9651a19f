"""What the Detector and the Annotator are: holders of models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bentoml
from starlette.types import ASGIApp, Receive, Scope, Send

from api import deployment, native
from api.app import layered
from api.parcel import Parcel
from errors import VisionLoopError
from inference.runtime import ModelRuntime
from models_store.store import locate
from settings import Settings, get_settings


class ModelRunner:
    """Holds models by tag, and predicts lists of pictures with them."""

    def __init__(self) -> None:
        self.runtime = ModelRuntime(locate, get_settings())
        self.drain = deployment.Drain()

    @bentoml.on_startup
    async def settle(self) -> None:
        self.drain.arm()
        deployment.settle(get_settings())

    @bentoml.api
    async def predict_batch(self, items: Any) -> Any:
        """A Parcel of InferenceItems in, a Parcel of as many ItemResults out."""
        with self.drain:
            return Parcel(await self.runtime.predict_batch(items.content))

    @bentoml.api
    async def compare(self, asked: Any) -> Any:
        """A Parcel of an InferenceItem and a live Prediction in, a Parcel of a Comparison out."""
        return Parcel(await self.runtime.compare(*asked.content))

    @bentoml.api
    async def halt(self) -> None:
        """Stop the comparisons under way."""
        self.runtime.halt()

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=60_000)
    async def predict(self, image: list[Path]) -> list[dict[str, Any]]:
        """Pictures gathered by BentoML, for a runner that is served alone or scaled apart."""
        return await native.predict_alone(self.runtime, image)

    @bentoml.api
    async def warm(self, tag: str) -> Any:
        """A Parcel of the error, if there is one: BentoML would make it a bare 500."""
        try:
            await self.runtime.warm(tag)
        except VisionLoopError as error:
            return Parcel(error)
        return Parcel(None)

    @bentoml.api
    async def unload(self, tag: str) -> bool:
        return await self.runtime.unload(tag)

    @bentoml.api
    async def status(self) -> dict[str, Any]:
        return self.runtime.status()


def guarded(app: ASGIApp, settings: Settings) -> ASGIApp:
    """A runner behind our layers for whoever comes over the network.

    The gateway comes through the socket's file, so without an address, and needs no token.
    """
    outside = layered(app, settings)

    async def choose(scope: Scope, receive: Receive, send: Send) -> None:
        inside = scope["type"] == "lifespan" or scope.get("client") is None
        await (app if inside else outside)(scope, receive, send)

    return choose
