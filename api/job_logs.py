"""Responses with a job's log: a list of lines, or server-sent events until the job ends."""

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

from jobs.job import Job
from jobs.logs.log_file import read_last, read_lines
from serving.gateway import Gateway

LISTED = 5000  # maximum number of lines in a response, the newest of the log
HEARTBEAT = 15.0  # seconds between heartbeats; proxies close connections that are silent for long
POLL = 0.4  # seconds between two reads of a log that is followed

Shown = Callable[[Job], Any]

STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": (
            "The lines, the oldest first. With `follow=true` they are server-sent events: each "
            "line is the `data:` of an event, and the last event is named `end` and has the "
            "job's status."
        ),
        "content": {"text/event-stream": {}},
    }
}


class JobLog(BaseModel):
    logs: list[str]


async def answer(
    request: Request,
    gateway: Gateway,
    job: Job,
    follow: bool,
    status: Shown,
    count: int = LISTED,
) -> Response | dict[str, Any]:
    """The response with a job's log.

    Args:
        request: The request.
        gateway: Contains the log.
        job: The job.
        follow: Whether to stream the log until the job ends.
        status: Returns the status that clients are shown.
        count: Maximum number of lines, if the log is not streamed.
    """
    if not follow:
        return {"logs": await asyncio.to_thread(_last, gateway, job.id, count)}
    last = request.headers.get("last-event-id", "")
    offset = int(last) if len(last) < 16 and last.isascii() and last.isdigit() else 0
    if offset and job.is_final:
        rest = await asyncio.to_thread(_lines, gateway, job.id, offset)
        if not rest:  # a 204 tells an EventSource not to reconnect
            return Response(status_code=204)
    return StreamingResponse(
        events(gateway, job.id, offset, status),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


async def events(
    gateway: Gateway,
    job_id: str,
    offset: int,
    status: Shown,
    heartbeat: float = HEARTBEAT,
    poll: float = POLL,
) -> AsyncIterator[str]:
    """Server-sent events: the log's lines as they are written, then one with the final status.

    The id of a line is the byte offset of its end, so that a client can resume there.

    Args:
        gateway: Contains the job table and the logs; the stream ends when the gateway stops.
        job_id: The job.
        offset: Number of bytes of the log to skip.
        status: Returns the status that clients are shown.
        heartbeat: Seconds of silence after which a comment is sent.
        poll: Seconds between two reads of the log.
    """
    spoken = time.monotonic()
    yield ": the log\n\n"
    while not gateway.shutdown.is_set():
        # The status is read before the lines: if it is final, they include the last ones.
        job = await asyncio.to_thread(gateway.jobs.get, job_id)
        lines = await asyncio.to_thread(_lines, gateway, job_id, offset)
        if lines:
            offset = lines[-1][0]
            spoken = time.monotonic()
            yield "".join(f"id: {behind}\ndata: {line}\n\n" for behind, line in lines)
            continue
        if job.is_final:
            yield f"event: end\ndata: {json.dumps({'status': status(job)})}\n\n"
            return
        if time.monotonic() - spoken > heartbeat:
            spoken = time.monotonic()
            yield ": heartbeat\n\n"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(poll):
                await gateway.shutdown.wait()


def _last(gateway: Gateway, job_id: str, count: int) -> list[str]:
    return read_last(gateway.jobs.log_to_read(job_id), count)


def _lines(gateway: Gateway, job_id: str, offset: int) -> list[tuple[int, str]]:
    return read_lines(gateway.jobs.log_to_read(job_id), offset)
