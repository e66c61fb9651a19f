"""The gateway's client of the Trainer service."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import bentoml

log = logging.getLogger("visionloop")


class TrainerLink:
    """Submits jobs to the Trainer's task endpoint.

    A lost call does no harm: the job is in the table, which the Trainer polls. This class uses
    BentoML's HTTP client, because `bentoml.depends(...).submit` fails in BentoML 1.4.39.
    """

    def __init__(self, service: Any) -> None:
        self._service = service
        self._client: bentoml.AsyncHTTPClient | None = None
        self._opening = asyncio.Lock()
        self._calls: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        for call in self._calls:
            call.cancel()
        if self._client is not None:
            await self._client.close()

    def submit(self, job_id: str, kind: str = "training") -> None:
        """Notify the Trainer of a new job, without waiting for a response."""
        call = asyncio.get_running_loop().create_task(self._submit(job_id, kind))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _submit(self, job_id: str, kind: str) -> None:
        try:
            client = await self._open()
            task = client.evaluate if kind == "evaluation" else client.train
            await task.submit(job_id=job_id)
        except Exception as error:
            log.info(
                "Job %s: the Trainer was not reached and will find it in the table: %s",
                job_id,
                error,
            )

    async def _open(self) -> bentoml.AsyncHTTPClient:
        """The client; created at the first call, because it reads its schema from the Trainer."""
        async with self._opening:
            if self._client is None:
                client = bentoml.AsyncHTTPClient(self._service.url, server_ready_timeout=0)
                self._client = await client.__aenter__()
            return self._client
