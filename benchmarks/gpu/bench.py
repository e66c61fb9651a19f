"""Measures a GPU: the pipeline alone, this service, and FastAPI with `YOLO.predict` in fp16.

`python -m benchmarks.gpu` prints a Markdown table and takes some 15 minutes. All get the same
weights and images, one after the other. The clients run on the same machine, in processes of
their own. `--cpu` runs the same code in small, in three minutes, on a machine without a GPU:
the pipeline runs on the CPU then, and the service as it does there, with ONNX Runtime.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import subprocess
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cpu import cpu
from benchmarks.http_load import LoadResult, drive, form
from benchmarks.server import PYTHON, ROOT, free_port, serving
from benchmarks.serving import pictures, prepare
from cores import cpu_count
from inference.device import cuda_devices
from shell import Parser

QUEUE = 4096  # VISIONLOOP_QUEUE_LENGTH: no request is refused while the clients are counted
GOAL_RAW, GOAL_FASTAPI = 0.9, 5.0


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        device: Where the pipeline runs.
        concurrency: Requests in flight, one measurement each.
        workers: Gateway processes of this service, one server each.
        clients: Processes that send requests.
        seconds: Of each measurement.
        images: Number of different images.
    """

    device: str
    concurrency: tuple[int, ...]
    workers: tuple[int, ...]
    clients: int
    seconds: float
    images: int


@dataclass(frozen=True)
class Row:
    name: str
    concurrency: int
    rate: float
    p50: float
    p99: float


