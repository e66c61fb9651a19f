"""A closed-loop HTTP load generator, cheap enough to share two cores with the server it drives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import aiohttp
import numpy as np

BOUNDARY = "visionloop-benchmark"


@dataclass
class LoadResult:
    """Latencies in milliseconds of the requests answered 200; the others are in `errors`."""

    seconds: float
    latencies: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Good answers per second."""
        return len(self.latencies) / self.seconds

    def percentile(self, q: float) -> float:
        return float(np.percentile(self.latencies, q)) if self.latencies else float("nan")


def form(image: bytes, field_name: str = "image") -> bytes:
    """A multipart body with one JPEG, made once so that the client's cost stays small."""
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field_name}"; '
        f'filename="image.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    )
    return head.encode() + image + f"\r\n--{BOUNDARY}--\r\n".encode()


async def drive(url: str, bodies: Sequence[bytes], concurrency: int, seconds: float) -> LoadResult:
    """Keep `concurrency` requests in flight for `seconds`, then let the last ones finish."""
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    result = LoadResult(seconds)
    turn = count()
    started = time.perf_counter()

    async def client(session: aiohttp.ClientSession) -> None:
        while time.perf_counter() - started < seconds:
            body = bodies[next(turn) % len(bodies)]
            sent = time.perf_counter()
            async with session.post(url, data=body, headers=headers) as response:
                text = await response.text()
            if response.status == 200:
                result.latencies.append((time.perf_counter() - sent) * 1000)
            else:
                result.errors.append(f"{response.status} {text[:200]}")

    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        await asyncio.gather(*(client(session) for _ in range(concurrency)))
    result.seconds = time.perf_counter() - started
    return result
