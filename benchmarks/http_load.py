"""HTTP load generators, closed-loop and open-loop.

They need little CPU time, because they run on the same cores as the server that they load.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import aiohttp
import numpy as np

BOUNDARY = "visionloop-benchmark"

Ask = Callable[[], Coroutine[Any, Any, None]]


@dataclass
class LoadResult:
    """Latencies in milliseconds of the requests answered with 200; `errors` has the other ones."""

    seconds: float
    latencies: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Answers with 200 per second."""
        return len(self.latencies) / self.seconds

    def percentile(self, q: float) -> float:
        return float(np.percentile(self.latencies, q)) if self.latencies else float("nan")


def form(image: bytes, field_name: str = "image") -> bytes:
    """A multipart body with one JPEG; made once and reused, so that the client needs little CPU."""
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field_name}"; '
        f'filename="image.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    )
    return head.encode() + image + f"\r\n--{BOUNDARY}--\r\n".encode()


async def drive(url: str, bodies: Sequence[bytes], concurrency: int, seconds: float) -> LoadResult:
    """Keep `concurrency` requests in flight for `seconds`, then wait for the last answers."""
    result = LoadResult(seconds)
    started = time.perf_counter()

    async def client(ask: Ask) -> None:
        while time.perf_counter() - started < seconds:
            await ask()

    async with asking(url, bodies, result) as ask:
        await asyncio.gather(*(client(ask) for _ in range(concurrency)))
    result.seconds = time.perf_counter() - started
    return result


async def arrive(url: str, bodies: Sequence[bytes], rate: float, seconds: float) -> LoadResult:
    """Send requests at random times (a Poisson process), `rate` per second on average.

    A request is sent even if earlier ones are not answered yet. The times are the same in every
    call.
    """
    result = LoadResult(seconds)
    started = time.perf_counter()
    chance = np.random.default_rng(0)
    due = 0.0
    async with asking(url, bodies, result) as ask, asyncio.TaskGroup() as tasks:
        while (due := due + chance.exponential(1 / rate)) < seconds:
            await asyncio.sleep(started + due - time.perf_counter())
            tasks.create_task(ask())
    result.seconds = time.perf_counter() - started
    return result


@asynccontextmanager
async def asking(url: str, bodies: Sequence[bytes], result: LoadResult) -> AsyncIterator[Ask]:
    """Yields a function that sends the next body and records the outcome in `result`."""
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    turn = count()
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def ask() -> None:
            body = bodies[next(turn) % len(bodies)]
            sent = time.perf_counter()
            async with session.post(url, data=body, headers=headers) as response:
                text = await response.text()
            if response.status == 200:
                result.latencies.append((time.perf_counter() - sent) * 1000)
            else:
                result.errors.append(f"{response.status} {text[:200]}")

        yield ask
