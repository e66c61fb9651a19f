"""The drawn pictures that the starter models are measured on; drawn once, with a seed of theirs.

They were trained on other drawings of the same kind, so this says how well they do what they were
made for, not how well they do in the street.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from models_store.description import Task
from settings import Settings
from synthetic.scenes import write_classification_set, write_detection_set
from synthetic.signs import CLASS_NAMES

NAME = "drawn traffic signs"
SEED = 20_261_122  # the trainings draw from others
SCENES = 200  # in val
CLOSE_UPS = 10  # of each class, in val
TRAIN = 2  # scenes, or close-ups of a class: a data set needs some
ABANDONED = 3600.0  # seconds without a change
FORMAT = 1  # to be raised where the drawings change


def drawn_set(task: Task, settings: Settings, progress: Callable[[int, int], None]) -> Path:
    """The data.yaml or class root, drawn where it is not there yet (a minute or two).

    Args:
        task: `classify` gets close-ups, every other scenes with boxes.
        settings: Home.
        progress: Told how many pictures of how many are drawn; may raise to end it.
    """
    kind = "close-ups" if task == "classify" else "scenes"
    folder = settings.paths.starter_sets / f"{kind}-{FORMAT}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        _clear_abandoned(folder.parent)
        partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        try:
            _draw(task, partial, progress)
            os.replace(partial, folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            if not folder.exists():  # another process may have drawn it meanwhile
                raise
    return folder if task == "classify" else folder / "data.yaml"


def _clear_abandoned(parent: Path) -> None:
    """What processes left that were ended while they drew."""
    for path in parent.glob("*-*.*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > ABANDONED:
                shutil.rmtree(path)


def _draw(task: Task, folder: Path, progress: Callable[[int, int], None]) -> None:
    if task == "classify":
        count = (CLOSE_UPS + TRAIN) * len(CLASS_NAMES)
        write, size = write_classification_set, 96
    else:
        count, write, size = SCENES + TRAIN, write_detection_set, 640
    write(folder, count, SEED, size, lambda i: i >= TRAIN, lambda done: progress(done, count))
