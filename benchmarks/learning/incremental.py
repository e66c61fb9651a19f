"""Compares ways to learn new classes: how well a model knows the old and the new classes after it.

The classes come in a random order (`orders`), and are learned in steps: `--steps 15+5` trains a
base model on the first 15 classes of the order, then each arm learns the 5 others; with `10+5+5`
each arm learns two times, from its own model of the step before. By default every arm sees as many
images as `joint`; with `--budget epochs` every arm trains for as many epochs as `joint`, and sees
fewer images. Every arm is measured after its last epoch, with the serving engine: mAP50-95 (top-1
accuracy for classify), averaged over the old classes, over the new ones, and over all. Only the
base model is the one of its best epoch. The classifier weights of new classes start with the same
values in all arms except `joint`.

Settings are chosen on the first `--tuning-orders` orders (`--tune` runs these), and are reported on
the `--orders` orders that follow. Choices are made on `val`, and the reported orders are measured
on `test`. A dataset without test split has its val split halved if it is large enough. Gains are
means over the orders, with a 95 % interval from a paired bootstrap over images and orders. Arms:

  plain    fine-tuning on the new data
  frozen   like plain, with a frozen backbone
  random   like plain, and a fifth of each epoch is old images, chosen at random
  ours     training mode incremental with its own choice of settings
  alone    training mode incremental without old images
  joint    training on all data at once: the upper bound

Further arms are for studies. `ours-random`, `ours-k_centre` and `ours-hardness` choose the old
images in another way. `ours+scores=0.5+statistics=0` changes fields of
`training.incremental.losses.Strength`; `ratio` is the share of old images, `rate` the learning
rate, `recovered=0` publishes what was trained although old classes were lost on `val`, and
`prepared=0` starts with random rows for the new classes.

    python -m benchmarks.learning incremental --task classify --data GTSRB --steps 15+5 --tracks
    python -m benchmarks.learning incremental --task classify --data GTSRB --steps 10+5+5 --tracks
    python -m benchmarks.learning incremental --data roadsigns/data.yaml --steps 2+2
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.learning.arms import changes_of, frozen, joint, ours, plain
from benchmarks.learning.bench import Bench, Figures
from benchmarks.learning.class_metrics import ClassMetrics, PairOfOrder, interval_over_orders
from benchmarks.learning.orders import (
    class_order,
    read_steps,
    shown_orders,
    split_order,
    tuned_on,
)
from benchmarks.learning.phases import Phases, cut
from benchmarks.learning.pooled import keep_predictions, metric_of, predictions
from benchmarks.learning.tables import mean_and_spread, table, write_bars
from training.planning.recipe import Recipe, TrainingRequest

ARMS = ("plain", "frozen", "random", "ours", "alone", "joint")
RATIO = 0.2  # of the arms that do not choose it
HALVED = 200  # images of val from which it is halved
GROUPS = ("old", "new", "all")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--name",
        default="",
        help="name of this comparison; default: made from the name of the dataset, the task and "
        "the steps",
    )
    add(
        "--steps",
        default="",
        help="numbers of classes: of the base model, then of each step, such as 15+5 or 10+5+5 "
        "(three quarters + the rest)",
    )
    add(
        "--orders",
        type=int,
        default=0,
        help="number of class orders that are reported (5; 2 with --quick)",
    )
    add(
        "--tuning-orders",
        type=int,
        default=2,
        help="number of class orders on which settings are chosen; they come first (2)",
    )
    add("--tune", action="store_true", help="run the orders on which settings are chosen")
    add(
        "--tracks",
        action="store_true",
        help="images are named TRACK_FRAME; frames of a track stay together in the split and in "
        "the bootstrap",
    )
    add(
        "--quick",
        action="store_true",
        help="use small default values: 2 orders, 20 epochs of the base model, 8 of joint, and the "
        "arms random, ours, alone, joint",
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
    add("--new-images", type=int, default=0, help="number of new training images of a step (all)")
    add("--arms", default="", help=f"comma-separated arms to run ({','.join(ARMS)})")
    add("--lr0", type=float, help="initial learning rate of the arms; default: that of the trainer")


def run(options: argparse.Namespace) -> None:
    comparison = Comparison(options)
    if not options.report:
        comparison.run()
    print(comparison.report())


class Comparison:
    """The runs of several class orders, and their tables."""

    def __init__(self, options: argparse.Namespace) -> None:
        from dataset.inspection import check

        self.options, self.task = options, options.task
        source = options.data.resolve() if options.data else None
        stem = (source.parent if source and source.is_file() else source or Path("drawn")).name
        folder = options.out / "incremental"
        imgsz = options.imgsz or (64 if self.task == "classify" else 320)
        source = source or drawn(
            self.task, folder / f"drawn-{self.task}-{imgsz}", imgsz, options.full
        )
        dataset = check(source, self.task, [Path("/")])
        self.steps = read_steps(options.steps, len(dataset.names))
        shown = "+".join(map(str, self.steps))
        self.name = options.name or f"{stem}-{self.task}-{shown}"
        self.folder = folder / self.name
        halved = "test" not in dataset.splits and len(dataset.splits["val"]) >= HALVED
        self.unseen = "test" if halved or "test" in dataset.splits else "val"
        count = options.orders or (2 if options.quick else 5)
        first = options.tuning_orders
        tuned_on(self.folder, first)
        self.numbers = {"tuning": range(first), "reported": range(first, first + count)}
        self.settings = {
            number: Setting(options, source, split_order(order, self.steps), self._folder(number))
            for numbers in self.numbers.values()
            for number in numbers
            if (order := class_order(dataset.names, number))
        }
        for setting in self.settings.values():
            setting.halved = halved

    def _folder(self, number: int) -> Path:
        return self.folder / f"order-{number}"

    def run(self) -> None:
        chosen = self.options.arms or ("random,ours,alone,joint" if self.options.quick else "")
        for number in self.numbers["tuning" if self.options.tune else "reported"]:
            for seed in range(self.options.seeds):
                for arm in (chosen or ",".join(ARMS)).split(","):
                    self.settings[number].arm(arm, seed)
            print(self.report(), flush=True)

    def report(self) -> str:
        """The tables of all stored runs, as Markdown.

        They are also written to the benchmark's folder, and so is a bar chart.
        """
        metric = "accuracy" if self.task == "classify" else "mAP50-95"
        text = (
            f"### {self.name}: {' + '.join(map(str, self.steps))} classes\n\n"
            f"{metric} in percent: mean and standard deviation over the class orders; gains over "
            "joint in points, with 95 % intervals of a paired bootstrap over images and orders.\n"
        )
        shown: dict[str, dict[str, Sequence[float]]] = {}
        for kind, split in (("tuning", "val"), ("reported", self.unseen)):
            for step in range(1, len(self.steps)):
                bars = shown if kind == "reported" else {}
                rows, orders = self._rows(self.numbers[kind], step, split, bars)
                if not rows:
                    continue
                text += f"\n{shown_orders(orders)} ({kind}) on {split}"
                text += f", step {step} of {len(self.steps) - 1}:\n\n"
                heads = [part for group in GROUPS for part in (group, f"{group} over joint")]
                text += table(["arm", *heads, "CPU s", "orders"], rows)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "incremental.md").write_text(text)
        if shown:
            write_bars(self.folder / "incremental.png", self.name, shown, f"{metric}, %")
        return text

    def _rows(
        self,
        numbers: Sequence[int],
        step: int,
        split: str,
        shown: dict[str, dict[str, Sequence[float]]],
    ) -> tuple[list[list[str]], list[int]]:
        """The rows of the arms, and the orders that have runs of a step.

        The rows of the last step are also added to `shown`.
        """
        runs = {
            (number, seed): self.settings[number].stored(step, seed, split)
            for number in numbers
            for seed in range(self.options.seeds)
        }
        arms = dict.fromkeys(arm for found in runs.values() for arm in found)
        rows = []
        for arm in dict.fromkeys((*(a for a in ("base", *ARMS) if a in arms), *arms)):
            have = {key: found[arm] for key, found in runs.items() if arm in found}
            cells: list[str] = []
            means = dict[str, Sequence[float]]()
            for group in GROUPS:
                values, pairs = list[float](), list[PairOfOrder]()
                for (number, seed), run in have.items():
                    setting = self.settings[number]
                    classes = setting.classes(step, group)
                    if arm == "base" and group != "old":
                        continue
                    found = setting.metrics(run["key"], split)
                    values.append(found.mean(classes))
                    if "joint" in runs[number, seed]:
                        key = runs[number, seed]["joint"]["key"]
                        pairs.append(PairOfOrder(setting.metrics(key, split), found, classes))
                means[f"{group} classes"] = values
                over = ""
                if pairs and arm not in ("joint", "base"):
                    gain, low, high = (100 * x for x in interval_over_orders(pairs))
                    over = f"{gain:+.1f} ({low:+.1f} … {high:+.1f})"
                cells += [mean_and_spread(values), over]
            seconds = [run["cpu_seconds"] for run in have.values()]
            orders = len({number for number, _ in have})
            rows.append([arm, *cells, mean_and_spread(seconds, 1.0, 0), str(orders)])
            if step == len(self.steps) - 1:
                shown[arm] = means
        return rows, sorted({number for (number, _), found in runs.items() if found})


class Setting:
    """One class order: the phases of its steps, and the runs of the arms.

    Args:
        options: The options of the command.
        source: The dataset.
        order: The classes of the base model, and those of each step.
        folder: Where runs and phases are stored.
    """

    halved = False

    def __init__(
        self,
        options: argparse.Namespace,
        source: Path,
        order: tuple[tuple[str, ...], ...],
        folder: Path,
    ) -> None:
        self.options, self.source, self.order = options, source, order
        self.task = options.task
        self.bench = Bench(folder)
        described = json.dumps({"source": str(source), "order": order})
        file = folder / "order.json"
        if file.is_file() and file.read_text() != described:
            raise SystemExit(f"{folder} is of another class order: give another --name.")
        file.write_text(described)
        self.imgsz = options.imgsz or (64 if self.task == "classify" else 320)
        self.base_epochs = options.base_epochs or (
            100 if options.full else 20 if options.quick else 30
        )
        self.epochs = options.epochs or (60 if options.full else 8 if options.quick else 20)
        self._phases: dict[int, Phases] = {}
        self._metrics: dict[tuple[str, str], ClassMetrics] = {}

    def phases(self, step: int) -> Phases:
        """The datasets of a step, from 1."""
        if step not in self._phases:
            before = [name for names in self.order[:step] for name in names]
            self._phases[step] = cut(
                self.source,
                self.task,
                before,
                self.bench.folder / f"phases-{step}",
                new=self.order[step],
                new_images=self.options.new_images,
                halved=self.halved,
                tracks=self.options.tracks,
            )
        return self._phases[step]

    def classes(self, step: int, group: str) -> tuple[str, ...]:
        """The old classes of a step, its new ones, or all of both."""
        before = tuple(name for names in self.order[:step] for name in names)
        return {"old": before, "new": self.order[step], "all": before + self.order[step]}[group]

    def base(self, seed: int) -> Figures:
        """Train the base model on the first classes, or return its stored figures."""

        def work(folder: Path) -> Figures:
            recipe = self._recipe(1, "old", seed, self.options.model, epochs=self.base_epochs)
            return self._train(recipe, folder)

        return self._measured(self.bench.run(f"base-s{seed}", work, self.made_with("base", 1)), 1)

    def made_with(self, arm: str, step: int) -> dict[str, Any]:
        """The current settings of an arm."""
        given = self.options
        means: dict[str, Any] = {"imgsz": self.imgsz, "batch": given.batch}
        means |= {"model": given.model, "weights": Path(given.weights).name}
        means["base_epochs"] = self.base_epochs
        if arm == "base":
            return means
        means |= {"epochs": self.epochs_of(arm, step), "lr0": given.lr0, "published": "last epoch"}
        kind = re.split("[-+]", arm)[0]
        if given.new_images:
            means["new_images"] = given.new_images
        if kind in ("random", "ours"):
            means |= {"memory": self.memory(step), "ratio": self.ratio(arm, step)}
        if kind in ("ours", "alone"):
            from training.modes.incremental import RATE, ROWS_RATE, strength_of

            means |= {"rate": ROWS_RATE if kind == "alone" else RATE}
            memory = self.memory(step) if kind == "ours" else 0
            means |= {"strength": asdict(strength_of(memory))}
        if kind == "ours" and changes_of(arm).get("recovered", 1):
            from training.incremental.old_class_recovery import OFFSETS, SHARES

            means["recovered"] = {"shares": SHARES, "offsets": OFFSETS}
        return means

    def ratio(self, arm: str, step: int) -> float:
        """The share of old images in an epoch of an arm."""
        from training.incremental.own_settings import ImageNumbers, choose_settings

        changes = changes_of(arm)
        if "ratio" in changes or not arm.startswith("ours"):
            return float(changes.get("ratio", RATIO))
        phases = self.phases(step)
        new, old = (len(phases.read(phase).splits["train"]) for phase in ("new", "old"))
        classes = len(phases.old_names), len(phases.new_names)
        numbers = ImageNumbers(new, min(old, self.memory(step)), *classes)
        return choose_settings(self.task, numbers, RATIO, True).ratio

    def epochs_of(self, arm: str, step: int) -> int:
        """The epochs of an arm; by default chosen so that it sees as many images as `joint`."""
        from training.replay.buffer import share

        kind = re.split("[-+]", arm)[0]
        if self.options.budget == "epochs" or kind == "joint":
            return self.epochs
        phases = self.phases(step)
        everything, new = (len(phases.read(p).splits["train"]) for p in ("all", "new"))
        replayed = share(new, self.ratio(arm, step)) if kind in ("random", "ours") else 0
        return max(1, round(self.epochs * everything / (new + replayed)))

    def arm(self, arm: str, seed: int) -> Figures:
        """Run all steps of an arm, or return the stored figures of the last one."""
        made = self.base(seed)
        for step in range(1, len(self.order)):
            made = self._step(arm, step, seed, made["model"])
        return made

    def _step(self, arm: str, step: int, seed: int, base: str) -> Figures:
        """Train an arm from the model `base`, or return its stored figures if this run exists."""

        def work(folder: Path) -> Figures:
            kind, _, detail = arm.partition("+")[0].partition("-")
            changes = changes_of(arm)
            if kind == "joint":
                recipe = self._recipe(step, "all", seed, base, epochs=self.epochs)
                return self._train(recipe, folder, joint)
            replays = kind in ("random", "ours")
            options: dict[str, Any] = {
                "old_data": str(self.phases(step).path("old")) if replays else None,
                "replay_ratio": changes.get("ratio", RATIO),
                "max_replay_samples": self.memory(step),
            }
            if kind == "random" or detail:
                options["rehearsal"] = detail or "random"
            recipe = self._recipe(
                step,
                "new",
                seed,
                base_model=base,
                mode="incremental",
                incremental=options,
                epochs=self.epochs_of(arm, step),
                hyper={"optimizer": "AdamW", "lr0": changes["rate"]} if "rate" in changes else {},
            )
            baselines = {"plain": plain, "frozen": frozen, "random": plain}
            trainer = baselines.get(kind, partial(ours, changes=changes))
            return self._train(recipe, folder, trainer)

        key = f"{arm}-s{seed}" if len(self.order) == 2 else f"{arm}@{step}-s{seed}"
        return self._measured(self.bench.run(key, work, self.made_with(arm, step)), step)

    def memory(self, step: int) -> int:
        """Maximum number of old images to replay."""
        images = len(self.phases(step).read("old").splits["train"])
        return int(self.options.memory) or max(2, images // 5)

    def _recipe(self, step: int, phase: str, seed: int, model: str = "n", **fields: Any) -> Recipe:
        hyper: dict[str, Any] = {"seed": seed, **fields.pop("hyper", {})}
        if self.options.lr0 and model != self.options.model:
            hyper["lr0"] = self.options.lr0
        weights = self.options.weights if model == self.options.model else ""
        request = TrainingRequest(
            task=self.task,
            model=model,
            weights=weights or None,
            data=str(self.phases(step).path(phase)),
            name=re.sub(r"[^a-z0-9-]", "-", f"bench-{self.bench.folder.parent.name}".lower()),
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
        return {"model": model, **spent}

    def _measured(self, made: Figures, step: int) -> Figures:
        """The run, whose predictions on all splits but train are stored now."""
        dataset = self.phases(step).read("all")
        for split in dataset.splits:
            key = f"{made['key']}.{split}"
            if split != "train" and not predictions(self.bench, key).is_file():
                folder = self.bench.folder / "scratch" / "measure"
                keep_predictions(self.bench, made["model"], dataset, split, folder, key)
        return made

    def metrics(self, key: str, split: str) -> ClassMetrics:
        """The metrics of a stored run."""
        if (key, split) not in self._metrics:
            file = predictions(self.bench, f"{key}.{split}")
            self._metrics[key, split] = ClassMetrics.load(
                file, metric_of(self.task), self.options.tracks
            )
        return self._metrics[key, split]

    def stored(self, step: int, seed: int, split: str) -> dict[str, Figures]:
        """Arm → its stored run of a step, if it is measured on a split.

        A run that was interrupted before is measured when its arm is run again.
        """
        found: dict[str, Figures] = {}
        for stem, seeds in self.bench.arms.items():
            arm, _, at = stem.partition("@")
            if seed not in seeds or (at and int(at) != step):
                continue
            run = self.bench.known(f"{stem}-s{seed}", self.made_with(arm, step))
            measured = predictions(self.bench, f"{stem}-s{seed}.{split}").is_file()
            if run and measured and (arm != "base" or step == 1):
                found[arm] = run
        return found


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
