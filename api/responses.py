"""JSON responses, the notes in them, and work that is cancelled when its client disconnects."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request, Response
from pydantic_core import to_json
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from api.middleware.request_state import exchange
from api.schemas import RequestFields

log = logging.getLogger("visionloop")

T = TypeVar("T")


class JSON(Response):
    """A JSON response; NaN and infinity become null."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return to_json(content, inf_nan_mode="null")


def noted(request: Request, options: RequestFields) -> dict[str, list[str]]:
    """The answer's `notes`: what of the request had no effect; nothing where all had. Logged."""
    if options.notes:
        log.info("%s: %s", request.scope["path"], " ".join(options.notes))
    notes = exchange(request.scope).notes + options.notes
    return {"notes": notes} if notes else {}


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client disconnects.

    Raises:
        ClientDisconnect: The client is gone.
    """
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
