"""Trains models of all tasks over HTTP on drawn images, and checks that they find the objects.

Starts the service on a fresh temporary home. Five jobs train YOLOv8n and MobileNetV2 from scratch;
the requests have alternately the form of the first and of the second client family. The progress
of each job must rise, its log must be streamed to the end, and the job must complete and publish a
version. The metric of this version must be at least 0.8, and over `/infer` it must find at least
80 % of the objects in the validation images. The table also shows how long each part of a job
took, from the times in its log: start (process, imports, dataset), epochs, publication (export,
comparison with PyTorch), evaluation.
`python -m benchmarks.training_tasks [--only detect …]`
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx

from benchmarks.stress.server import Failed, Service, until
from shell import Parser
from synthetic.shapes import Task, write_shapes
from tests.support.drawn_truth import share_found

LEAST = 0.8
DONE = 900.0  # time limit of a job in seconds
HYPER = {"workers": 0, "optimizer": "AdamW", "lr0": 2e-3, "warmup_epochs": 1}


PARTS = {
    "start": "Process ",
    "epochs": "Training from ",
    "publication": "Exporting the model to ONNX",
    "evaluation": "Evaluating ",
    "": "Completed: ",
}
"""Part of a job → the beginning of the log line with which this part begins."""


@dataclass(frozen=True)
class Case:
    """One training, and the metric that is checked."""

    name: str
    task: Task
    figure: str
    epochs: int
    imgsz: int
    model: str = "n"


CASES = (
    Case("detect", "detect", "mAP50", 10, 96),
    Case("segment", "segment", "mask_mAP50", 12, 96),
    Case("pose", "pose", "pose_mAP50", 10, 96),
    Case("classify", "classify", "accuracy", 10, 64),
    Case("mobilenet", "classify", "accuracy", 10, 64, "mobilenet"),
)


def start(service: Service, case: Case, data: Path, first: bool) -> str:
    """Request the training as the first or the second client family does; returns the job's id."""
    hyper: dict[str, Any] = {"workers": 0} if case.model == "mobilenet" else dict(HYPER)
    if case.task != "classify":
        hyper["mosaic"] = 0
    fields = {"task": case.task, "imgsz": case.imgsz, "name": f"drawn-{case.name}", "hyper": hyper}
    if first:
        body: dict[str, Any] = {"model_id": case.model, "dataset_path": str(data)}
        body |= {"epochs": case.epochs, "batch_size": 8, "parameters": fields}
        return str(service.ask("POST", "/train", json=body)["job_id"])
    body = fields | {"model_type": case.model, "data_path": str(data), "batch": 8}
    body |= {"epochs": case.epochs, "trainingType": "regular", "resume_weights": ""}
    return str(service.ask("POST", "/api/training/regular", json=body)["task_id"])


class Follower(threading.Thread):
    """A thread that reads a job's log while it is written."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.lines = 0
        self.ended = False

    def run(self) -> None:
        with httpx.stream("GET", self.url, params={"follow": "true"}, timeout=60) as answer:
            for line in answer.iter_lines():
                self.lines += line.startswith("data: [")
                self.ended |= line == "event: end"


def parts_of(lines: list[str]) -> str:
    """The duration of each part of a job in whole seconds, as text."""
    began = []
    for words in PARTS.values():
        line = next(line for line in lines if line.partition("] ")[2].startswith(words))
        began.append(datetime.strptime(line[1:20], "%Y-%m-%d %H:%M:%S"))
    spent = [(end - begin).seconds for begin, end in pairwise(began)]
    return " + ".join(f"{name} {took}" for name, took in zip(PARTS, spent, strict=False))


def play(service: Service, case: Case, data: Path, first: bool) -> str:
    """Do one training and check its result. Returns a line for the table."""
    began = time.monotonic()
    job_id = start(service, case, data, first)
    follower = Follower(f"{service.url}/jobs/{job_id}/logs")
    follower.start()
    shown: list[float] = []

    def final() -> Any:
        job = service.ask("GET", f"/jobs/{job_id}")
        shown.append(job["progress"])
        return job if job["status"] in ("stopped", "completed", "failed") else None

    job = until(final, DONE, f"{case.name} ends")
    took = time.monotonic() - began
    follower.join(10)
    if job["status"] != "completed":
        raise Failed(f"{case.name} is {job['status']}: {job['error']}")
    if shown != sorted(shown) or len(set(shown)) < case.epochs:
        raise Failed(f"{case.name}: the progress was {shown}")
    if not follower.ended or follower.lines < case.epochs:
        raise Failed(f"{case.name}: the log had {follower.lines} lines, ended: {follower.ended}")
    model = service.ask("GET", f"/models/{job['model_id']}")
    figure = model["metrics"][case.figure]

    def ask(image: bytes) -> list[dict[str, Any]]:
        sent = {"files": {"image": image}, "data": {"model_id": model["id"]}}
        return list(service.ask("POST", "/infer", **sent)["predictions"])

    root = data if case.task == "classify" else data.parent
    found = share_found(root, case.task, ask)
    line = (
        f"{case.name:10}{'first' if first else 'second':8}{case.epochs:7}{took:9.1f} s"
        f"   {case.figure} {figure:.3f}{found:11.2f}"
    )
    line += f"   {parts_of(service.ask('GET', f'/jobs/{job_id}/logs')['logs'])}"
    if min(figure, found) < LEAST:
        raise Failed(line)
    return line


def main() -> int:
    names = [case.name for case in CASES]
    parser = Parser(description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument(
        "--only", nargs="*", choices=names, default=names, help="trainings to run (all)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="visionloop-tasks-") as folder:
        service = Service(Path(folder))
        try:
            service.start()
            print(
                f"{'task':10}{'client':8}{'epochs':>7}{'time':>11}   metric      found   seconds",
                flush=True,
            )
            for number, case in enumerate(CASES):
                if case.name in options.only:
                    place = service.folder / "data" / case.name
                    data = write_shapes(place, case.task, 64, 16, case.imgsz, seed=number)
                    print(play(service, case, data, first=number % 2 == 0), flush=True)
        except Failed as error:
            log = service.log.read_text(errors="replace")
            print(f"{log[-3000:]}\nBROKEN: {error}", file=sys.stderr)
            return 1
        finally:
            service.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
