"""Measures what the gateway is the limit of: requests per second, and CPU time by layer.

The engine computes nothing (`benchmarks.gateway.service`), so that serving is all that costs time.
Servers with different numbers of gateway processes run side by side and are loaded in turn; the
table shows the median over the rounds. `python -m benchmarks.gateway [--workers 1 2]`
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import httpx
import numpy as np
import psutil

from benchmarks.cpu import cpu
from benchmarks.http_load import drive, form
from benchmarks.server import PYTHON, Server, free_port, serving
from benchmarks.serving import pictures
from shell import Parser

CLASSIFIER = "traffic_signs_mobilenet_v2"
LAYERS = {"VisionLoop": "gateway", "Detector": "runner"}
WARM_UP = 2.0  # seconds


@dataclass(frozen=True)
class Sample:
    """One round of one server.

    Attributes:
        rate: Answers per second.
        p50, p99: Latencies in milliseconds.
        errors: Number of requests that were not answered with 200.
        cpu: CPU milliseconds of an answer, by layer.
    """

    rate: float
    p50: float
    p99: float
    errors: int
    cpu: dict[str, float]


def send(url: str, bodies: list[bytes], concurrency: int, seconds: float) -> tuple[int, ...]:
    """Load a server from this process.

    Returns the numbers of answers and of errors, p50, p99 and the CPU time in microseconds.
    """
    before = time.process_time()
    result = asyncio.run(drive(url, bodies, concurrency, seconds))
    spent = time.process_time() - before
    times = (result.percentile(50), result.percentile(99), spent * 1000)
    micros = tuple(int(1000 * value) if value == value else 0 for value in times)
    return len(result.latencies), len(result.errors), *micros


def spent(server: Server) -> dict[str, float]:
    """The CPU seconds of the server's processes so far, by layer."""
    found: dict[str, float] = defaultdict(float)
    for child in psutil.Process(server.process.pid).children():
        with contextlib.suppress(psutil.Error):
            line = child.cmdline()
            name = line[line.index("--service-name") + 1] if "--service-name" in line else ""
            times = child.cpu_times()
            found[LAYERS.get(name, "others")] += times.user + times.system
    return found


def measure(
    pool: ProcessPoolExecutor,
    generators: int,
    server: Server,
    bodies: list[bytes],
    concurrency: int,
    seconds: float,
) -> Sample:
    """Load one server from all generators."""
    before, began = spent(server), time.perf_counter()
    each = -(-concurrency // generators)
    futures = [
        pool.submit(send, f"{server.url}/infer", bodies, each, seconds) for _ in range(generators)
    ]
    results = [future.result() for future in futures]
    elapsed, after = time.perf_counter() - began, spent(server)
    answers = sum(result[0] for result in results)
    used = {layer: 1000 * (after[layer] - before[layer]) / answers for layer in after}
    used["load generator"] = sum(result[4] for result in results) / 1000 / answers
    return Sample(
        answers / elapsed,
        statistics.median(result[2] for result in results) / 1000,
        max(result[3] for result in results) / 1000,
        sum(result[1] for result in results),
        used,
    )


def small_picture() -> bytes:
    """A JPEG of 64×64 pixels, so that decoding costs next to nothing."""
    drawn = np.full((64, 64, 3), 127, np.uint8)
    return cv2.imencode(".jpg", drawn)[1].tobytes()


def table(samples: dict[tuple[str, int], list[Sample]]) -> str:
    """The medians as a Markdown table."""
    layers = ("gateway", "runner", "others", "load generator")
    heads = ["picture", "gateways", "requests/s", "p50 ms", "p99 ms"]
    heads += [f"{layer}, CPU ms" for layer in layers]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "--:|" * (len(heads) - 1)]
    for (picture, workers), found in samples.items():

        def median(values: list[float]) -> float:
            return statistics.median(values)

        cells = [picture, str(workers), f"{median([s.rate for s in found]):.0f}"]
        cells += [f"{median([s.p50 for s in found]):.1f}", f"{median([s.p99 for s in found]):.1f}"]
        cells += [f"{median([s.cpu.get(layer, 0.0) for s in found]):.2f}" for layer in layers]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = Parser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--workers",
        type=int,
        nargs="+",
        default=[1, 2],
        help="numbers of gateway processes to compare (1 2)",
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each server (3)")
    parser.add_argument("--seconds", type=float, default=8.0, help="seconds of a round (8)")
    parser.add_argument("--concurrency", type=int, default=32, help="requests in flight (32)")
    parser.add_argument(
        "--generators",
        type=int,
        default=0,
        help="processes that send requests; 0: one for each four cores, at least one",
    )
    asked = parser.parse_args()
    generators = asked.generators or max(1, (os.cpu_count() or 1) // 4)
    kinds = {"64×64": [form(small_picture())], "640×480": [form(p) for p in pictures(None)]}
    samples: dict[tuple[str, int], list[Sample]] = defaultdict(list)
    print(
        f"{cpu()}; load average {os.getloadavg()[0]:.1f}; {generators} load generators", flush=True
    )
    with (
        tempfile.TemporaryDirectory(prefix="visionloop-gateway-") as folder,
        ProcessPoolExecutor(generators, get_context("spawn")) as pool,
        contextlib.ExitStack() as stack,
    ):
        servers = {}
        for workers in asked.workers:
            home, port = Path(folder) / str(workers), free_port()
            home.mkdir()
            env = {
                "VISIONLOOP_HOME": f"{home}/home",
                "BENTOML_HOME": f"{home}/bento",
                "BENTOML_DO_NOT_TRACK": "true",
                "VISIONLOOP_DEVICE": "cpu",
                "VISIONLOOP_LOG_LEVEL": "WARNING",
                "VISIONLOOP_GATEWAY_WORKERS": str(workers),
            }
            target = "benchmarks.gateway.service:VisionLoop"
            command = [PYTHON, "-m", "bentoml", "serve", target, "--port", str(port)]
            server = stack.enter_context(serving(command, port, home / "log", "/readyz", env))
            chosen = {"model_id": CLASSIFIER}
            httpx.post(f"{server.url}/models/active", json=chosen, timeout=60).raise_for_status()
            servers[workers] = server
        for kind, bodies in kinds.items():
            for server in servers.values():
                measure(pool, generators, server, bodies, asked.concurrency, WARM_UP)
            for _ in range(asked.rounds):
                for workers, server in servers.items():
                    found = measure(
                        pool, generators, server, bodies, asked.concurrency, asked.seconds
                    )
                    samples[kind, workers].append(found)
    print(table(samples))
    if wrong := sum(sample.errors for found in samples.values() for sample in found):
        raise SystemExit(f"{wrong} requests were not answered with 200.")
