"""Measures the resident memory of every service process while many requests are answered.

`python -m benchmarks.memory [--requests 20000] [--predict 10]`: every tenth request is a
prediction, the others are requests to /livez. If a process leaks memory with every request, its
numbers rise.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import aiohttp
import psutil

from benchmarks.http_load import BOUNDARY, form
from benchmarks.server import PYTHON, free_port, serving
from benchmarks.serving import pictures
from shell import Parser

PARTS = 8  # measurements, after equal numbers of requests
CONCURRENCY = 16


def resident(pid: int) -> str:
    """The resident memory in MiB of each service process, as text: `<service> <MiB> …`."""
    found = {}
    for child in psutil.Process(pid).children():
        line = child.cmdline()
        if "--service-name" in line:
            name = line[line.index("--service-name") + 1]
            found[name] = child.memory_info().rss / 2**20
    return "  ".join(f"{name} {mib:.1f}" for name, mib in sorted(found.items()))


async def send(url: str, body: bytes, count: int, predict: int) -> int:
    """Send `count` requests. Returns how many were not answered with 200."""
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    bad = 0
    turns = iter(range(count))

    async def client(session: aiohttp.ClientSession) -> None:
        nonlocal bad
        for turn in turns:
            if predict and turn % predict == 0:
                call = session.post(f"{url}/infer", data=body, headers=headers)
            else:
                call = session.get(f"{url}/livez")
            async with call as response:
                await response.read()
                bad += response.status != 200

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(client(session) for _ in range(CONCURRENCY)))
    return bad


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--requests", type=int, default=20_000, help="number of requests in total (20000)"
    )
    parser.add_argument(
        "--predict",
        type=int,
        default=10,
        help="N: every N-th request is a prediction (10); 0: only requests to /livez",
    )
    arguments = parser.parse_args()
    port = free_port()
    command = [PYTHON, "-m", "bentoml", "serve", "service:VisionLoop", "--port", str(port)]
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        env = {"VISIONLOOP_HOME": f"{home}/home", "BENTOML_HOME": f"{home}/bento"}
        env |= {"VISIONLOOP_DEVICE": "cpu", "BENTOML_DO_NOT_TRACK": "true"}
        with serving(command, port, home / "log", "/readyz", env) as server:
            body = form(pictures(None)[0])
            asyncio.run(send(server.url, body, 400, 2))  # fills caches and pools
            sent = bad = 0
            print("requests, resident memory of each process in MiB")
            print(f"{sent:6}", resident(server.process.pid), flush=True)
            part = arguments.requests // PARTS
            for _ in range(PARTS):
                bad += asyncio.run(send(server.url, body, part, arguments.predict))
                sent += part
                print(f"{sent:6}", resident(server.process.pid), flush=True)
            print(f"{bad} of {sent} requests were not answered with 200")


if __name__ == "__main__":
    main()
