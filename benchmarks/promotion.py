"""Checks that promotion is safe under load: `python -m benchmarks.promotion`.

The gate compares the starter detector with a worse copy, which does not detect one class, on drawn
scenes. The promotion of the worse copy must be refused, and the reason must name the class. The
better version is promoted, and rolled back, while requests run that name the model without a
version. Each request must be answered with 200 by one of the two versions. The exit code is 1 if
anything failed. `--resampling` measures something else: the time to compare two evaluations of
5,000 images with 80 classes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from benchmarks.load import draw
from benchmarks.server import PYTHON, free_port, serving
from database import Database
from shell import Parser

STARTER, NAME = "traffic_signs_yolov8n", "scenes"
PICTURE = (640, 480)


@dataclass
class Load:
    """Requests that name the model without a version, and the versions that answered them."""

    answered: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    async def ask(self, session: aiohttp.ClientSession, picture: bytes) -> None:
        form = aiohttp.FormData()
        form.add_field("image", picture, filename="image.jpg")
        form.add_field("model_id", NAME)
        began = time.perf_counter()
        try:
            async with session.post("/infer", data=form) as response:
                answer = await response.json()
                if response.status == 200:
                    self.answered[answer["model_id"]] += 1
                else:
                    self.failures.append(f"{response.status}: {answer}")
        except (aiohttp.ClientError, TimeoutError) as error:
            self.failures.append(f"{type(error).__name__}: {error}")
        self.times.append((time.perf_counter() - began) * 1000)


class Client:
    """Calls the API; an error answer raises RuntimeError."""

    def __init__(self, session: aiohttp.ClientSession, data: Path) -> None:
        self.session = session
        self.data = data

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        async with self.session.request(method, path, json=body) as response:
            answer = await response.json()
            if response.status not in (200, 202):
                raise RuntimeError(f"{method} {path}: {response.status} {answer}")
            return answer

    async def promote(self, model_id: str) -> Any:
        """Ask the gate to promote a version; returns the decision.

        If an evaluation is needed first, waits for its job.
        """
        body = {"gate": {"dataset": str(self.data), "metric": "mAP50", "max_class_drop": 0.2}}
        answer = await self.call("POST", f"/models/{model_id}/promote", body)
        if answer["status"] != "evaluating":
            return answer
        while True:
            job = await self.call("GET", f"/jobs/{answer['job_id']}")
            if job["finished_at"]:
                break
            await asyncio.sleep(0.5)
        if job["status"] != "completed":
            raise RuntimeError(f"{job['kind']} job: {job['error']}")
        return (await self.call("GET", f"/models/{NAME}/decisions"))["decisions"][0]

    async def under_load(
        self, change: Callable[[], Coroutine[Any, Any, Any]], requests: int, concurrency: int
    ) -> tuple[Any, Load]:
        """Send requests, and call `change` when a third of them has been answered.

        Returns the result of `change`, and the requests.
        """
        load, places = Load(), asyncio.Semaphore(concurrency)
        picture, due = draw(PICTURE, 1), asyncio.Event()

        async def one() -> None:
            async with places:
                await load.ask(self.session, picture)
            if len(load.times) >= requests // 3:
                due.set()

        tasks = [asyncio.create_task(one()) for _ in range(requests)]
        await due.wait()
        began = time.perf_counter()
        changed = await change()
        print(f"  the change took {time.perf_counter() - began:.2f} s")
        await asyncio.gather(*tasks)
        return changed, load


async def run(url: str, data: Path, options: argparse.Namespace, versions: list[str]) -> int:
    good, worse, better = versions
    timeout = aiohttp.ClientTimeout(total=120)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(url, connector=connector, timeout=timeout) as session:
        client = Client(session, data)
        print("first version:", (await client.promote(good))["reasons"])
        refused = await client.promote(worse)
        print(
            f"worse version: {refused.get('status') or refused['action']}",
            *refused["reasons"],
            sep="\n  ",
        )
        faults = 0 if any("regressed from" in reason for reason in refused["reasons"]) else 1
        await client.call("POST", f"/models/{worse}/promote", {"force": True})
        found = await client.promote(better)  # evaluated now, so the next promotion needs no job
        print("better version:", found["reasons"])
        await client.call("POST", f"/models/{NAME}/rollback")
        for title, change in (
            ("promotion", lambda: client.promote(better)),
            ("rollback", lambda: client.call("POST", f"/models/{NAME}/rollback")),
        ):
            print(f"{title} under load:")
            _, load = await client.under_load(change, options.requests, options.concurrency)
            slowest, middle = np.percentile(load.times, [100, 50])
            print(f"  {options.requests} requests, {len(load.failures)} failed")
            print(
                f"  median {middle:.0f} ms, slowest {slowest:.0f} ms, answers by version: "
                f"{dict(load.answered)}"
            )
            for failure in load.failures[:5]:
                print(f"  {failure}")
            faults += len(load.failures) + (set(load.answered) != {worse, better})
    return 1 if faults else 0


def prepare(home: Path, images: int) -> tuple[Path, list[str]]:
    """Fill a home with drawn scenes and three versions: good, blind to a class, good.

    Returns the path of the data.yaml and the ids of the versions.
    """
    from models_store.registry import Registry
    from serving.lifecycle import fill
    from settings import get_settings
    from synthetic.scenes import write_detection_set

    settings = get_settings()
    fill(settings)
    data = settings.home / "datasets" / "scenes"
    write_detection_set(data, images + 2, 3, 640, lambda i: i >= 2)
    registry = Registry(Database(settings))
    starter = registry.get(STARTER)
    source = {"kind": "import"}
    worse = blind(starter.path, home / "worse", commonest(data))
    folders = (starter.path, worse, starter.path)
    versions = [registry.publish(folder, NAME, source).id for folder in folders]
    registry.database.close()
    return data / "data.yaml", versions


def commonest(data: Path) -> int:
    """The class with the most objects in the val split."""
    labels = [file.read_text().split() for file in (data / "labels" / "val").glob("*.txt")]
    return Counter(int(words[i]) for words in labels for i in range(0, len(words), 5)).most_common(
        1
    )[0][0]


def blind(source: Path, target: Path, class_id: int) -> Path:
    """Make a copy of a detector whose scores of one class are almost zero."""
    import torch

    from models_store.description import ModelDescription
    from models_store.export import export_onnx
    from models_store.weights import load_model, save_model

    description = ModelDescription.load(source)
    model: Any = load_model(source)[0]
    with torch.no_grad():
        for level in model.model[-1].cv3:
            level[-1].bias[class_id] = -20.0
    target.mkdir()
    save_model(target, model, description)
    export_onnx(target)
    return target


def resampling(images: int, classes: int) -> None:
    """Measure the resampling, the slowest part of a comparison, on made-up detections."""
    from evaluation.bootstrap import RESAMPLES, map_intervals

    chance = np.random.default_rng(0)
    a, b = (made_up(images, classes, chance, found) for found in (0.74, 0.76))
    began = time.perf_counter()
    differences = map_intervals(a, b, images)
    seconds = time.perf_counter() - began
    print(f"{images} images, {classes} classes, {len(a.image)} detections of each model")
    print(f"{RESAMPLES} resamplings: {seconds:.1f} s; {differences['mAP50_95']}")


def made_up(images: int, classes: int, chance: np.random.Generator, found: float) -> Any:
    """Made-up matches: 7.3 objects and 150 detections per image on average.

    This is similar to COCO with a confidence threshold of 0.001. `found` is the share of objects
    that are detected.
    """
    from evaluation.bootstrap import Matches

    target_image = np.repeat(np.arange(images), np.random.default_rng(1).poisson(7.3, images))
    target_class = np.random.default_rng(2).integers(0, classes, len(target_image))
    seen = chance.random(len(target_image)) < found
    rest = 150 * images - int(seen.sum())
    overlap = 0.5 + 0.5 * chance.beta(2.2, 1.6, int(seen.sum()))
    right = overlap[:, None] >= np.linspace(0.5, 0.95, 10)
    return Matches(
        image=np.concatenate((target_image[seen], chance.integers(0, images, rest))),
        confidence=np.concatenate((chance.beta(3, 2, seen.sum()), chance.beta(0.3, 6, rest))),
        class_id=np.concatenate((target_class[seen], chance.integers(0, classes, rest))),
        tp=np.concatenate((right, np.zeros((rest, 10), bool))),
        target_image=target_image,
        target_class=target_class,
    )


def main() -> int:
    parser = Parser(prog="python -m benchmarks.promotion", description=__doc__)
    add = parser.add_argument
    add("--requests", type=int, default=1000, help="requests during each change (1000)")
    add("--concurrency", type=int, default=16, help="maximum number of requests at once (16)")
    add("--images", type=int, default=40, help="number of drawn scenes to evaluate on (40)")
    add(
        "--resampling",
        action="store_true",
        help="only measure the time to compare two evaluations, without a server",
    )
    options = parser.parse_args()
    if options.resampling:
        resampling(5000, 80)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        env = {"VISIONLOOP_HOME": str(home / "home"), "BENTOML_HOME": str(home / "bento")}
        os.environ.update(env)
        data, versions = prepare(home, options.images)
        port = free_port()
        command = [PYTHON, "-m", "bentoml", "serve", "service:VisionLoop", "--port", str(port)]
        with serving(command, port, home / "log", "/readyz", env) as server:
            return asyncio.run(run(server.url, data, options, versions))


if __name__ == "__main__":
    sys.exit(main())
