"""Compares this service with other servers: speed on three kinds of pictures, and accuracy.

Every server runs all the time and is measured in turns, so that a change of the machine's speed
meets all of them. The others run as their users write them: the default call of `YOLO.predict`.
All servers get the same weights, pictures and load generator. The table shows medians over the
rounds. `raw` is the loop of an engine without a server, one thread per core.

`python -m benchmarks.serving [--weights FILE.pt --data DATA.yaml]`
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.cpu import cpu
from benchmarks.http_load import LoadResult, drive, form
from benchmarks.server import PYTHON, ROOT, Server, free_port, serving
from shell import Parser

STARTER = "traffic_signs_yolov8n"
CONCURRENCY = (1, 16)
SIZES = {"640×480": (640, 480), "1920×1080": (1920, 1080), "12 megapixels": (4000, 3000)}
# Seconds of one measurement. The slowest server needs 10 s to answer 16 requests of 12 megapixels.
SECONDS = {"640×480": 5.0, "1920×1080": 5.0, "12 megapixels": 10.0}
OURS = {"fp32": "onnxruntime", "chosen engine": "auto"}
PICTURES = 16  # of each kind


@dataclass(frozen=True)
class Way:
    """One server of the comparison.

    Attributes:
        name: Its name in the table.
        command: The command line that starts it; `PORT` stands for the port.
        ready: The path that answers 200 when the server is ready.
        path: The path to send pictures to.
        engine: `VISIONLOOP_ENGINE` of ours; None: another's server.
    """

    name: str
    command: list[str]
    ready: str
    path: str
    engine: str | None = None


def ways(weights: Path) -> list[Way]:
    bento = [PYTHON, "-m", "bentoml", "serve"]
    peer = [str(weights), "PORT"]
    ours = [*bento, "service:VisionLoop", "--port", "PORT"]
    return [
        *(
            Way(f"VisionLoop, {name}", ours, "/readyz", "/infer", engine)
            for name, engine in OURS.items()
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
        Way(
            "BentoML batchable=True, YOLO.predict",
            [*bento, "benchmarks.peers.bentoml_yolo:Batchable", "--port", "PORT"],
            "/readyz",
            "/infer",
        ),
    ]


def pictures(folder: Path | None) -> list[bytes]:
    """JPEGs as they are: the first 64 of a folder, or else 32 drawn street scenes of 640×480."""
    if folder is None:
        return sized([], SIZES["640×480"], 32)
    found = sorted(path for path in folder.iterdir() if is_jpeg(path))
    if not found:
        raise SystemExit(f"No .jpg in {folder}.")
    return [path.read_bytes() for path in found[:64]]


def sized(photos: list[Path], size: tuple[int, int], count: int = PICTURES) -> list[bytes]:
    """JPEGs of a size: photos that are scaled to fill it; if there are none, `count` drawn scenes.

    A photo of the other orientation is turned; its sides are cut where its shape is another.
    """
    width, height = size
    if photos:
        read = (cv2.imread(str(path)) for path in photos)
        scenes = [_filling(photo, size) for photo in read if photo is not None]
    else:
        from synthetic.scenes import draw_scene

        rng = np.random.default_rng(0)
        scenes = [draw_scene(rng, width, height)[0][..., ::-1] for _ in range(count)]
    return [cv2.imencode(".jpg", scene)[1].tobytes() for scene in scenes]


def _photos(data: Path | None) -> list[Path]:
    """The first images of the val split of a data.yaml."""
    if data is None:
        return []
    from dataset.inspection import check

    found = [p for p in check(data, "detect", [data.parent]).splits["val"] if is_jpeg(p)]
    if not found:
        raise SystemExit(f"The val split of {data} has no .jpg.")
    return found[:PICTURES]


def is_jpeg(path: Path) -> bool:
    return path.suffix.lower() in (".jpg", ".jpeg")


def _filling(photo: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    width, height = size
    if photo.shape[0] > photo.shape[1]:
        photo = np.rot90(photo)
    gain = max(width / photo.shape[1], height / photo.shape[0])
    way = cv2.INTER_CUBIC if gain > 1 else cv2.INTER_AREA
    scaled = (max(width, round(photo.shape[1] * gain)), max(height, round(photo.shape[0] * gain)))
    large = cv2.resize(np.ascontiguousarray(photo), scaled, interpolation=way)
    left, top = (large.shape[1] - width) // 2, (large.shape[0] - height) // 2
    return np.ascontiguousarray(large[top : top + height, left : left + width])


@dataclass
class Bench:
    """The model, the pictures and the figures of one comparison."""

    home: Path
    env: dict[str, str]
    model_id: str
    weights: Path
    bodies: dict[str, list[bytes]]
    choice: dict[str, Any]
    rows: dict[tuple[str, str, int], list[LoadResult]] = field(
        default_factory=lambda: defaultdict(list)
    )
    raw: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))

    def run(self, rounds: int, scale: float) -> None:
        with contextlib.ExitStack() as stack:
            servers = {way.name: (way, self._start(way, stack)) for way in ways(self.weights)}
            for way, server in servers.values():  # compile, allocate, load
                for kind in SIZES:
                    asyncio.run(drive(server.url + way.path, self.bodies[kind], 2, 2))
            for turn in range(rounds):
                order = list(servers.values())
                for kind in SIZES:
                    for name, engine in OURS.items():
                        self.raw[name, kind].append(self._raw(engine, kind, scale))
                    for way, server in order[turn % len(order) :] + order[: turn % len(order)]:
                        self._measure(way, server, kind, scale, turn)

    def _start(self, way: Way, stack: contextlib.ExitStack) -> Server:
        port = free_port()
        command = [str(port) if word == "PORT" else word for word in way.command]
        env = self.env | ({"VISIONLOOP_ENGINE": way.engine} if way.engine else {})
        if way.engine:  # each of ours has a home of its own, since one server locks it
            env |= _copied_home(self.home, way.engine)
        log = self.home / f"{port}.log"
        return stack.enter_context(serving(command, port, log, way.ready, env))

    def _measure(self, way: Way, server: Server, kind: str, scale: float, turn: int) -> None:
        for concurrency in CONCURRENCY:
            seconds = SECONDS[kind] * scale * (0.6 if concurrency == 1 else 1)
            url = server.url + way.path
            result = asyncio.run(drive(url, self.bodies[kind], concurrency, seconds))
            if result.errors:
                raise SystemExit(f"{way.name}: {len(result.errors)} errors: {result.errors[0]}")
            self.rows[way.name, kind, concurrency].append(result)
            print(
                f"round {turn + 1}: {way.name}, {kind}, concurrency {concurrency}: "
                f"{result.rate:.1f} images/s, p50 {result.percentile(50):.0f} ms",
                flush=True,
            )

    def _raw(self, engine: str, kind: str, scale: float) -> float:
        """Images per second of the engine without a server: the upper limit of the throughput."""
        folder = self.home / "pictures" / kind
        out = subprocess.run(
            [
                PYTHON,
                "-m",
                "benchmarks.peers.raw_engine",
                self.model_id,
                str(folder),
                str(3 * scale),
            ],
            cwd=ROOT,
            env=self.env | {"VISIONLOOP_ENGINE": engine},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        return float(out.split()[-1])


def prepare(weights: Path | None, home: Path, env: dict[str, str]) -> tuple[str, Path]:
    """Import the model into the temporary registry.

    Returns the model's id, and the path of an Ultralytics .pt for the other servers.
    """
    _run(env, "models_store", "seed")
    name = STARTER
    if weights is not None:
        name = "benchmark"
        _run(env, "models_store", "import", str(weights), "--name", name)
        _run(env, "models_store", "activate", name)
    model_id: str = json.loads(_run(env, "models_store", "show", name, "--json"))["id"]
    checkpoint = home / "model.pt"
    _run(env, "benchmarks.peers.as_checkpoint", model_id, str(checkpoint))
    return model_id, checkpoint


def bench(weights: Path | None, data: Path | None, home: Path, env: dict[str, str]) -> Bench:
    """Import the model, have its engine chosen, and make the pictures."""
    model_id, checkpoint = prepare(weights, home, env)
    chosen = _run(env, "benchmarks.peers.choose_engine", model_id, *([str(data)] if data else []))
    photos, bodies = _photos(data), {}
    for kind, size in SIZES.items():
        images = sized(photos, size)
        folder = home / "pictures" / kind
        folder.mkdir(parents=True)
        for i, image in enumerate(images):
            (folder / f"{i:03}.jpg").write_bytes(image)
        bodies[kind] = [form(image) for image in images]
    choice = json.loads(chosen.splitlines()[-1])
    return Bench(home, env | {"WEIGHTS": str(checkpoint)}, model_id, checkpoint, bodies, choice)


def _run(env: dict[str, str], *words: str) -> str:
    return subprocess.run(
        [PYTHON, "-m", *words], cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def _copied_home(home: Path, name: str) -> dict[str, str]:
    """A copy of the temporary homes, since a server locks its own, and the variables naming it."""
    copy = home / f"home-{name}"
    for part in ("home", "bento"):
        shutil.copytree(home / part, copy / part)
    return {"VISIONLOOP_HOME": str(copy / "home"), "BENTOML_HOME": str(copy / "bento")}


def report(measured: Bench, rounds: int) -> None:
    """Print Markdown tables of medians over the rounds, the ratios, and the accuracy."""
    print(f"\n{cpu()}; {rounds} rounds\n")
    print("| picture | server | alone: p50 ms | 16 at once: images/s | p50 ms | p99 ms |")
    print("|---|---|--:|--:|--:|--:|")
    p50: dict[tuple[str, str], float] = {}
    rate: dict[tuple[str, str], float] = {}
    names = list(dict.fromkeys(name for name, _, _ in measured.rows))
    for kind in SIZES:
        for name in names:
            alone, many = (measured.rows[name, kind, concurrency] for concurrency in CONCURRENCY)
            p50[name, kind] = statistics.median(one.percentile(50) for one in alone)
            rate[name, kind] = statistics.median(one.rate for one in many)
            middle, late = (statistics.median(o.percentile(q) for o in many) for q in (50, 99))
            print(
                f"| {kind} | {name} | {p50[name, kind]:.0f} | {rate[name, kind]:.1f} "
                f"| {middle:.0f} | {late:.0f} |"
            )
        for name in OURS:
            raw = statistics.median(measured.raw[name, kind])
            print(f"| {kind} | raw {name} | | {raw:.1f} | | |")
    print("\n| picture | VisionLoop | images/s / best peer | / raw | alone p50 / best peer |")
    print("|---|---|--:|--:|--:|")
    peers = [name for name in names if not name.startswith("VisionLoop")]
    for kind in SIZES:
        for name in OURS:
            ours = f"VisionLoop, {name}"
            best = max(rate[peer, kind] for peer in peers)
            raw = statistics.median(measured.raw[name, kind])
            quickest = min(p50[peer, kind] for peer in peers)
            print(
                f"| {kind} | {name} | {rate[ours, kind] / best:.2f} "
                f"| {rate[ours, kind] / raw:.2f} | {p50[ours, kind] / quickest:.2f} |"
            )
    print(f"\nThe chosen engine: {measured.choice['engine']}. {measured.choice['reason']}")
    for one in measured.choice["engines"]:
        times = ", ".join(f"{key} {ms:.1f} ms" for key, ms in one["milliseconds"].items())
        print(f"- {one['engine']}: {times or 'not measured'}. {one['note']}")
        for metric, value in one["metrics"].items():
            print(f"  - {metric}: {value:.4f}, in fp32 {one['fp32_metrics'][metric]:.4f}")


def main() -> None:
    parser = Parser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--weights", type=Path, help="a YOLO detector's .pt; default: the starter detector")
    add(
        "--data",
        type=Path,
        help="its data.yaml: int8 is calibrated on the train split and evaluated on val, whose "
        "photos are sent; default: drawn street scenes",
    )
    add("--rounds", type=int, default=3, help="measurements of each server (3)")
    add("--scale", type=float, default=1.0, help="factor of the duration of each measurement (1)")
    args = parser.parse_args()
    if (args.weights is None) != (args.data is None):
        parser.error("--weights and --data belong together")

    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="visionloop-serving-") as folder:
        home = Path(folder)
        for name in ("home", "bento", "ultralytics"):
            (home / name).mkdir()
        env = {
            **os.environ,
            "VISIONLOOP_HOME": str(home / "home"),
            "BENTOML_HOME": str(home / "bento"),
            "YOLO_CONFIG_DIR": str(home / "ultralytics"),
            "YOLO_OFFLINE": "1",
            "YOLO_AUTOINSTALL": "false",
        }
        measured = bench(args.weights, args.data and args.data.resolve(), home, env)
        measured.run(args.rounds, args.scale)
    report(measured, args.rounds)
    print(f"\n{(time.perf_counter() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
