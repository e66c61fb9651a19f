"""The logs of jobs: a list, or server-sent events that end with the job."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel
from starlette.responses import StreamingResponse

from jobs.logs import read_last, read_lines
from jobs.store import Job
from serving.gateway import Gateway


class JobLog(BaseModel):
    logs: list[str]


LISTED = 5000  # lines, the newest
HEARTBEAT = 15.0  # seconds; proxies close what is silent for longer
LOOK = 0.4  # seconds between two looks at the log

Shown = Callable[[Job], Any]

STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The lines, oldest first; with `follow=true` as server-sent events: each "
        "line is a `data:`, the last event is named `end` and carries the job's status.",
        "content": {"text/event-stream": {}},
    }
}


async def answer(
    request: Request, gateway: Gateway, job: Job, follow: bool, status: Shown
) -> Response | dict[str, Any]:
    """The log of `job`, whose status clients are told as `status` says."""
    if not follow:
        lines = await asyncio.to_thread(read_last, gateway.jobs.log(job.id), LISTED)
        return {"logs": lines}
    last = request.headers.get("last-event-id", "")
    offset = int(last) if len(last) < 16 and last.isascii() and last.isdigit() else 0
    if offset and job.is_final:
        rest = await asyncio.to_thread(read_lines, gateway.jobs.log(job.id), offset)
        if not rest:  # tells an EventSource that there is no need to come again
            return Response(status_code=204)
    return StreamingResponse(
        events(gateway, job.id, offset, status),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


async def events(gateway: Gateway, job_id: str, offset: int, status: Shown) -> AsyncIterator[str]:
    """Lines from a byte offset on, as they come; their ids are the offsets behind them."""
    path = gateway.jobs.log(job_id)
    spoken = time.monotonic()
    yield ": the log\n\n"
    while not gateway.shutdown.is_set():
        job = await asyncio.to_thread(gateway.jobs.get, job_id)  # before its last lines
        lines = await asyncio.to_thread(read_lines, path, offset)
        if lines:
            offset = lines[-1][0]
            spoken = time.monotonic()
            yield "".join(f"id: {behind}\ndata: {line}\n\n" for behind, line in lines)
            continue
        if job.is_final:
            yield f"event: end\ndata: {json.dumps({'status': status(job)})}\n\n"
            return
        if time.monotonic() - spoken > HEARTBEAT:
            spoken = time.monotonic()
            yield ": still there\n\n"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK):
                await gateway.shutdown.wait()
