"""Measures how much a shadow model slows the live answers: `python -m benchmarks.shadow`.

One server runs the starter detector, which gets drawn street scenes. A copy of the detector is the
candidate of the shadow, and gets every image as well. Rounds with and without the shadow
alternate, so that other work on the machine affects both. There are three kinds of load: requests
at random times with pauses between them, one client that sends the next request at once, and so
many clients that the Detector is always busy.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx

from benchmarks.http_load import LoadResult, arrive, drive, form
from benchmarks.server import PYTHON, ROOT, free_port, serving
from benchmarks.serving import STARTER, pictures
from shell import Parser

LOADS: dict[str, Callable[[str, list[bytes], float], Coroutine[Any, Any, LoadResult]]] = {
    "3/s at random times": lambda url, bodies, seconds: arrive(url, bodies, 3, seconds),
    "1 at a time": lambda url, bodies, seconds: drive(url, bodies, 1, seconds),
    "16 at a time": lambda url, bodies, seconds: drive(url, bodies, 16, seconds),
}
WARM = 4.0  # seconds
CODE = """
from database import Database
from models_store.registry import Registry
from settings import Settings
registry = Registry(Database(Settings()))
print(registry.publish(registry.get("{live}").path, "candidate", {{"kind": "import"}}).id)
"""


Rows = dict[tuple[str, bool], tuple[list[LoadResult], list[dict[str, Any]]]]
"""(load, whether there was a shadow) → the results of the rounds, and the shadow's reports."""


def main() -> None:
    parser = Parser(description=(__doc__ or "").split("\n\n")[0])
    add = parser.add_argument
    add("--seconds", type=float, default=20, help="duration of each round in seconds (20)")
    add("--rounds", type=int, default=3, help="rounds with a shadow, and as many without (3)")
    add("--images", type=Path, help="folder of JPEGs to send; default: drawn street scenes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="visionloop-shadow-") as folder:
        measure(options, Path(folder))


def measure(options: argparse.Namespace, folder: Path) -> None:
    bodies = [form(picture) for picture in pictures(options.images)]
    env = {"VISIONLOOP_HOME": str(folder / "home"), "BENTOML_HOME": str(folder / "bento")}
    env |= {"BENTOML_DO_NOT_TRACK": "true"}
    whole = {**os.environ, **env}
    for words in (["-m", "models_store", "seed"], ["-c", CODE.format(live=STARTER)]):
        subprocess.run([PYTHON, *words], cwd=ROOT, env=whole, check=True, capture_output=True)
    port = free_port()
    command = [PYTHON, "-m", "bentoml", "serve", "service:VisionLoop", "--port", str(port)]
    with serving(command, port, folder / "log.txt", "/readyz", env) as server:
        rows: Rows = {}
        for kind, send in LOADS.items():
            asyncio.run(send(f"{server.url}/infer", bodies, WARM))
            for turn in range(options.rounds):
                for shadowed in (turn % 2 == 0, turn % 2 == 1):  # the order changes every round
                    shadow = switch(server.url, shadowed)
                    found = asyncio.run(send(f"{server.url}/infer", bodies, options.seconds))
                    known = rows.setdefault((kind, shadowed), ([], []))
                    known[0].append(found)
                    known[1].append(ended(server.url) if shadow else {})
    report(rows)


def switch(url: str, shadowed: bool) -> bool:
    """Start a shadow if there should be one, and wait a second. Returns `shadowed`."""
    if shadowed:
        choice = {"model_id": "candidate", "fraction": 1.0}
        httpx.post(f"{url}/models/shadow", json=choice, timeout=60).raise_for_status()
    time.sleep(1)
    return shadowed


def ended(url: str) -> dict[str, Any]:
    answer = httpx.delete(f"{url}/models/shadow", timeout=60)
    answer.raise_for_status()
    return dict(answer.json()["shadow"])


def merged(results: list[LoadResult]) -> LoadResult:
    return LoadResult(
        sum(result.seconds for result in results),
        [latency for result in results for latency in result.latencies],
        [error for result in results for error in result.errors],
    )


def report(rows: Rows) -> None:
    """Print a Markdown table over all rounds, and the ratios with / without a shadow."""
    print(f"{os.cpu_count()} cores, load average over 5 minutes {os.getloadavg()[1]:.1f}")
    print("\n| load | shadow | requests/s | p50 ms | p99 ms | errors | shadow images | dropped |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    totals = {key: merged(results) for key, (results, _) in rows.items()}
    for kind, shadowed in ((kind, shadowed) for kind in LOADS for shadowed in (False, True)):
        row, shadows = totals[kind, shadowed], rows[kind, shadowed][1]
        counts = [sum(shadow.get(name, 0) for shadow in shadows) for name in ("run", "dropped")]
        shown = " | ".join(str(count) if shadowed else "" for count in counts)
        print(
            f"| {kind} | {'all requests' if shadowed else 'none'} | {row.rate:.1f} | "
            f"{row.percentile(50):.0f} | {row.percentile(99):.0f} | {len(row.errors)} | {shown} |"
        )
    for kind in LOADS:
        off, on = totals[kind, False], totals[kind, True]
        p50, p99 = (on.percentile(q) / off.percentile(q) for q in (50, 99))
        rate = on.rate / off.rate
        print(
            f"\nwith / without shadow, {kind}: p50 {p50:.2f}, p99 {p99:.2f}, requests/s {rate:.2f}"
        )


if __name__ == "__main__":
    main()
