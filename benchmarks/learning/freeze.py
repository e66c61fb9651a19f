"""Compares staged unfreezing with training all layers at once, from the same start weights.

The arms train for the same number of epochs from the same start weights:

  full     training mode regular
  staged   training mode freeze_strategy: head, then neck, then backbone

`staged:KEY=VALUE:…` is `staged` with another value of a field of the training request, for example
`staged:min_epochs_per_stage=5`. The models are measured on the test split (on val if there is
none), with the serving engine. The wall time and the processor time of the training are measured
as well. By default the arms train on drawn shapes, from the weights of the starter detector for
traffic signs.

    python -m benchmarks.learning freeze --seeds 3
    python -m benchmarks.learning freeze --data roadsigns/data.yaml --weights yolov8n.pt --imgsz 320
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.learning.bench import Bench, Figures
from benchmarks.learning.pooled import gain, measured, metric_of
from benchmarks.learning.students import drawn
from benchmarks.learning.tables import mean_and_spread, table, write_bars
from models_store.seed import seed as seed_starters
from training.planning.recipe import Recipe, TrainingRequest

ARMS = ("full", "staged")
STAGE = 0.3  # share of the epochs, as in a request's default values: 15 of 50
STARTS = {"detect": "traffic_signs_yolov8n"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--name",
        default="",
        help="name of this comparison; default: made from the name of the dataset, the task, the "
        "image size and the epochs",
    )
    add("--weights", default="", help="model id or weights file that all arms start from")
    add(
        "--images",
        type=int,
        default=96,
        help="number of images to draw for training, without --data (96)",
    )
    add(
        "--test-images",
        type=int,
        default=1000,
        help="number of images to draw for the test split, without --data (1000)",
    )
    add(
        "--imgsz",
        type=int,
        default=0,
        help="image size in pixels (classify 64, other tasks 128)",
    )
    add("--batch", type=int, default=8, help="images per training step (8)")
    add("--epochs", type=int, default=0, help="epochs of each training (30; 100 with --full)")
    add(
        "--stage",
        type=int,
        default=0,
        help="min_epochs_per_stage of the request (0.3 of the epochs)",
    )
    add("--arms", default=",".join(ARMS), help="comma-separated arms to run (%(default)s)")


def run(options: argparse.Namespace) -> None:
    setting = Setting(options)
    if not options.report:
        for seed in range(options.seeds):
            for arm in options.arms.split(","):
                setting.arm(arm, seed)
    print(setting.report())


class Setting:
    """One comparison: a dataset, the start weights, and the arms that train from them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.task = options, options.task
        self.metric = metric_of(self.task)
        self.imgsz = options.imgsz or (64 if self.task == "classify" else 128)
        self.epochs = options.epochs or (100 if options.full else 30)
        self.stage = options.stage or max(1, round(STAGE * self.epochs))
        source = options.data.resolve() if options.data else None
        stem = (source.parent if source and source.is_file() else source or Path("shapes")).name
        self.name = options.name or f"{stem}-{self.task}-{self.imgsz}px-{self.epochs}e"
        self.bench = Bench(options.out / "freeze" / self.name)
        counts = {"train": options.images, "val": 64, "test": options.test_images}
        folder = self.bench.folder / "drawn"
        self.source = source or drawn(self.task, folder, self.imgsz, counts, shapes=True)

    @property
    def start(self) -> str:
        if self.options.weights:
            return str(self.options.weights)
        if self.task not in STARTS:
            raise SystemExit(f"Give --weights: there is no starter model for {self.task}.")
        seed_starters(self.bench.registry)
        return STARTS[self.task]

    def arm(self, arm: str, seed: int) -> Figures:
        """Train and measure one model, or return its stored figures if this run exists."""
        kind, *pairs = arm.split(":")
        given = {key: json.loads(value) for key, value in (pair.split("=") for pair in pairs)}
        staged = {"mode": "freeze_strategy", "min_epochs_per_stage": self.stage}

        def work(folder: Path) -> Figures:
            fields = (staged if kind == "staged" else {}) | given
            return self._train(self._recipe(seed, fields), folder, f"{arm}-s{seed}")

        return self.bench.run(f"{arm}-s{seed}", work, self.made_with(arm))

    def made_with(self, arm: str) -> dict[str, Any]:
        """The current settings of an arm."""
        given = self.options
        start = Path(given.weights).name or STARTS.get(self.task, "")
        means: dict[str, Any] = {"start": start, "batch": given.batch, "epochs": self.epochs}
        means |= {"imgsz": self.imgsz, "images": given.images}
        named = "min_epochs_per_stage" in arm
        return means | ({"stage": self.stage} if arm.startswith("staged") and not named else {})

    def _recipe(self, seed: int, fields: dict[str, Any]) -> Recipe:
        asked = {
            "task": self.task,
            "model": "n",
            "weights": self.start,
            "data": str(self.source),
            "name": "bench-freeze",
            "imgsz": self.imgsz,
            "epochs": self.epochs,
            "batch": self.options.batch,
            "patience": 0,
            "hyper": {"seed": seed},
        }
        return self.bench.plan(TrainingRequest.model_validate(asked | fields))

    def _train(self, recipe: Recipe, folder: Path, key: str) -> Figures:
        from dataset.inspection import check

        model, spent = self.bench.train(recipe, folder)
        dataset = check(self.source, self.task, [Path("/")])
        return {**measured(self.bench, model, dataset, folder, key), **spent}

    def report(self) -> str:
        """The table of all stored runs, as Markdown.

        The table is also written to the benchmark's folder, and so is a bar chart.
        """
        rows, groups, footer = [], {}, ""
        for arm, seeds in self.bench.arms.items():
            made_with = self.made_with(arm)
            found = {s: self.bench.known(f"{arm}-s{s}", made_with) for s in seeds}
            runs = {seed: run for seed, run in found.items() if run}
            values = [run["figures"][self.metric] for run in runs.values()]
            over = gain(self.bench, arm, "full", list(runs), self.metric)
            spent = [
                mean_and_spread([run[key] for run in runs.values()], 1.0, 0)
                for key in ("seconds", "cpu_seconds")
            ]
            rows.append([arm, mean_and_spread(values), over, *spent, str(len(runs))])
            groups[arm] = {self.metric: values}
            first = next(iter(runs.values()))
            footer = f"{first['figures'].get('images', 0):.0f} images of {first['split']}"
            footer += f", {first['machine']}"
        text = (
            f"### {self.name}\n\n{self.metric} in percent on {footer}; gains in percentage points "
            "with 95 % intervals of a paired bootstrap\n\n"
        )
        text += table(["arm", self.metric, "gain over full", "seconds", "CPU s", "runs"], rows)
        (self.bench.folder / "freeze.md").write_text(text)
        if groups:
            write_bars(self.bench.folder / "freeze.png", self.name, groups, "%")
        return text
