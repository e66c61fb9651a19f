"""Small images beside very large images: `python -m benchmarks.hostile.heavy_images [--seconds S]`.

Sends small JPEGs at a steady mean rate to a server with the starter models: first alone, then
while 32 clients send PNGs of 49 million pixels and 160 KB each. Prints the latencies and errors of
the small and of the large images.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from pathlib import Path

import aiohttp

from benchmarks.cpu import cpu
from benchmarks.hostile.corpus import empty_png, encoded, photograph
from benchmarks.http_load import BOUNDARY, LoadResult, arrive, form
from benchmarks.server import PYTHON, free_port, serving
from shell import Parser

HEAVY_CLIENTS = 32


def shown(name: str, result: LoadResult) -> str:
    p50, p99 = result.percentile(50), result.percentile(99)
    return (
        f"{name}: {len(result.latencies)} answers, p50 {p50:.0f} ms, p99 {p99:.0f} ms, "
        f"{len(result.errors)} errors {dict(Counter(text[:3] for text in result.errors))}"
    )


async def insist(url: str, body: bytes, seconds: float) -> LoadResult:
    """Run clients that send the same body again and again for `seconds`.

    After an error a client waits for the time in `Retry-After`, else for a second. Requests that
    are not answered at the end are cancelled.
    """
    result, end = LoadResult(seconds), time.perf_counter() + seconds
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}

    async def client(session: aiohttp.ClientSession) -> None:
        while time.perf_counter() < end:
            sent = time.perf_counter()
            async with session.post(url, data=body, headers=headers) as response:
                text = await response.text()
            if response.status == 200:
                result.latencies.append((time.perf_counter() - sent) * 1000)
            else:
                result.errors.append(f"{response.status} {text[:200]}")
                await asyncio.sleep(float(response.headers.get("Retry-After", 1)))

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        clients = [asyncio.create_task(client(session)) for _ in range(HEAVY_CLIENTS)]
        await asyncio.wait(clients, timeout=seconds)
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
    return result


async def measure(url: str, rate: float, seconds: float) -> None:
    small = [form(encoded(photograph(640, 480, seed), "JPEG", "RGB")) for seed in range(8)]
    heavy = form(empty_png(7000, 7000))
    await arrive(f"{url}/infer", small, rate, 10)  # warm
    alone = await arrive(f"{url}/infer", small, rate, seconds)
    print(shown("small images alone", alone), flush=True)
    beside, large = await asyncio.gather(
        arrive(f"{url}/infer", small, rate, seconds),
        insist(f"{url}/infer", heavy, seconds),
    )
    print(shown(f"small images, while {HEAVY_CLIENTS} clients send large ones", beside), flush=True)
    print(shown("large images", large), flush=True)
    ratio = beside.percentile(99) / alone.percentile(99)
    print(f"p99 of the small images beside large images / alone: {ratio:.2f}")


def main() -> None:
    parser = Parser(prog=__name__, description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=60, help="duration of each measurement in seconds (60)"
    )
    parser.add_argument("--rate", type=float, default=3, help="small images per second (3)")
    options = parser.parse_args()
    print(f"CPU: {cpu()}")
    with tempfile.TemporaryDirectory() as folder:
        home, port = Path(folder), free_port()
        command = [PYTHON, "-m", "bentoml", "serve", "service:VisionLoop", "--port", str(port)]
        env = {"VISIONLOOP_HOME": str(home / "home"), "BENTOML_HOME": str(home / "bento")}
        with serving(command, port, home / "log", "/readyz", env) as server:
            asyncio.run(measure(server.url, options.rate, options.seconds))


if __name__ == "__main__":
    main()
