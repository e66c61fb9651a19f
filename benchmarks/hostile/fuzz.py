"""Starts a server and sends it damaged images: `make fuzz MINUTES=10`.

The images are in every accepted format, and have flipped bits, extreme numbers in their headers,
and missing or repeated pieces. They are sent to `/infer`, `/infer/base64`, `/api/auto_annotate`,
and in zips to `/api/datasets`. The exit code is 1 if a process of the server died or was replaced,
or if an answer had a status other than 200, 201, 4xx or 503; the files of such requests are kept.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import sys
import tempfile
import time
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import aiohttp
import psutil

from benchmarks.cpu import cpu
from benchmarks.hostile.corpus import VARIANTS, encoded, photograph
from benchmarks.hostile.mutation import mutated
from benchmarks.server import PYTHON, Server, free_port, serving
from shell import Parser

SIZES = ((320, 240), (64, 48), (1, 1), (640, 480))
GOOD = frozenset({200, 201, 503})
LOOK = 1.0  # seconds between two checks of the processes
TOLD = 20  # maximum number of failures that are printed
DATASETS = 60  # one request in this many uploads a dataset


@dataclass
class Report:
    """The answers and failures so far.

    Attributes:
        kept: The folder for the files of failed requests.
        statuses: (route, status) → number of answers.
        failures: Descriptions of everything that happened but must not happen.
        flying: The requests that are not answered yet: number → description and file.
        slowest: The longest time until an answer, in seconds.
    """

    kept: Path
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    flying: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    slowest: float = 0.0

    def fail(self, what: str, number: int, data: bytes) -> None:
        """Record a failure, and keep the file of the request."""
        self.failures.append(f"{what} (request {number})")
        self.kept.mkdir(parents=True, exist_ok=True)
        (self.kept / f"{number}.bin").write_bytes(data)
        if len(self.failures) <= TOLD:
            print(f"FAILED: {self.failures[-1]}", flush=True)


def corpus() -> list[tuple[str, bytes]]:
    """An image file of each variant and size, with a name that describes it."""
    found = []
    for kind, mode, options in VARIANTS:
        for width, height in SIZES:
            tiled = options.get("tile_size")
            if tiled and (width < tiled[0] or height < tiled[1]):
                continue
            image = photograph(width, height, width)
            name = f"{kind} {mode} {options} {width}×{height}"
            found.append((name, encoded(image, kind, mode, **options)))
    return found


def packed(data: bytes, other: bytes) -> bytes:
    """A dataset of two images as a zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.yaml", "train: images/train\nval: images/val\nnames: [a]\n")
        for split, image, suffix in (("train", data, "png"), ("val", other, "tif")):
            archive.writestr(f"images/{split}/a.{suffix}", image)
            archive.writestr(f"labels/{split}/a.txt", "0 0.5 0.5 0.2 0.2\n")
    return buffer.getvalue()


async def client(
    session: aiohttp.ClientSession, images: list[tuple[str, bytes]], seed: int, step: int,
    end: float, report: Report,
) -> None:  # fmt: skip
    """Send one request after another.

    Each request has a number (`seed`, `seed + step`, …), from which its content is generated.
    """
    number = seed
    while time.monotonic() < end:
        chance = Random(number)
        name, image = chance.choice(images)
        data = mutated(image, chance)
        if number % DATASETS == 0:
            route, data = "/api/datasets", packed(data, mutated(chance.choice(images)[1], chance))
        else:
            route = chance.choice(("/infer", "/infer", "/infer/base64", "/api/auto_annotate"))
        report.flying[number] = f"{route}: {name}", data
        began = time.monotonic()
        try:
            status, body = await send(session, route, data)
            report.slowest = max(report.slowest, time.monotonic() - began)
            report.statuses[route, status] += 1
            if status >= 500 and status not in GOOD:
                report.fail(f"{route}: {name}: {status} {body[:200]}", number, data)
            if status == 503:
                await asyncio.sleep(0.2)
        except (aiohttp.ClientError, TimeoutError) as error:
            report.fail(f"{route}: {name}: {type(error).__name__} {error}", number, data)
        finally:
            del report.flying[number]
        number += step


