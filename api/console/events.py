"""`/events`: what changes, as one stream of server-sent events."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from api.console.event_hub import STREAMS, EventHub
from api.dependencies import GatewayDep
from api.groups import OPERATION
from api.middleware.auth import require_use
from api.schemas import errors

router = APIRouter(tags=[OPERATION], dependencies=[Depends(require_use)])

STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": (
            "Server-sent events. The data of each is one line of JSON:\n\n"
            "- `job`: a job, as in `GET /jobs`; sent when it is queued, and when its status or "
            "progress changes\n"
            "- `job_deleted`: `job_id`\n"
            "- `progress`: `job_id`, `current_epoch`, `total_epochs`, `progress` and the newest "
            "`metrics` of a training\n"
            "- `model`: `id`, `name`, and `what` happened: trained, imported, evaluated, promoted, "
            "refused, rolled_back, activated, deleted, drift, engine\n"
            "- `dataset`: `id`, and `what` happened: created, annotated, revised, deleted\n"
            "- `reset`: events may have been missed: read the lists again\n\n"
            "A comment is sent when nothing was for 15 seconds. A stream ends after 15 minutes; "
            "a client that then sends `Last-Event-ID`, as browsers do, misses nothing."
        ),
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class EventResponse(StreamingResponse):
    """A response that holds a place among the streams for as long as it is sent."""

    def __init__(self, hub: EventHub, last: str, limit: int) -> None:
        super().__init__(hub.follow(last), media_type="text/event-stream", headers=HEADERS)
        self._hub, self._limit = hub, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._hub.place(self._limit):
            await self._hub.listen()
            await super().__call__(scope, receive, send)


@router.get("/events", response_class=StreamingResponse, responses=errors(429, 503) | STREAM)
async def events(request: Request, gateway: GatewayDep) -> EventResponse:
    """What changes on this server, whichever process or command changes it, in one stream."""
    last = request.headers.get("last-event-id", "")
    limit = gateway.settings.per_gateway(STREAMS)
    return EventResponse(request.app.state.events, last, limit)
