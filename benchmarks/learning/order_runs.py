"""The runs of one class order of the incremental benchmark."""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.learning.arms import changes_of, frozen, joint, ours, plain
from benchmarks.learning.bench import Bench, Figures, changes
from benchmarks.learning.class_metrics import ClassMetrics
from benchmarks.learning.phases import Phases, cut
from benchmarks.learning.pooled import keep_predictions, metric_of, predictions
from training.incremental.own_settings import ImageNumbers, OwnSettings, choose_settings
from training.planning.recipe import Recipe, TrainingRequest

ORDER = "order.json"  # in the folder of an order: dataset and classes
RATIO = 0.2  # of the arms that do not choose it


class OrderRuns:
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
        file = folder / ORDER
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

        made_with = self.made_with("base", 1)
        self._take_over(f"base-s{seed}", made_with)
        return self._measured(self.bench.run(f"base-s{seed}", work, made_with), 1)

    def _take_over(self, key: str, made_with: Mapping[str, Any]) -> None:
        """Copy a stored run of `--runs-from`, if it was made with the same settings."""
        if not self.options.runs_from or self.bench.known(key, made_with) is not None:
            return
        other = self.bench.folder.parents[1] / self.options.runs_from / self.bench.folder.name
        described = (other / ORDER).read_text() if (other / ORDER).is_file() else ""
        if described != (self.bench.folder / ORDER).read_text():
            raise SystemExit(f"{other} has no runs of this class order: see --runs-from.")
        found = Bench(other).stored(key)
        if found is not None and not changes(found["made_with"], made_with):
            shutil.copy(other / "runs" / f"{key}.json", self.bench.folder / "runs")

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
            balanced = kind == "ours" and self.own_settings(step).balanced
            means |= {"strength": asdict(strength_of(memory, balanced)), "balanced": balanced}
        if kind == "ours" and changes_of(arm).get("recovered", 1):
            from training.incremental.old_class_recovery import CHANCE, OFFSETS, SHARES

            means["recovered"] = {"shares": SHARES, "offsets": OFFSETS, "chance": CHANCE}
        return means

    def ratio(self, arm: str, step: int) -> float:
        """The share of old images in an epoch of an arm."""
        changes = changes_of(arm)
        if "ratio" in changes or not arm.startswith("ours"):
            return float(changes.get("ratio", RATIO))
        return self.own_settings(step).ratio

    def own_settings(self, step: int) -> OwnSettings:
        """The settings that the training chooses by itself in a step."""
        phases = self.phases(step)
        new, old = (len(phases.read(phase).splits["train"]) for phase in ("new", "old"))
        classes = len(phases.old_names), len(phases.new_names)
        numbers = ImageNumbers(new, min(old, self.memory(step)), *classes)
        return choose_settings(self.task, numbers, RATIO, True)

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
        made_with = self.made_with(arm, step)
        if arm == "joint":
            self._take_over(key, made_with)
        return self._measured(self.bench.run(key, work, made_with), step)

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
