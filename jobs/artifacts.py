"""What remains of a job that has ended: its log, its figures, and of one that came to no model
the best weights it had, which another training may start from.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from files import atomic_write
from jobs.store import Job

BEST = "best.pt"
NOTE = "best.json"  # beside it: of which epoch it is
CHECKPOINTS = "checkpoints"
LEFT = (
    "data", "data.partial", "base", "base.converting", "teacher", "teacher.converting", "model",
    "evaluation",
)  # fmt: skip
KEPT = (".csv", ".png", ".jpg")  # in a run


@dataclass(frozen=True)
class BestWeights:
    """The checkpoint of a training's best epoch, as the family's trainer wrote it."""

    path: Path
    epoch: int


def note_best(checkpoints: Path, epoch: int) -> None:
    """Say of which epoch the best checkpoint is that was just written."""
    atomic_write(checkpoints / NOTE, json.dumps({"epoch": epoch}))


def best_weights(job_folder: Path) -> BestWeights | None:
    """The best weights so far; None before the first epoch is over, or once there is a model."""
    checkpoints = job_folder / CHECKPOINTS
    try:
        epoch = int(json.loads((checkpoints / NOTE).read_text())["epoch"])
    except (OSError, ValueError, KeyError):
        return None
    path = checkpoints / BEST
    return BestWeights(path, epoch) if path.is_file() else None


def clear(job_folder: Path, *, completed: bool) -> None:
    """Remove what a job that has ended no longer needs.

    Its log stays, of its run results.csv and the plots, where they were asked for, and the best
    weights unless it is completed.
    """
    for name in LEFT:
        shutil.rmtree(job_folder / name, ignore_errors=True)
    checkpoints = job_folder / CHECKPOINTS
    if completed or best_weights(job_folder) is None:
        shutil.rmtree(checkpoints, ignore_errors=True)
    else:
        _remove(checkpoints, lambda path: path.name in (BEST, NOTE))
    _remove(job_folder / "run", lambda path: path.suffix in KEPT)


def kept_by(job: Job, job_folder: Path) -> str:
    """A sentence, with a blank before it, on how to go on from a job's best weights; or none."""
    best = best_weights(job_folder)
    if job.kind != "training" or best is None:
        return ""
    return f" Its best weights (epoch {best.epoch}) are kept: give resume_weights={job.id}."


def _remove(folder: Path, stays: Callable[[Path], bool]) -> None:
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif not stays(path):
                path.unlink()
