"""Measures how much a training slows `/infer`: `python -m benchmarks.training_interference`.

One server with the starter detector gets drawn street scenes at `/infer`, one request at a time:
first while it is otherwise idle, then while a YOLOv8n trains on the same machine, then idle again.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.http_load import LoadResult, drive, form
from benchmarks.server import PYTHON, free_port, serving
from benchmarks.serving import pictures
from shell import Parser

WARM = 5.0  # seconds


def main() -> None:
    parser = Parser(description=(__doc__ or "").split("\n\n")[0])
    add = parser.add_argument
    add("--seconds", type=float, default=40, help="duration of each measurement in seconds (40)")
    add("--imgsz", type=int, default=320, help="image size of the training in pixels (320)")
    add("--images", type=Path, help="folder of JPEGs to send; default: drawn street scenes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="visionloop-interference-") as folder:
        measure(options, Path(folder))


def measure(options: argparse.Namespace, folder: Path) -> None:
    from synthetic.shapes import write_shapes

    data = write_shapes(folder / "data", "detect", 128, 16, options.imgsz)
    bodies = [form(picture) for picture in pictures(options.images)]
    env = {"VISIONLOOP_HOME": str(folder / "home"), "BENTOML_HOME": str(folder / "bento")}
    env |= {"VISIONLOOP_DATA_ROOTS": str(folder), "BENTOML_DO_NOT_TRACK": "true"}
    env |= {"VISIONLOOP_ALLOW_DOWNLOAD": "never"}
    port = free_port()
    command = [PYTHON, "-m", "bentoml", "serve", "service:VisionLoop", "--port", str(port)]
    with serving(command, port, folder / "log.txt", "/readyz", env) as server:
        load(server.url, bodies, WARM)
        rows = {"idle": load(server.url, bodies, options.seconds)}
        job_id = start(server.url, data, options.imgsz)
        rows["while training"] = load(server.url, bodies, options.seconds)
        job = httpx.get(f"{server.url}/jobs/{job_id}", timeout=30).json()
        httpx.post(f"{server.url}/jobs/{job_id}/cancel", timeout=30)
        rows["idle again"] = load(server.url, bodies, options.seconds)
    print(f"{os.cpu_count()} cores; the training reached {job['progress']:.1f} % ({job['status']})")
    print("\n| | requests/s | p50 ms | p99 ms | errors |\n|---|--:|--:|--:|--:|")
    for name, row in rows.items():
        cells = f"{row.rate:.1f} | {row.percentile(50):.0f} | {row.percentile(99):.0f}"
        print(f"| {name} | {cells} | {len(row.errors)} |")
    idle, busy = rows["idle"], rows["while training"]
    ratios = [busy.percentile(q) / idle.percentile(q) for q in (50, 99)]
    print(f"\nwhile training / idle: p50 {ratios[0]:.2f}, p99 {ratios[1]:.2f}")


def load(url: str, bodies: list[bytes], seconds: float) -> LoadResult:
    return asyncio.run(drive(f"{url}/infer", bodies, 1, seconds))


def start(url: str, data: Path, imgsz: int) -> str:
    """Start a long training; returns its job id as soon as it has made progress."""
    body: dict[str, Any] = {"data_path": str(data), "model_type": "n", "imgsz": imgsz}
    body |= {"epochs": 500, "batch": 8, "patience": 0}
    answer = httpx.post(f"{url}/api/training/regular", json=body, timeout=60)
    answer.raise_for_status()
    job_id = str(answer.json()["task_id"])
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        job = httpx.get(f"{url}/jobs/{job_id}", timeout=30).json()
        if job["progress"] > 0:
            return job_id
        if job["status"] == "failed":
            raise SystemExit(f"The training failed: {job['error']}")
        time.sleep(0.5)
    raise SystemExit("The training made no progress within 180 s.")


if __name__ == "__main__":
    main()
