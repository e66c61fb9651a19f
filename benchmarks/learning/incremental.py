"""Compares ways to learn new classes: how well a model knows the old and the new classes after it.

The classes are split into old and new ones (`phases`). A base model is trained on the old classes;
then each arm continues from this base model. By default every arm sees as many images as `joint`;
with `--budget epochs` every arm trains for as many epochs as `joint`, and sees fewer
images. The models are measured on the val split with all labels, with the serving engine: mAP50-95
(top-1 accuracy for classify), averaged over the old classes and over the new classes. Every arm is
measured after its last epoch, so no arm can choose its best epoch on the images that it is
measured on (a separate test split would halve small datasets). Only the base model is the one of
its best epoch. The classifier weights of new classes start with the same values in all arms except
`joint`. Arms:

  plain    fine-tuning on the new data
  frozen   like plain, with a frozen backbone
  random   like plain, and a fifth of each epoch is old images, chosen at random
  ours     training mode incremental with the same amount of old images
  alone    training mode incremental without old images
  joint    training on all data at once: the upper bound

Further arms are for studies. `ours-random`, `ours-k_centre` and `ours-hardness` choose the old
images in another way. `ours+scores=0.5+statistics=0` changes fields of
`training.incremental.losses.Strength`.

    python -m benchmarks.learning incremental --task classify --data GTSRB --old 15
    python -m benchmarks.learning incremental --data roadsigns/data.yaml --old 2 --model n
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.learning.bench import Bench, Figures
from benchmarks.learning.phases import Phases, cut
from benchmarks.learning.tables import mean_and_spread, table, write_bars
from training.planning.recipe import Recipe, TrainingRequest

ARMS = ("plain", "frozen", "random", "ours", "alone", "joint")
RATIO = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--name",
        default="",
        help="name of this comparison; default: made from the name of the dataset and the task",
    )
    add(
        "--old",
        default="2",
        help="old classes: how many of the first classes, or comma-separated class names (2)",
    )
    add("--model", default="n", help="model or YOLO size that the base model is trained from (n)")
    add("--weights", default="", help="weights file that the base model starts from")
    add(
        "--imgsz",
        type=int,
        default=0,
        help="image size in pixels (classify 64, other tasks 320)",
    )
    add("--batch", type=int, default=16, help="images per training step (16)")
    add("--base-epochs", type=int, default=0, help="epochs of the base model (30; 100 with --full)")
    add("--epochs", type=int, default=0, help="epochs of the arm joint (20; 60 with --full)")
    add(
        "--budget",
        choices=("pictures", "epochs"),
        default="pictures",
        help="which number is the same for every arm as for joint: that of the images seen "
        "(pictures) or that of the epochs; default: pictures",
    )
    add(
        "--memory",
        type=int,
        default=0,
        help="number of old images to replay, max_replay_samples (a fifth of the old images)",
    )
    add("--arms", default=",".join(ARMS), help="comma-separated arms to run (%(default)s)")
    add("--lr0", type=float, help="initial learning rate of the arms; default: that of the trainer")


def run(options: argparse.Namespace) -> None:
    setting = Setting(options)
    if not options.report:
        for seed in range(options.seeds):
            for arm in options.arms.split(","):
                setting.arm(arm, seed)
    print(setting.report())


class Setting:
    """One comparison: a dataset whose classes are split into phases, and the arms."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.task = options.task
        source = options.data.resolve() if options.data else None
        stem = (source.parent if source and source.is_file() else source or Path("drawn")).name
        self.name = options.name or f"{stem}-{self.task}"
        self.bench = Bench(options.out / "incremental" / self.name)
        old = int(options.old) if options.old.isdecimal() else options.old.split(",")
        self.imgsz = options.imgsz or (64 if self.task == "classify" else 320)
        source = source or drawn(self.task, self.bench.folder / "drawn", self.imgsz, options.full)
        self.phases: Phases = cut(source, self.task, old, self.bench.folder / "phases")
        self.base_epochs = options.base_epochs or (100 if options.full else 30)
        self.epochs = options.epochs or (60 if options.full else 20)

    def base(self, seed: int) -> Figures:
        """Train the base model on the old classes, or return its stored figures."""

        def work(folder: Path) -> Figures:
            recipe = self._recipe("old", seed, self.options.model, epochs=self.base_epochs)
            return self._train(recipe, folder)

        return self.bench.run(f"base-s{seed}", work, self.made_with("base"))

    def made_with(self, arm: str) -> dict[str, Any]:
        """The current settings of an arm."""
        given = self.options
        means: dict[str, Any] = {"imgsz": self.imgsz, "batch": given.batch}
        means |= {"model": given.model, "weights": Path(given.weights).name}
        means["base_epochs"] = self.base_epochs
        if arm == "base":
            return means
        means |= {"epochs": self.epochs_of(arm), "lr0": given.lr0, "published": "last epoch"}
        kind = re.split("[-+]", arm)[0]
        if kind in ("random", "ours"):
            means |= {"memory": self.memory, "ratio": RATIO}
        if kind in ("ours", "alone"):
            from training.modes.incremental import RATE, ROWS_RATE, strength_of

            means |= {"rate": ROWS_RATE if kind == "alone" else RATE}
            memory = self.memory if kind == "ours" else 0
            means |= {"strength": asdict(strength_of(memory))}
        return means

    def epochs_of(self, arm: str) -> int:
        """The epochs of an arm; by default chosen so that it sees as many images as `joint`."""
        from training.replay.buffer import share

        kind = re.split("[-+]", arm)[0]
        if self.options.budget == "epochs" or kind == "joint":
            return self.epochs
        everything, new = (len(self.phases.read(p).splits["train"]) for p in ("all", "new"))
        an_epoch = new + (share(new, RATIO) if kind in ("random", "ours") else 0)
        return max(1, round(self.epochs * everything / an_epoch))

    def arm(self, arm: str, seed: int) -> Figures:
        """Train an arm from the base model, or return its stored figures if this run exists."""
        base = self.base(seed)["model"]

        def work(folder: Path) -> Figures:
            named, *changes = arm.split("+")
            kind, _, detail = named.partition("-")
            if kind == "joint":
                recipe = self._recipe("all", seed, base, epochs=self.epochs)
                return self._train(recipe, folder, joint)
            replays = kind in ("random", "ours")
            options: dict[str, Any] = {
                "old_data": str(self.phases.path("old")) if replays else None,
                "replay_ratio": RATIO,
                "max_replay_samples": self.memory,
            }
            if kind == "random" or detail:
                options["rehearsal"] = detail or "random"
            recipe = self._recipe(
                "new",
                seed,
                base_model=base,
                mode="incremental",
                incremental=options,
                epochs=self.epochs_of(arm),
            )
            baselines = {"plain": plain, "frozen": frozen, "random": plain}
            trainer = baselines.get(kind, partial(ours, changes=changes))
            return self._train(recipe, folder, trainer)

        return self.bench.run(f"{arm}-s{seed}", work, self.made_with(arm))

    @property
    def memory(self) -> int:
        images = len(self.phases.read("old").splits["train"])
        return int(self.options.memory) or max(2, images // 5)

    def _recipe(self, phase: str, seed: int, model: str = "n", **fields: Any) -> Recipe:
        hyper: dict[str, Any] = {"seed": seed}
        if self.options.lr0 and model != self.options.model:
            hyper["lr0"] = self.options.lr0
        weights = self.options.weights if model == self.options.model else ""
        request = TrainingRequest(
            task=self.task,
            model=model,
            weights=weights or None,
            data=str(self.phases.path(phase)),
            name=f"{self.name}".lower().replace("_", "-"),
            imgsz=self.imgsz,
            batch=self.options.batch,
            patience=0,
            hyper=hyper,
            **fields,
        )
        return self.bench.plan(request)

    def _train(
        self, recipe: Recipe, folder: Path, trainer: Callable[..., Any] | None = None
    ) -> Figures:
        model, spent = self.bench.train(recipe, folder, trainer)
        report = self.bench.measure(model, self.phases.read("all"), "val", folder)
        name = "accuracy" if self.task == "classify" else "mAP50_95"
        classes = {row["name"]: row.get(name) or 0.0 for row in report["classes"]}
        figures: Figures = {"model": model, **spent, "classes": classes}
        for kind, names in (("old", self.phases.old_names), ("new", self.phases.new_names)):
            figures[kind] = sum(classes.get(n, 0.0) for n in names) / len(names)
        return figures

    def _runs(self, arm: str, seeds: Sequence[int]) -> list[Figures]:
        made_with = self.made_with(arm)
        found = [self.bench.known(f"{arm}-s{seed}", made_with) for seed in seeds]
        return [run for run in found if run]

    def report(self) -> str:
        """The table of all stored runs, as Markdown.

        The table is also written to the benchmark's folder, and so is a bar chart.
        """
        rows, groups = [], {}
        on_file = self.bench.arms
        for arm in dict.fromkeys(name for name in ("base", *ARMS, *on_file) if name in on_file):
            runs = self._runs(arm, on_file[arm])
            old, new = [run["old"] for run in runs], [run["new"] for run in runs]
            seconds = [run["seconds"] for run in runs]
            cells = [mean_and_spread(old), mean_and_spread(new)]
            rows.append([arm, *cells, mean_and_spread(seconds, 1.0, 0), str(len(runs))])
            groups[arm] = {"old classes": old, "new classes": new}
            where = runs[-1]["machine"]
        metric = "accuracy" if self.task == "classify" else "mAP50-95"
        text = (
            f"### {self.name}: {len(self.phases.old_names)} + {len(self.phases.new_names)} "
            f"classes\n\n{metric} on val in percent, {self.memory} old images to replay, {where}"
            "\n\n"
        )
        text += table(["arm", "old classes", "new classes", "seconds", "runs"], rows)
        (self.bench.folder / "incremental.md").write_text(text)
        write_bars(self.bench.folder / "incremental.png", self.name, groups, f"{metric}, %")
        return text


def joint(recipe: Recipe, job: Any) -> Any:
    """Train in mode regular."""
    from training.incremental.epoch_selection import LastEpoch
    from training.prepare import prepare_training
    from training.yolo import trainer as yolo
    from training.yolo.run import Run

    run = Run(recipe, job, *prepare_training(recipe, job))
    run.extensions = (LastEpoch(),)
    return yolo.train(run)


def plain(recipe: Recipe, job: Any) -> Any:
    """Train with the extended head and the replay of mode incremental, without retention loss."""
    from settings import get_settings
    from training.incremental.epoch_selection import LastEpoch
    from training.modes.incremental import set_up
    from training.yolo import trainer as yolo
    from training.yolo.run import Run

    setup = set_up(recipe, job, get_settings())
    run = Run(recipe, job, setup.dataset, setup.start, samples=setup.samples)
    run.extensions = (LastEpoch(), setup.replay)
    return yolo.train(run)


def ours(recipe: Recipe, job: Any, changes: Sequence[str]) -> Any:
    """Train in mode incremental, with `changes` of `Strength`; the last epoch is published."""
    from settings import get_settings
    from training.modes.incremental import fit, set_up

    setup = set_up(recipe, job, get_settings())
    pairs = (change.split("=") for change in changes)
    given = {name: float(value) for name, value in pairs}
    strength = replace(setup.strength, **given)  # type: ignore[arg-type]
    return fit(replace(setup, strength=strength, criteria=None), job)


def frozen(recipe: Recipe, job: Any) -> Any:
    """Train like `plain`, with a frozen backbone."""
    from settings import get_settings
    from training.incremental.epoch_selection import LastEpoch
    from training.modes.incremental import set_up
    from training.yolo import trainer as yolo
    from training.yolo.run import Run

    setup = set_up(recipe, job, get_settings())
    run = Run(recipe, job, setup.dataset, setup.start, samples=setup.samples)
    layers = len(setup.start.architecture["backbone"])

    def freeze(trainer: Any) -> None:
        trainer.freeze_layer_names = [*(f"model.{i}." for i in range(layers)), ".dfl"]
        for name, parameter in trainer.model.named_parameters():
            held = any(part in name for part in trainer.freeze_layer_names)
            parameter.requires_grad = not held and parameter.dtype.is_floating_point

    run.hooks = {"on_pretrain_routine_end": freeze}
    run.extensions = (LastEpoch(), setup.replay)
    return yolo.train(run)


def drawn(task: str, folder: Path, imgsz: int, full: bool) -> Path:
    """Draw a dataset, unless `folder` has it already: street scenes, or close-ups of signs."""
    from synthetic.scenes import write_classification_set, write_detection_set

    done = folder / "done"
    images = 4000 if full else 400
    if not done.is_file():
        if task == "classify":
            write_classification_set(folder, images, seed=0, size=imgsz)
        else:
            write_detection_set(folder, images, seed=0, size=imgsz)
        done.touch()
    return folder if task == "classify" else folder / "data.yaml"
