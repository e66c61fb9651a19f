"""Compares ways to train a small student model.

All arms of a seed start from the same fresh weights, and train for the same number of epochs on
the same images. All students are measured on a separate test split, with the serving engine:
mAP50-95 (top-1 accuracy for classify). Differences between arms are means over the seeds, with a
95 % interval from a paired bootstrap over the test images.

  alone    training without a teacher
  longer   like alone, for as much time as `ours` takes (1.5 times the epochs)
  builtin  Ultralytics' distill_model with Ultralytics' default weight of the distillation loss
           (not for classify)
  ours     training mode distillation with its default values

`ours:KEY=VALUE:…` is `ours` with other values of some fields of `Tuning` or `DistillationOptions`,
for example `ours:last=0.1:cls_weight=0`. `--study` runs the arms from which the default values
were chosen. The file of a run records the settings it was made with. If these settings are
different now, the benchmark stops with an error instead of using the file. The default teachers
are the starter models, trained on far more (drawn) images than the student gets. For `segment`,
which has no starter model, the benchmark trains a teacher first.

    python -m benchmarks.learning distillation --seeds 3
    python -m benchmarks.learning distillation --task classify --seeds 3
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.learning.bench import Bench, Figures
from benchmarks.learning.pooled import gain, measured, metric_of
from benchmarks.learning.students import builtin, drawn, narrow
from benchmarks.learning.tables import mean_and_spread, table, write_bars
from models_store.seed import seed as seed_starters
from training.distillation.criterion import TUNING, Tuning
from training.planning.options import DistillationOptions
from training.planning.recipe import Recipe, TrainingRequest

ARMS = ("alone", "longer", "builtin", "ours")
LONGER = 1.5  # processor time of an epoch with a teacher, relative to one without
STUDY = ("alone", "ours", "ours:last=0.1", "ours:cls=1:box=1:feat=1")
TEACHERS = {"detect": "traffic_signs_yolov8n", "classify": "traffic_signs_mobilenet_v2"}
RATE = 2e-3  # initial learning rate (lr0) of a model that starts from fresh weights


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--name",
        default="",
        help="name of this comparison; default: made from the name of the dataset, the task, the "
        "image size and the epochs",
    )
    add("--teacher", default="", help="model id or weights file of the teacher")
    add(
        "--width",
        type=float,
        default=0.125,
        help="width multiple of the student model (0.125); that of yolov8n is 0.25",
    )
    add(
        "--images",
        type=int,
        default=0,
        help="number of images to draw for training, without --data (1000; 8000 with --full)",
    )
    add(
        "--test-images",
        type=int,
        default=1200,
        help="number of images to draw for the test split, without --data (1200)",
    )
    add(
        "--imgsz",
        type=int,
        default=0,
        help="image size in pixels (detect 160, segment 96, classify 64)",
    )
    add("--batch", type=int, default=16, help="images per training step (16)")
    add("--epochs", type=int, default=0, help="epochs of each student (12; 60 with --full)")
    add(
        "--teacher-epochs",
        type=int,
        default=0,
        help="epochs of the teacher, if the benchmark trains it; default: 4 times those of the "
        "student",
    )
    add("--arms", default=",".join(ARMS), help="comma-separated arms to run (%(default)s)")
    add(
        "--study",
        action="store_true",
        help="run the arms from which the default values were chosen, instead of --arms",
    )


def run(options: argparse.Namespace) -> None:
    setting = Setting(options)
    arms = STUDY if options.study else options.arms.split(",")
    if not options.report:
        for seed in range(options.seeds):
            for arm in arms:
                if arm != "builtin" or options.task != "classify":
                    setting.arm(arm, seed)
    print(setting.report())


class Setting:
    """One comparison: a dataset, a teacher, and the students that are trained on that dataset."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.task = options, options.task
        self.metric = metric_of(self.task)
        self.imgsz = options.imgsz or {"classify": 64, "segment": 96, "detect": 160}[self.task]
        self.epochs = options.epochs or (60 if options.full else 12)
        source = options.data.resolve() if options.data else None
        stem = (source.parent if source and source.is_file() else source or Path("drawn")).name
        name = options.name or f"{stem}-{self.task}-{self.imgsz}px-{self.epochs}e"
        self.bench = Bench(options.out / "distillation" / name)
        self.name = name
        images = options.images or (8000 if options.full else 1000)
        counts = {"train": images, "val": max(64, images // 20), "test": options.test_images}
        self.source = source or drawn(self.task, self.bench.folder / "drawn", self.imgsz, counts)

    @property
    def teacher(self) -> str:
        """The id or path of the teacher.

        A default teacher that does not exist yet is created first: a starter model is imported,
        the teacher for `segment` is trained.
        """
        if self.options.teacher:
            return str(self.options.teacher)
        if self.task in TEACHERS:
            seed_starters(self.bench.registry)
            return TEACHERS[self.task]

        def work(folder: Path) -> Figures:
            scale = "s" if self.options.full else "n"
            recipe = self._recipe(model=scale, epochs=self._teacher_epochs, seed=99)
            return self._train(recipe, folder, "teacher")

        return str(self.bench.run("teacher", work, self._teacher_made_with)["model"])

    @property
    def _teacher_made_with(self) -> dict[str, Any]:
        return {"epochs": self._teacher_epochs, "batch": self.options.batch}

    @property
    def _teacher_epochs(self) -> int:
        return int(self.options.teacher_epochs) or 4 * self.epochs

    def arm(self, arm: str, seed: int) -> Figures:
        """Train and measure one student, or return its stored figures if this run exists."""

        def work(folder: Path) -> Figures:
            return self._student(arm, seed, folder)

        return self.bench.run(f"{arm}-s{seed}", work, self.made_with(arm))

    def made_with(self, arm: str) -> dict[str, Any]:
        """The current settings of an arm, except those that are part of the folder's name."""
        given = self.options
        means: dict[str, Any] = {"width": given.width, "batch": given.batch}
        if arm == "longer":
            means["epochs"] = self.epochs_of(arm)
        elif arm != "alone":
            means["teacher"] = given.teacher or TEACHERS.get(self.task, "made here")
        if arm.startswith("ours"):
            tuning, options = asked(arm)
            means |= {"tuning": asdict(tuning), "options": options.model_dump(exclude={"teacher"})}
        return means

    def epochs_of(self, arm: str) -> int:
        return round(LONGER * self.epochs) if arm == "longer" else self.epochs

    def _student(self, arm: str, seed: int, folder: Path) -> Figures:
        student = narrow(self.bench, self.task, self._names, self.options.width, seed)
        if arm in ("alone", "longer"):
            recipe = self._recipe(student, seed, epochs=self.epochs_of(arm))
            return self._train(recipe, folder, f"{arm}-s{seed}")
        tuning, options = asked(arm)
        options = options.model_copy(update={"teacher": self.teacher})
        recipe = self._recipe(student, seed, mode="distillation", distillation=options)
        from training.modes import distillation

        trainer = builtin if arm == "builtin" else partial(distillation.train, tuning=tuning)
        return self._train(recipe, folder, f"{arm}-s{seed}", trainer)

    @property
    def _names(self) -> tuple[str, ...]:
        return self._dataset.names

    @property
    def _dataset(self) -> Any:
        from dataset.inspection import check

        return check(self.source, self.task, [Path("/")])

    def _recipe(self, model: str, seed: int, **given: Any) -> Recipe:
        hyper: dict[str, Any] = {"seed": seed, "optimizer": "AdamW", "lr0": RATE, "momentum": 0.9}
        if self.task != "classify":
            hyper["mosaic"] = 0.0 if not self.options.full else 1.0
        return self.bench.plan(
            TrainingRequest.model_validate(
                {
                    "task": self.task,
                    "model": model,
                    "data": str(self.source),
                    "name": "bench-student",
                    "imgsz": self.imgsz,
                    "epochs": self.epochs,
                    "batch": self.options.batch,
                    "patience": 0,
                    "hyper": hyper,
                    **given,
                }
            )
        )

    def _train(self, recipe: Recipe, folder: Path, key: str, trainer: Any = None) -> Figures:
        model, spent = self.bench.train(recipe, folder, trainer)
        figures = measured(self.bench, model, self._dataset, folder, key)
        return {**figures, **spent}

    def report(self) -> str:
        """The table of all stored runs, as Markdown.

        The table is also written to the benchmark's folder, and so is a bar chart.
        """
        rows, groups, where, images = [], {}, "", 0
        on_file = self.bench.arms
        for arm in dict.fromkeys(name for name in (*ARMS, *on_file) if name in on_file):
            made_with = self.made_with(arm)
            found = {s: self.bench.known(f"{arm}-s{s}", made_with) for s in on_file[arm]}
            runs = {seed: run for seed, run in found.items() if run}
            values = [run["figures"][self.metric] for run in runs.values()]
            seconds = [run["cpu_seconds"] for run in runs.values() if "cpu_seconds" in run]
            others = ("alone", "longer", "builtin")
            gains = [gain(self.bench, arm, other, list(runs), self.metric) for other in others]
            rows.append([arm, mean_and_spread(values), *gains])
            rows[-1] += [mean_and_spread(seconds, 1.0, 0), str(len(runs))]
            groups[arm] = {self.metric: values}
            where = next(iter(runs.values()))["machine"]
            images = round(next(iter(runs.values()))["figures"].get("images", 0))
        known = self.bench.known("teacher", self._teacher_made_with)
        said = f", teacher {100 * known['figures'][self.metric]:.1f}" if known else ""
        text = (
            f"### {self.name}: student of width {self.options.width:g}\n\n{self.metric} on "
            f"{images} test images in percent{said}; gains in percentage points with 95 % "
            f"intervals of a paired bootstrap; {where}\n\n"
        )
        header = [
            "arm",
            self.metric,
            *(f"gain over {other}" for other in ("alone", "longer", "builtin")),
        ]
        header += ["CPU s", "runs"]
        text += table(header, rows)
        (self.bench.folder / "distillation.md").write_text(text)
        if groups:
            write_bars(self.bench.folder / "distillation.png", self.name, groups, "%")
        return text


def asked(arm: str) -> tuple[Tuning, DistillationOptions]:
    """The tuning and the options that the name of an arm, `ours:KEY=VALUE:…`, stands for."""
    tuned = {field.name for field in fields(Tuning)}
    pairs = [text.split("=") for text in arm.split(":")[1:]]
    tuning = replace(TUNING, **{key: float(value) for key, value in pairs if key in tuned})
    given = {key: json.loads(value) for key, value in pairs if key not in tuned}
    return tuning, DistillationOptions.model_validate(given)
