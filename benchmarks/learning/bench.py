"""Stores the runs of a benchmark; runs and measures one training."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from database import Database
from dataset.dataset import Dataset
from models_store.registry import Registry
from settings import Settings, get_settings
from training.planning.plan import plan
from training.planning.recipe import Recipe, TrainingRequest
from training.publish import Trained, publish

Figures = dict[str, Any]


@dataclass
class BenchJob:
    """A job handle that works without the job table; its log is a file in `folder`."""

    folder: Path
    resuming: bool = False
    stop_requested: bool = False
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def report(
        self,
        *,
        fraction: float,
        epoch: int,
        epochs: int,
        metrics: Mapping[str, float] = {},
        batch: int = 0,
        batches: int = 0,
    ) -> None:
        """Do nothing: nobody watches the progress."""

    def advance(self, fraction: float, metrics: Mapping[str, float] = {}) -> None:
        """Do nothing: nobody watches the progress."""

    def log(self, message: str) -> None:
        with (self.folder / "log").open("a", encoding="utf-8") as file:
            print(message, file=file)

    def replace_recipe(self, recipe: Mapping[str, Any], shown: Mapping[str, Any]) -> None:
        """Do nothing: an interrupted run is not resumed; it starts again."""

    def check(self) -> None:
        """Do nothing: nobody cancels this job."""

    def finished_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Do nothing: the log has the metrics of each epoch."""

    def checkpointed(self, epoch: int, batch: int = 0) -> None:
        """Do nothing: an interrupted run is not resumed; it starts again."""

    def graceful_stop(self) -> AbstractContextManager[None]:
        return nullcontext()


class Bench:
    """The runs of one benchmark, each a JSON file in `folder/runs`."""

    def __init__(self, folder: Path) -> None:
        from models_store import ultralytics_env

        ultralytics_env.prepare()
        self.folder = folder
        (folder / "runs").mkdir(parents=True, exist_ok=True)

    @cached_property
    def settings(self) -> Settings:
        return get_settings()

    @cached_property
    def registry(self) -> Registry:
        return Registry(Database(self.settings))

    def run(
        self, key: str, work: Callable[[Path], Figures], made_with: Mapping[str, Any]
    ) -> Figures:
        """The figures of a run: the stored ones, or else those that `work` returns now.

        Args:
            key: The name of the run.
            work: Called with a scratch folder; returns the figures.
            made_with: All settings and default values that the name does not contain; they are
                recorded in the file.

        Raises:
            SystemExit: The stored run was made with other settings.
        """
        if (known := self.known(key, made_with)) is not None:
            return known
        print(f"{datetime.now(UTC):%H:%M:%S} {key} …", flush=True)
        scratch = self.folder / "scratch" / key
        scratch.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        figures = work(scratch) | {
            "key": key,
            "made_with": dict(made_with),
            "wall_seconds": round(time.perf_counter() - began, 1),
            "machine": machine(),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        temporary = self._file(key).with_suffix(".writing")
        temporary.write_text(json.dumps(figures, indent=1))
        os.replace(temporary, self._file(key))
        shutil.rmtree(scratch, ignore_errors=True)
        print(f"{datetime.now(UTC):%H:%M:%S} {key}: {shown(figures)}", flush=True)
        return figures

    def known(self, key: str, made_with: Mapping[str, Any]) -> Figures | None:
        """The stored figures of a run; None if there are none.

        Raises:
            SystemExit: The stored run was made with settings other than `made_with`.
        """
        if (found := self.stored(key)) is None:
            return None
        if changed := changes(found.get("made_with", {}), made_with):
            raise SystemExit(
                f"{self._file(key)} was made with settings that are different now: "
                f"{', '.join(changed)}. Delete this file to repeat the run, rename it after an arm "
                "with these settings, or give another --name."
            )
        return found

    def stored(self, key: str) -> Figures | None:
        """The stored figures of a run, whatever it was made with; None if there are none."""
        try:
            found: Figures = json.loads(self._file(key).read_text())
        except (OSError, ValueError):
            return None
        return found

    @property
    def arms(self) -> dict[str, list[int]]:
        """Arm → the seeds of its stored runs, which are named `<arm>-s<seed>`."""
        found: dict[str, list[int]] = {}
        for file in sorted((self.folder / "runs").glob("*-s*.json")):
            arm, _, seed = file.stem.rpartition("-s")
            if seed.isdecimal():
                found.setdefault(arm, []).append(int(seed))
        return {arm: sorted(seeds) for arm, seeds in found.items()}

    def plan(self, request: TrainingRequest) -> Recipe:
        return plan(request, self.registry, _Paths(), self.settings)

    def train(
        self, recipe: Recipe, folder: Path, trainer: Callable[[Recipe, Any], Trained] | None = None
    ) -> tuple[str, Figures]:
        """Train and publish a model.

        Returns:
            The id of the version, and the times of the training alone: `seconds` of wall time, and
            `cpu_seconds` of all processors, on which other work on the machine has less effect.
        """
        from training import job as modes

        job = BenchJob(folder)
        began, used = time.perf_counter(), sum(os.times()[:4])
        trained = (trainer or modes.trainer(recipe))(recipe, job)
        spent = {
            "seconds": round(time.perf_counter() - began, 1),
            "cpu_seconds": round(sum(os.times()[:4]) - used, 1),
        }
        version = publish(trained, recipe, job, self.registry)
        return version.id, spent

    def measure(self, model_id: str, dataset: Dataset, split: str, folder: Path) -> dict[str, Any]:
        """Evaluate a model on a split; returns the report of `evaluation.evaluator`."""
        from evaluation.evaluator import evaluate
        from evaluation.target import EvaluationTarget

        output = folder / f"evaluation-{uuid.uuid4().hex[:6]}"
        output.mkdir(parents=True)
        version = self.registry.get(model_id)
        return evaluate(
            EvaluationTarget(version.path, dataset, split, version.id),
            self.settings,
            output=output,
            progress=lambda *_: None,
        ).report

    def _file(self, key: str) -> Path:
        return self.folder / "runs" / f"{key}.json"


class _Paths:
    def resolve(self, reference: str) -> Path:
        return Path(reference)


def changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The names of the settings that are different in a stored run."""
    now = json.loads(json.dumps(now))
    return [name for name in {**now, **then} if now.get(name) != then.get(name)]


def machine() -> str:
    """The name of the GPU that is used, or else the number of cores and the architecture."""
    import torch

    if torch.cuda.is_available() and get_settings().device != "cpu":
        return str(torch.cuda.get_device_name())
    return f"{os.cpu_count()} cores {platform.machine()}"


def shown(figures: Figures) -> str:
    numbers = {k: v for k, v in figures.items() if isinstance(v, int | float)}
    return "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
