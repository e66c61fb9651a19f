"""Compares throughput and latency of this service with other servers, and with its engine alone.

Measures images per second, p50 and p99. All servers get the same weights, images and load
generator, one server after the other on the same machine. The measurement is repeated in
`--rounds` rounds; the table shows the median of each server over the rounds.
`python -m benchmarks.serving [--weights FILE.pt] [--images FOLDER]`
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from benchmarks.http_load import drive, form
from benchmarks.server import PYTHON, ROOT, free_port, serving
from shell import Parser

STARTER = "traffic_signs_yolov8n"
CONCURRENCY = (1, 16)
# Has our engine, so it is not one of the other servers that VisionLoop is compared with.
ALONE = "our Detector served alone, BentoML batchable=True"


@dataclass(frozen=True)
class Way:
    """One server of the comparison.

    Attributes:
        name: Its name in the table.
        command: The command line that starts it.
        ready: The path that answers 200 when the server is ready.
        path: The path to send images to.
        field: The form field of the image.
    """

    name: str
    command: list[str]
    ready: str
    path: str
    field: str = "image"


def ways(weights: Path, port: int) -> list[Way]:
    bento = [PYTHON, "-m", "bentoml", "serve"]
    peer = [str(weights), str(port)]
    return [
        Way("VisionLoop", [*bento, "service:VisionLoop", "--port", str(port)], "/readyz", "/infer"),
        Way(
            ALONE,
            [*bento, "service:Detector", "--port", str(port)],
            "/readyz",
            "/predict",
        ),
        Way(
            "BentoML batchable=True, YOLO.predict",
            [*bento, "benchmarks.peers.bentoml_yolo:Batchable", "--port", str(port)],
            "/readyz",
            "/infer",
        ),
        Way(
            "FastAPI + YOLO.predict",
            [PYTHON, "-m", "benchmarks.peers.fastapi_yolo", *peer],
            "/health",
            "/infer",
        ),
        Way(
            "LitServe, batches of 8, YOLO.predict",
            [PYTHON, "-m", "benchmarks.peers.litserve_yolo", *peer],
            "/health",
            "/infer",
        ),
    ]


def pictures(folder: Path | None) -> list[bytes]:
    """JPEGs to send: the first 64 of `folder`, or else 32 drawn street scenes of 640×480."""
    if folder is not None:
        found = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg"))
        if not found:
            raise SystemExit(f"No .jpg in {folder}.")
        return [path.read_bytes() for path in found[:64]]
    from synthetic.scenes import draw_scene

    rng = np.random.default_rng(0)
    scenes = (draw_scene(rng, 640, 480)[0] for _ in range(32))
    return [cv2.imencode(".jpg", scene[..., ::-1])[1].tobytes() for scene in scenes]


def prepare(weights: Path | None, home: Path, env: dict[str, str]) -> tuple[str, Path]:
    """Import the model into the temporary registry.

    Returns the model's id, and the path of an Ultralytics .pt for the other servers.
    """

    def run(*words: str) -> str:
        return subprocess.run(
            [PYTHON, "-m", *words], cwd=ROOT, env=env, check=True, capture_output=True, text=True
        ).stdout

    run("models_store", "seed")
    name = STARTER
    if weights is not None:
        name = "benchmark"
        run("models_store", "import", str(weights), "--name", name)
        run("models_store", "activate", name)
    model_id: str = json.loads(run("models_store", "show", name, "--json"))["id"]
    checkpoint = home / "model.pt"
    run("benchmarks.peers.as_checkpoint", model_id, str(checkpoint))
    return model_id, checkpoint


def raw_rate(model_id: str, images: Path, seconds: float, env: dict[str, str]) -> float:
    """Images per second of the engine without a server: the upper limit of the throughput."""
    out = subprocess.run(
        [PYTHON, "-m", "benchmarks.peers.raw_engine", model_id, str(images), str(seconds)],
        cwd=ROOT,
        env=env,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return float(out.split()[-1])


def measure(
    way: Way, port: int, log: Path, bodies: list[bytes], seconds: float, env: dict[str, str]
) -> Iterator[tuple[int, tuple[float, float, float]]]:
    with serving(way.command, port, log, way.ready, env) as server:
        url = server.url + way.path
        for concurrency in CONCURRENCY:
            asyncio.run(drive(url, bodies, concurrency, min(5.0, seconds)))  # warm-up
            result = asyncio.run(drive(url, bodies, concurrency, seconds))
            if result.errors:
                raise SystemExit(f"{way.name}: {len(result.errors)} errors: {result.errors[0]}")
            yield concurrency, (result.rate, result.percentile(50), result.percentile(99))


def main() -> None:
    parser = Parser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--weights", type=Path, help="a YOLO .pt; default: the starter detector")
    add("--images", type=Path, help="folder of JPEGs to send; default: drawn street scenes")
    add("--seconds", type=float, default=20, help="duration of each measurement in seconds (20)")
    add("--rounds", type=int, default=3, help="measurements of each server (3)")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="visionloop-serving-") as folder:
        home = Path(folder)
        for name in ("home", "bento", "ultralytics", "images"):
            (home / name).mkdir()
        env = {
            **os.environ,
            "VISIONLOOP_HOME": str(home / "home"),
            "BENTOML_HOME": str(home / "bento"),
            "YOLO_CONFIG_DIR": str(home / "ultralytics"),
            "YOLO_OFFLINE": "1",
            "YOLO_AUTOINSTALL": "false",
        }
        model_id, weights = prepare(args.weights, home, env)
        env["WEIGHTS"] = str(weights)
        images = pictures(args.images)
        for i, data in enumerate(images):
            (home / "images" / f"{i:03}.jpg").write_bytes(data)
        bodies = [form(data) for data in images]

        raw: list[float] = []
        rows: dict[tuple[str, int], list[tuple[float, float, float]]] = defaultdict(list)
        for turn in range(args.rounds):
            raw.append(raw_rate(model_id, home / "images", args.seconds, env))
            port = free_port()
            for way in ways(weights, port):
                for concurrency, row in measure(
                    way, port, home / "log.txt", bodies, args.seconds, env
                ):
                    rows[way.name, concurrency].append(row)
                    print(
                        f"round {turn + 1}: {way.name}, concurrency {concurrency}: "
                        f"{row[0]:.1f} images/s",
                        flush=True,
                    )
    report(raw, rows)


def report(raw: list[float], rows: dict[tuple[str, int], list[tuple[float, float, float]]]) -> None:
    """Print a Markdown table of medians over the rounds, and the ratios of the throughput."""
    print("\n| | concurrency | images/s | p50 ms | p99 ms |\n|---|--:|--:|--:|--:|")
    best = statistics.median(raw)
    print(f"| engine without a server, one thread per core | | {best:.1f} | | |")
    rates: dict[tuple[str, int], float] = {}
    for (name, concurrency), values in rows.items():
        rate, p50, p99 = (statistics.median(column) for column in zip(*values, strict=True))
        rates[name, concurrency] = rate
        print(f"| {name} | {concurrency} | {rate:.1f} | {p50:.0f} | {p99:.0f} |")
    top = CONCURRENCY[-1]
    ours = rates["VisionLoop", top]
    rival, other = max(
        ((n, r) for (n, c), r in rates.items() if c == top and n not in ("VisionLoop", ALONE)),
        key=lambda pair: pair[1],
    )
    print(f"\nimages/s at concurrency {top}:")
    print(f"VisionLoop / engine without a server: {ours / best:.2f}")
    print(f"VisionLoop / {ALONE}: {ours / rates[ALONE, top]:.2f}")
    print(f"VisionLoop / best other server ({rival}): {ours / other:.2f}")


if __name__ == "__main__":
    main()
