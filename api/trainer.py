"""The Trainer as the gateway sees it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import bentoml

log = logging.getLogger("visionloop")


class TrainerLink:
    """Submits jobs to the Trainer's task endpoint.

    Losing a call loses nothing: the job is in the table, and the Trainer looks there itself.
    `bentoml.depends(...).submit` does not work in BentoML 1.4.39; its HTTP client does.
    """

    def __init__(self, service: Any) -> None:
        self._client = bentoml.AsyncHTTPClient(service.url, service=service, server_ready_timeout=0)
        self._calls: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        await self._client.__aenter__()

    async def close(self) -> None:
        for call in self._calls:
            call.cancel()
        await self._client.close()

    def submit(self, job_id: str) -> None:
        """Wake the Trainer for a job, without waiting for it."""
        call = asyncio.get_running_loop().create_task(self._submit(job_id))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _submit(self, job_id: str) -> None:
        try:
            await self._client.train.submit(job_id=job_id)
        except Exception as error:
            log.info("The Trainer will find job %s by itself: %s", job_id, error)
