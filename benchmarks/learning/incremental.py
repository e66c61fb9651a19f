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
from collections.abc import Sequence
from pathlib import Path

from benchmarks.learning.class_metrics import PairOfOrder, interval_over_orders
from benchmarks.learning.order_runs import OrderRuns
from benchmarks.learning.orders import (
    class_order,
    read_steps,
    shown_orders,
    split_order,
    tuned_on,
)
from benchmarks.learning.tables import mean_and_spread, table, write_bars

ARMS = ("plain", "frozen", "random", "ours", "alone", "joint")
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
    add(
        "--runs-from",
        default="",
        help="name of another comparison of the same dataset and steps: its base models, and its "
        "runs of joint with the same settings, are used again",
    )
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
        self.orders = {
            number: OrderRuns(options, source, split_order(order, self.steps), self._folder(number))
            for numbers in self.numbers.values()
            for number in numbers
            if (order := class_order(dataset.names, number))
        }
        for order_runs in self.orders.values():
            order_runs.halved = halved

    def _folder(self, number: int) -> Path:
        return self.folder / f"order-{number}"

    def run(self) -> None:
        chosen = self.options.arms or ("random,ours,alone,joint" if self.options.quick else "")
        for number in self.numbers["tuning" if self.options.tune else "reported"]:
            for seed in range(self.options.seeds):
                for arm in (chosen or ",".join(ARMS)).split(","):
                    self.orders[number].arm(arm, seed)
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
            (number, seed): self.orders[number].stored(step, seed, split)
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
                    order_runs = self.orders[number]
                    classes = order_runs.classes(step, group)
                    if arm == "base" and group != "old":
                        continue
                    found = order_runs.metrics(run["key"], split)
                    values.append(found.mean(classes))
                    if "joint" in runs[number, seed]:
                        key = runs[number, seed]["joint"]["key"]
                        pairs.append(PairOfOrder(order_runs.metrics(key, split), found, classes))
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