def gpu_scale(seconds: float) -> Scale:
    clients = max(1, min(8, cpu_count() // 4))
    return Scale("cuda", (1, 16, 64, 256), (1, 2, 4, 8), clients, seconds, 64)


def cpu_scale(seconds: float) -> Scale:
    return Scale("cpu", (1, 4), (1, 2), 1, min(seconds, 3.0), 8)


def main() -> None:
    parser = Parser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--weights", type=Path, help="a YOLO .pt; default: the starter detector")
    add("--images", type=Path, help="folder of JPEGs to send; default: drawn street scenes")
    add("--seconds", type=float, default=15, help="duration of each measurement in seconds (15)")
    add("--cpu", action="store_true", help="run the same code in small, without a GPU")
    args = parser.parse_args()
    if not args.cpu and cuda_devices() == 0:
        raise SystemExit(
            "No CUDA device was found. `python -m benchmarks.gpu --cpu` runs the same code in "
            "small on the CPU."
        )
    scale = cpu_scale(args.seconds) if args.cpu else gpu_scale(args.seconds)

    with tempfile.TemporaryDirectory(prefix="visionloop-gpu-") as folder:
        home = Path(folder)
        for name in ("home", "bento", "ultralytics", "images"):
            (home / name).mkdir()
        env = {
            **os.environ,
            "VISIONLOOP_HOME": str(home / "home"),
            "BENTOML_HOME": str(home / "bento"),
            "VISIONLOOP_DEVICE": scale.device,
            "VISIONLOOP_QUEUE_LENGTH": str(QUEUE),
            "YOLO_CONFIG_DIR": str(home / "ultralytics"),
            "YOLO_OFFLINE": "1",
            "YOLO_AUTOINSTALL": "false",
        }
        model_id, weights = prepare(args.weights, home, env)
        images = pictures(args.images)[: scale.images]
        for i, data in enumerate(images):
            (home / "images" / f"{i:03}.jpg").write_bytes(data)
        raw = measure_raw(model_id, home / "images", scale, env)
        told("pipeline without a server", raw["raw"])
        bodies = [form(data) for data in images]
        rows: list[Row] = []
        for workers in scale.workers:
            rows += measure_ours(workers, home / "log.txt", bodies, scale, env)
        rows += measure_fastapi(weights, home / "log.txt", bodies, scale, env)
    report(raw, rows)


def measure_raw(model_id: str, images: Path, scale: Scale, env: dict[str, str]) -> dict[str, Any]:
    """What `benchmarks.gpu.raw_pipeline` measures, in a process of its own."""
    command = [PYTHON, "-m", "benchmarks.gpu.raw_pipeline", model_id, str(images)]
    done = subprocess.run(
        [*command, str(scale.seconds), scale.device],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_ours(
    workers: int, log: Path, bodies: list[bytes], scale: Scale, env: dict[str, str]
) -> list[Row]:
    port = free_port()
    command = [PYTHON, "-m", "bentoml", "serve", "service:VisionLoop", "--port", str(port)]
    ours = env | {"VISIONLOOP_GATEWAY_WORKERS": str(workers)}
    name = f"VisionLoop, {workers} gateway{'s' * (workers > 1)}"
    return measure(name, command, port, "/readyz", log, bodies, scale, ours)


def measure_fastapi(
    weights: Path, log: Path, bodies: list[bytes], scale: Scale, env: dict[str, str]
) -> list[Row]:
    port = free_port()
    command = [PYTHON, "-m", "benchmarks.peers.fastapi_yolo", str(weights), str(port), "fp16"]
    return measure("FastAPI + YOLO.predict", command, port, "/health", log, bodies, scale, env)


def measure(
    name: str,
    command: list[str],
    port: int,
    ready: str,
    log: Path,
    bodies: list[bytes],
    scale: Scale,
    env: dict[str, str],
) -> list[Row]:
    rows = []
    with serving(command, port, log, ready, env) as server:
        for concurrency in scale.concurrency:
            send(server.url, bodies, concurrency, min(5.0, scale.seconds), scale.clients)  # warm-up
            result = send(server.url, bodies, concurrency, scale.seconds, scale.clients)
            if result.errors:
                raise SystemExit(f"{name}: {len(result.errors)} errors: {result.errors[0]}")
            p50, p99 = result.percentile(50), result.percentile(99)
            rows.append(Row(name, concurrency, result.rate, p50, p99))
            told(f"{name}, concurrency {concurrency}", result.rate)
    return rows


def send(
    url: str, bodies: list[bytes], concurrency: int, seconds: float, clients: int
) -> LoadResult:
    """What several client processes together saw; `concurrency` is that of all of them."""
    shares = [len(part) for part in np.array_split(range(concurrency), min(clients, concurrency))]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(shares), spawn) as pool:
        results = list(pool.map(partial(client, f"{url}/infer", bodies, seconds), shares))
    both = LoadResult(max(result.seconds for result in results))
    for result in results:
        both.latencies += result.latencies
        both.errors += result.errors
    return both


def client(url: str, bodies: list[bytes], seconds: float, concurrency: int) -> LoadResult:
    """One process's load."""
    return asyncio.run(drive(url, bodies, concurrency, seconds))


def told(name: str, rate: float) -> None:
    print(f"{name}: {rate:.1f} images/s", flush=True)


def report(raw: dict[str, Any], rows: list[Row]) -> None:
    """Print the devices, the Markdown table, the ratios, and the accuracy of half precision."""
    half, on_gpu = raw["half"], raw["device"] is not None
    print(f"\n{raw['device'] if on_gpu else 'No GPU: the pipeline ran on the CPU'}; {cpu()}")
    where = "device" if raw["decodes"] else "host"
    print(f"engine {raw['engine']}, batches of {raw['batch']}, JPEGs decoded on the {where}\n")
    print("| | concurrency | images/s | p50 ms | p99 ms |\n|---|--:|--:|--:|--:|")
    print(f"| network and selection, prepared images | | {raw['network']:.1f} | | |")
    print(f"| pipeline without a server, from JPEG to boxes | | {raw['raw']:.1f} | | |")
    for row in rows:
        print(
            f"| {row.name} | {row.concurrency} | {row.rate:.1f} | {row.p50:.1f} | {row.p99:.1f} |"
        )
    best = max((r for r in rows if r.name.startswith("VisionLoop")), key=lambda r: r.rate)
    other = max((r for r in rows if r.name.startswith("FastAPI")), key=lambda r: r.rate)
    served, ratio = best.rate / raw["raw"], best.rate / other.rate
    print(f"\nbest of ours: {best.name}, concurrency {best.concurrency}")
    if on_gpu:
        print(f"VisionLoop / pipeline without a server: {served:.2f} (aim {GOAL_RAW:g})")
        print(f"VisionLoop / FastAPI, each at its best: {ratio:.2f} (aim {GOAL_FASTAPI:g})")
    else:
        print(f"VisionLoop / FastAPI, each at its best: {ratio:.2f}; the service ran ONNX Runtime,")
        print("another engine than the pipeline's: these figures say nothing about a GPU")
    print(
        f"half against single precision, {half['detections']} detections: "
        f"{100 * half['matched']:.1f} % found by both, boxes within {half['pixels_p99']:.2f} px "
        f"(99 %; at most {half['pixels_max']:.2f}), scores within {half['score_max']:.4f}"
    )
