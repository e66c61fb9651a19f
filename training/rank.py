"""`python -m training.rank JOB --parent PID`: a further GPU of a training; see `yolo.ranks`."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from database import Database
from jobs.claims import CLAIM_ENV
from jobs.job import Job
from jobs.processes import SIGNAL_SAVE_AND_EXIT
from jobs.store import JobStore
from jobs.worker import claimed, exit_process, set_up_process
from models_store import ultralytics_env
from settings import get_settings
from shell import Parser
from training.modes import freeze, regular
from training.planning.recipe import Recipe
from training.prepare import prepare_training
from training.yolo import trainer


class SilentJob:
    """The JobHandle of a further GPU: reports nothing and never stops by itself."""

    resuming = False
    stop_requested = False

    def __init__(self, id: str, folder: Path) -> None:
        self.id = id
        self.folder = folder

    @contextmanager
    def graceful_stop(self) -> Iterator[None]:
        yield

    def report(
        self,
        *,
        fraction: float,
        epoch: int,
        epochs: int,
        metrics: Mapping[str, float] = {},
        batch: int = 0,
        batches: int = 0,
    ) -> None: ...

    def advance(self, fraction: float, metrics: Mapping[str, float] = {}) -> None: ...

    def log(self, message: str) -> None: ...

    def replace_recipe(self, recipe: Mapping[str, Any], shown: Mapping[str, Any]) -> None: ...

    def check(self) -> None: ...

    def finished_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None: ...

    def checkpointed(self, epoch: int, batch: int = 0) -> None: ...


def join(job_id: str, parent: int) -> tuple[SilentJob, Job] | None:
    """Set up this process as a further GPU of the job's worker.

    It ends with the worker, and leaves it to the worker to obey the signals that ask to save.

    Args:
        job_id: The job.
        parent: The worker's process id.

    Returns:
        A handle and the job's row; None if the worker, by its claim, no longer has the job.
    """
    set_up_process(parent)
    for number in (signal.SIGTERM, SIGNAL_SAVE_AND_EXIT):
        signal.signal(number, signal.SIG_IGN)
    settings = get_settings()
    ultralytics_env.prepare(settings.home)
    store = JobStore(Database(settings))
    row = claimed(store, job_id, os.environ.get(CLAIM_ENV, ""))
    store.database.close()
    return None if row is None else (SilentJob(row.id, store.folder(row.id)), row)


def main() -> int:
    """Train with the job's worker until it has trained. Returns the exit code."""
    parser = Parser(prog="python -m training.rank", description=__doc__)
    parser.add_argument("job_id")
    parser.add_argument("--parent", type=int, required=True, help="process id of the worker")
    arguments = parser.parse_args()
    joined = join(arguments.job_id, arguments.parent)
    if joined is None:
        return 1
    job, row = joined
    task = json.load(sys.stdin)
    recipe = Recipe.model_validate(row.recipe)
    dataset, start = prepare_training(recipe, job)
    mode = freeze if recipe.mode == "freeze_strategy" else regular
    run = mode.yolo_run(recipe, job, dataset, start)
    run.samples = task["samples"]
    trainer.follow(run, task["overrides"])
    return 0


if __name__ == "__main__":
    exit_process(main())
