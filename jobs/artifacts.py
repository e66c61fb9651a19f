"""The files of a job: their size, and which of them are kept after its end.

The log, `results.csv` and the plots are kept. A training that did not produce a model keeps its
best weights as well, from which another training may start.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from files import atomic_write, delete_abandoned
from jobs.job import Job

BEST = "best.pt"
NOTE = "best.json"  # file with the epoch of BEST
CHECKPOINTS = "checkpoints"
TEMPORARY = ("data", "base", "teacher", "model", "evaluation", "download")
KEPT = (".csv", ".png", ".jpg")  # suffixes of the files in a run's folder that are kept


@dataclass(frozen=True)
class BestWeights:
    """The checkpoint of a training's best epoch, in the format of its trainer."""

    path: Path
    epoch: int


def note_best(checkpoints: Path, epoch: int) -> None:
    """Record the epoch of the best checkpoint; call this after each new best checkpoint."""
    atomic_write(checkpoints / NOTE, json.dumps({"epoch": epoch}))


def best_weights(job_folder: Path) -> BestWeights | None:
    """The best weights so far; None before the end of the first epoch, or once a model exists."""
    checkpoints = job_folder / CHECKPOINTS
    try:
        epoch = int(json.loads((checkpoints / NOTE).read_text())["epoch"])
    except (OSError, ValueError, KeyError):
        return None
    path = checkpoints / BEST
    return BestWeights(path, epoch) if path.is_file() else None


def clear(job_folder: Path, *, completed: bool) -> None:
    """Delete the files that are not needed after a job's end.

    Args:
        job_folder: The folder of the job.
        completed: The job has produced its result; its best weights are deleted as well.
    """
    for name in TEMPORARY:
        shutil.rmtree(job_folder / name, ignore_errors=True)
    delete_abandoned(job_folder)
    checkpoints = job_folder / CHECKPOINTS
    if completed or best_weights(job_folder) is None:
        shutil.rmtree(checkpoints, ignore_errors=True)
    else:
        _remove(checkpoints, lambda path: path.name in (BEST, NOTE))
    _remove(job_folder / "run", lambda path: path.suffix in KEPT)


def kept_by(job: Job, job_folder: Path) -> str:
    """A sentence on how to start a training from the job's best weights, with a leading space.

    Empty if there are none.
    """
    best = best_weights(job_folder)
    if job.kind != "training" or best is None:
        return ""
    return (
        f" Its best weights (epoch {best.epoch}) are kept. To start from them, send "
        f"resume_weights={job.id}."
    )


def size_bytes(job_folder: Path) -> int:
    """The bytes of a job's files, without its view of the dataset, which consists of links."""
    total = 0
    for top, folders, names in os.walk(job_folder):
        if Path(top) == job_folder:
            folders[:] = [name for name in folders if name != "data"]
        for name in names:
            with contextlib.suppress(OSError):  # deleted meanwhile
                total += os.lstat(os.path.join(top, name)).st_size
    return total


def _remove(folder: Path, stays: Callable[[Path], bool]) -> None:
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif not stays(path):
                path.unlink()
