"""Checks that answers stay correct under load: `python -m benchmarks.load [--url URL]`.

Two tests with the starter models:
- mixed: requests with different models, thresholds and image sizes are sent at once. Each answer
  must equal the answer to the same request when it is sent alone;
- switching: the active model is switched again and again, while requests are sent that name no
  model. Each answer names a model version, and must equal the answer of this version.
The exit code is 1 if anything failed. Without `--url` a server is started on an empty home.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import cv2
import numpy as np

from benchmarks.server import PYTHON, free_port, serving
from shell import Parser

DETECTOR, CLASSIFIER = "traffic_signs_yolov8n", "traffic_signs_mobilenet_v2"
SIZES = ((64, 64), (320, 240), (640, 480), (480, 640), (1280, 720))
THRESHOLDS = (0.0005, 0.05, 0.25)

Answer = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """A request; if `model` is empty, the active model answers."""

    picture: int
    model: str
    confidence: float


class Client:
    """Sends requests to a server; raises an error if the status of an answer is not 200."""

    def __init__(self, session: aiohttp.ClientSession, pictures: Sequence[bytes]) -> None:
        self.session = session
        self.pictures = pictures

    async def ask(self, question: Question) -> Answer:
        form = aiohttp.FormData()
        form.add_field("image", self.pictures[question.picture], filename="image.jpg")
        form.add_field("model_id", question.model)
        form.add_field("confidence", str(question.confidence))
        async with self.session.post("/infer", data=form) as response:
            answer: Answer = await response.json()
            if response.status != 200:
                raise RuntimeError(f"{response.status}: {answer}")
        answer.pop("inference_time")
        return answer

    async def activate(self, model: str) -> None:
        async with self.session.post("/models/active", json={"model_id": model}) as response:
            response.raise_for_status()


def draw(size: tuple[int, int], seed: int) -> bytes:
    """A JPEG of coloured circles; the same seed gives the same image."""
    chance = np.random.default_rng(seed)
    width, height = size
    picture = np.full((height, width, 3), chance.integers(60, 200, 3), np.uint8)
    for _ in range(12):
        colour = chance.integers(0, 256, 3).tolist()
        centre = (int(chance.integers(width)), int(chance.integers(height)))
        radius = int(chance.integers(4, min(size) // 4))
        cv2.circle(picture, centre, radius, colour, -1 if chance.random() < 0.5 else 3)
    return cv2.imencode(".jpg", picture)[1].tobytes()


async def at_most(
    concurrency: int, jobs: Sequence[Callable[[], Coroutine[Any, Any, str | None]]]
) -> list[str]:
    """Run jobs, at most `concurrency` at once; returns the complaints they return or raise."""
    places = asyncio.Semaphore(concurrency)

    async def run(job: Callable[[], Coroutine[Any, Any, str | None]]) -> str | None:
        async with places:
            try:
                return await job()
            except (RuntimeError, aiohttp.ClientError, TimeoutError) as error:
                return f"{type(error).__name__}: {error}"

    return [found for found in await asyncio.gather(*map(run, jobs)) if found]


async def mixed(client: Client, requests: int, concurrency: int) -> list[str]:
    questions = [
        Question(picture, model, threshold)
        for picture in range(len(client.pictures))
        for model in (DETECTOR, CLASSIFIER)
        for threshold in THRESHOLDS
    ]
    alone = {question: await client.ask(question) for question in questions}
    seen = sum(len(answer["predictions"]) for answer in alone.values())
    print(f"mixed: {len(questions)} different requests, {seen} predictions in their answers")

    async def job(question: Question) -> str | None:
        answer = await client.ask(question)
        return None if answer == alone[question] else f"{question}: the answer differs under load"

    chosen = random.Random(0).choices(questions, k=requests)
    return await at_most(concurrency, [partial(job, question) for question in chosen])


async def switching(client: Client, requests: int, switches: int, concurrency: int) -> list[str]:
    models = (DETECTOR, CLASSIFIER)
    alone: dict[tuple[int, str], Answer] = {}
    for picture in range(len(client.pictures)):
        for model in models:
            answer = await client.ask(Question(picture, model, THRESHOLDS[0]))
            alone[picture, answer["model_id"]] = answer
    await client.activate(models[0])
    made_by: Counter[str] = Counter()
    every = max(1, requests // switches)

    async def job(turn: int, picture: int) -> str | None:
        if turn % every == 0:
            await client.activate(models[turn // every % 2])
        answer = await client.ask(Question(picture, "", THRESHOLDS[0]))
        made_by[answer["model_id"]] += 1
        if answer == alone.get((picture, answer["model_id"])):
            return None
        return f"image {picture}: this is not the answer of {answer['model_id']}"

    pictures = random.Random(1).choices(range(len(client.pictures)), k=requests)
    jobs = [partial(job, turn, picture) for turn, picture in enumerate(pictures)]
    complaints = await at_most(concurrency, jobs)
    await client.activate(DETECTOR)
    print(f"switching: {requests // every} switches, answers by model: {dict(made_by)}")
    return complaints


async def run(url: str, options: argparse.Namespace) -> int:
    pictures = [draw(size, seed) for seed, size in enumerate(SIZES * 2)]
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=120)
    failed = 0
    async with aiohttp.ClientSession(url, connector=connector, timeout=timeout) as session:
        client = Client(session, pictures)
        runs = {
            "mixed": lambda: mixed(client, options.requests, options.concurrency),
            "switching": lambda: switching(
                client, options.requests // 2, options.switches, options.concurrency
            ),
        }
        for name, work in runs.items():
            began = time.perf_counter()
            complaints = await work()
            seconds = time.perf_counter() - began
            failed += len(complaints)
            print(f"{name}: {len(complaints)} answers wrong or failed, {seconds:.1f} s", flush=True)
            for complaint in complaints[:5]:
                print(f"  {complaint}")
    return 1 if failed else 0


def main() -> int:
    parser = Parser(prog="python -m benchmarks.load", description=__doc__)
    add = parser.add_argument
    add("--url", help="address of a running server with the starter models and without a token")
    add("--requests", type=int, default=2000, help="requests of `mixed` (2000); half for switching")
    add("--switches", type=int, default=100, help="switches of the active model (100)")
    add("--concurrency", type=int, default=32, help="maximum number of requests at once (32)")
    options = parser.parse_args()
    with ExitStack() as stack:
        if options.url is None:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            port = free_port()
            command = [PYTHON, "-m", "bentoml", "serve", "service:VisionLoop", "--port", str(port)]
            env = {"VISIONLOOP_HOME": str(home / "home"), "BENTOML_HOME": str(home / "bento")}
            server = stack.enter_context(serving(command, port, home / "log", "/readyz", env))
            options.url = server.url
        return asyncio.run(run(options.url, options))


if __name__ == "__main__":
    sys.exit(main())
