"""JSON responses, notes in responses, and cancellation of work when a client disconnects."""

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
    """The field `notes` of a response: fields of the request without effect. Also logs them.

    Empty if every field had an effect.
    """
    if options.notes:
        log.info("%s: %s", request.scope["path"], " ".join(options.notes))
    notes = exchange(request.scope).notes + options.notes
    return {"notes": notes} if notes else {}


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, and cancel it if the client disconnects. Returns its result.

    Raises:
        ClientDisconnect: The client has disconnected.
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