async def send(session: aiohttp.ClientSession, route: str, data: bytes) -> tuple[int, str]:
    if route == "/infer/base64":
        sent = session.post(route, json={"image_base64": base64.b64encode(data).decode()})
    else:
        form = aiohttp.FormData()
        form.add_field("file" if route == "/api/datasets" else "image", data, filename="a.zip")
        if route == "/api/auto_annotate":
            form.add_field("tool", "object_detection")
        sent = session.post(route, data=form)
    async with sent as response:
        body = await response.text()
    if response.status == 201:
        await session.delete(f"{route}/{(await response.json())['id']}")
    return response.status, body


def processes(server: Server) -> dict[tuple[int, float], str]:
    """The server's processes: (process id, start time) → command."""
    found = {}
    top = psutil.Process(server.process.pid)
    for process in [top, *top.children(recursive=True)]:
        try:
            found[process.pid, process.create_time()] = " ".join(process.cmdline())[-120:]
        except psutil.Error:
            continue
    return found


async def watch(server: Server, report: Report) -> None:
    """Check again and again whether every process that ran at the start still runs."""
    known = processes(server)
    while True:
        await asyncio.sleep(LOOK)
        now = await asyncio.to_thread(processes, server)
        for gone in known.keys() - now.keys():
            if "resource_tracker" in known[gone] or "models_store" in known[gone]:
                continue
            flying = dict(report.flying)
            report.failures.append(f"a process died: {known[gone]}")
            print(f"FAILED: {report.failures[-1]}; kept requests: {sorted(flying)}", flush=True)
            for number, (what, data) in flying.items():
                report.fail(f"not answered yet when a process died: {what}", number, data)
        known = {key: name for key, name in known.items() if key in now}


async def run(server: Server, options: argparse.Namespace, report: Report) -> None:
    images = corpus()
    print(f"{len(images)} images, {options.minutes:g} minutes, seed {options.seed}", flush=True)
    end = time.monotonic() + 60 * options.minutes
    watching = asyncio.create_task(watch(server, report))
    timeout = aiohttp.ClientTimeout(total=300)
    # A kept-alive connection may be closed by the server just when the client uses it again.
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(server.url, timeout=timeout, connector=connector) as session:
        await asyncio.gather(
            *(
                client(session, images, options.seed * 10**6 + one, options.clients, end, report)
                for one in range(options.clients)
            )
        )
        await asyncio.sleep(2 * LOOK)
        async with session.get("/readyz") as response:
            if response.status != 200:
                report.failures.append(f"/readyz answers {response.status} at the end")
    watching.cancel()


def main() -> int:
    parser = Parser(prog="python -m benchmarks.hostile.fuzz", description=__doc__)
    add = parser.add_argument
    add("--minutes", type=float, default=10, help="duration of the test in minutes (10)")
    add("--seed", type=int, default=0, help="seed of the random changes (0)")
    add("--clients", type=int, default=4, help="number of clients that send at once (4)")
    add(
        "--kept",
        type=Path,
        default=Path("fuzz-failures"),
        help="folder for the files of failed requests (fuzz-failures)",
    )
    options = parser.parse_args()
    print(f"CPU: {cpu()}")
    report = Report(options.kept.resolve())
    with tempfile.TemporaryDirectory() as folder:
        home, port = Path(folder), free_port()
        command = [PYTHON, "-m", "bentoml", "serve", "service:VisionLoop", "--port", str(port)]
        env = {"VISIONLOOP_HOME": str(home / "home"), "BENTOML_HOME": str(home / "bento")}
        with serving(command, port, home / "log", "/readyz", env) as server:
            asyncio.run(run(server, options, report))
            memory = ", ".join(f"{name[-24:]} {mib:.0f}" for name, mib in server.memory())
        log = (home / "log").read_text(errors="replace")
        for line in [line for line in log.splitlines() if "Traceback" in line][:3]:
            print(f"in the server's log: {line}")
    for (route, status), count in sorted(report.statuses.items()):
        print(f"{route:22}{status}  {count}")
    print(f"{sum(report.statuses.values())} requests, slowest {report.slowest:.1f} s")
    print(f"memory at the end, MiB: {memory}")
    print(f"{len(report.failures)} failures" + (f", kept in {report.kept}" * bool(report.failures)))
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
