"""Compares a job with the same training without a job: `python -m benchmarks.training_overhead`.

Draws a dataset, and trains on it alternately as a job (checks, private view of the dataset,
progress in the database, cancel checks, crash-safe checkpoints) and with a bare `YOLO.train` that
has the same arguments as the job. Each run is a new process; the time of its start is shown
separately. The bare run validates its best checkpoint once more at the end, which a job does not
do; so the ratio is shown with and without this validation. `cpu` is the processor time of the run,
on which other work on the machine has less effect.

Unlike real jobs, neither side has a lower priority (nice, SCHED_BATCH). The dispatcher, the log's
pipe, and the publication (export and comparison) and evaluation after the training are not
included: `benchmarks.training_tasks` measures these on real jobs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.server import PYTHON, ROOT
from database import Database
from shell import Parser

TASKS = ("detect", "segment", "pose", "classify")


def main() -> None:
    parser = Parser(description=(__doc__ or "").split("\n\n")[0])
    add = parser.add_argument
    add("--task", choices=TASKS, default="detect", help="task of the model (detect)")
    add("--model", default="n", help="size of the YOLOv8 model: n, s, m, l or x (n)")
    add("--images", type=int, default=96, help="number of images to draw for training (96)")
    add("--imgsz", type=int, default=320, help="image size in pixels (320)")
    add("--batch", type=int, default=8, help="images per training step (8)")
    add("--epochs", type=int, default=3, help="epochs of each training (3)")
    add("--rounds", type=int, default=3, help="number of trainings of each kind (3)")
    add("--side", choices=("job", "bare"), help=argparse.SUPPRESS)
    add("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        run = run_job if arguments.side == "job" else run_bare
        print(json.dumps(run(arguments.folder)))
        return
    with tempfile.TemporaryDirectory(prefix="visionloop-overhead-") as folder:
        compare(arguments, Path(folder))


def compare(options: argparse.Namespace, folder: Path) -> None:
    from synthetic.shapes import write_shapes

    data = write_shapes(
        folder / "home" / "datasets" / "shapes",
        options.task,
        train=options.images,
        val=max(8, options.images // 4),
        imgsz=options.imgsz,
    )
    fields = {
        name: getattr(options, name) for name in ("task", "model", "imgsz", "batch", "epochs")
    }
    (folder / "request.json").write_text(json.dumps({**fields, "data": str(data), "patience": 0}))
    print(
        f"{options.task} {options.model}, {options.images} images @{options.imgsz}, batch "
        f"{options.batch}, {options.epochs} epochs, {os.cpu_count()} cores; times in seconds"
    )
    print(f"{'':8}{'start':>8}{'prepare':>9}{'train':>8}{'last val':>10}{'total':>8}{'cpu':>8}")
    found: dict[str, list[dict[str, float]]] = {"job": [], "bare": []}
    for _ in range(options.rounds):
        for side, runs in found.items():
            runs.append(_child(side, folder))
            times = runs[-1]
            cells = (times[name] for name in ("start", "prepare", "train", "last", "all", "cpu"))
            row = "{:8.2f}{:9.2f}{:8.2f}{:10.2f}{:8.2f}{:8.2f}".format(*cells)
            print(f"{side:8}{row}", flush=True)
    middle = {
        side: {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        for side, runs in found.items()
    }
    job, bare = middle["job"], middle["bare"]
    print(
        f"ratios job / bare of the medians: total {job['all'] / bare['all']:.3f}; total without "
        f"the last validation of bare {job['all'] / (bare['all'] - bare['last']):.3f}; epochs "
        f"{job['train'] / bare['train']:.3f}; processor time {job['cpu'] / bare['cpu']:.3f}. "
        f"Process start: job {job['start']:.1f} s, bare {bare['start']:.1f} s"
    )


def _child(side: str, folder: Path) -> dict[str, float]:
    env = os.environ | {
        "VISIONLOOP_HOME": str(folder / "home"),
        "BENTOML_HOME": str(folder / "bento"),
        "PYTHONPATH": str(ROOT),
    }
    command = [PYTHON, "-m", "benchmarks.training_overhead", "--side", side]
    began = time.perf_counter()
    child = subprocess.run(
        [*command, "--folder", str(folder)], cwd=ROOT, env=env, capture_output=True, text=True
    )
    whole = time.perf_counter() - began
    if child.returncode != 0:
        sys.exit(child.stderr[-3000:])
    times: dict[str, float] = json.loads(child.stdout.strip().splitlines()[-1])
    return times | {"start": whole - times["all"]}


def run_job(folder: Path) -> dict[str, float]:
    """Train as a job, with a real row of the job table."""
    from models_store import ultralytics_env

    ultralytics_env.prepare()
    from jobs.store import JobStore
    from jobs.worker import WorkerJob
    from models_store.registry import Registry
    from settings import get_settings
    from training.modes import regular
    from training.planning.plan import plan
    from training.planning.recipe import TrainingRequest
    from training.yolo import trainer
    from training.yolo.run import Run

    settings = get_settings()
    request = TrainingRequest.model_validate_json((folder / "request.json").read_text())
    recipe = plan(request, Registry(Database(settings)), _Paths(), settings)
    store = JobStore(Database(settings))
    row = store.create("training", config={}, recipe=recipe.model_dump(mode="json"))
    store.claim(row.id, "benchmark")
    store.start(row.id, "benchmark")
    times = _Times()
    build, hooks = trainer.make_trainer, {"on_train_start": times.begin, "on_train_end": times.end}

    def noted(run: Run, overrides: dict[str, Any]) -> Any:
        run.hooks = hooks
        return build(run, overrides)

    trainer.make_trainer = noted
    save = trainer.arguments

    def kept(*positional: Any, **named: Any) -> dict[str, Any]:
        chosen = save(*positional, **named)
        (folder / "arguments.json").write_text(json.dumps(chosen))
        return chosen

    trainer.arguments = kept
    began, spent = time.perf_counter(), time.process_time()
    regular.train(recipe, WorkerJob(store, row))
    return times.result(began, time.perf_counter()) | {"cpu": time.process_time() - spent}


def run_bare(folder: Path) -> dict[str, float]:
    """Train with `YOLO.train`, with the arguments and the dataset view of the last job."""
    from models_store import ultralytics_env

    ultralytics_env.prepare()
    import torch
    from ultralytics import YOLO

    chosen = json.loads((folder / "arguments.json").read_text())
    request = json.loads((folder / "request.json").read_text())
    suffix = {"detect": "", "segment": "-seg", "pose": "-pose", "classify": "-cls"}
    architecture = f"yolov8{request['model']}{suffix[request['task']]}.yaml"
    with tempfile.TemporaryDirectory(dir=folder) as project:
        chosen |= {"project": project, "model": architecture}
        times = _Times()
        threads = torch.get_num_threads()
        began, spent = time.perf_counter(), time.process_time()
        model = YOLO(architecture)
        model.add_callback("on_pretrain_routine_start", lambda _: torch.set_num_threads(threads))
        model.add_callback("on_train_start", times.begin)
        model.add_callback("on_fit_epoch_end", times.epoch)
        model.add_callback("on_train_end", times.end)
        model.train(**{k: v for k, v in chosen.items() if k not in ("mode", "task")})
        return times.result(began, time.perf_counter()) | {"cpu": time.process_time() - spent}


class _Times:
    """Records when the training and its epochs began and ended.

    Ultralytics' last `on_fit_epoch_end` belongs to the validation of the best checkpoint, not to
    an epoch.
    """

    def __init__(self) -> None:
        self.began = self.ended = 0.0
        self.epochs: list[float] = []

    def begin(self, _: Any) -> None:
        self.began = time.perf_counter()

    def epoch(self, _: Any) -> None:
        self.epochs.append(time.perf_counter())

    def end(self, _: Any) -> None:
        self.ended = time.perf_counter()

    def result(self, began: float, ended: float) -> dict[str, float]:
        over = self.epochs[-2] if self.epochs else self.ended
        return {
            "prepare": self.began - began,
            "train": over - self.began,
            "last": self.ended - over,
            "all": ended - began,
        }


class _Paths:
    def resolve(self, reference: str) -> Path:
        return Path(reference)


if __name__ == "__main__":
    main()
