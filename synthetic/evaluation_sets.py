"""The drawn datasets that starter models are evaluated on; each is drawn once per home.

The starters were trained on drawings of other seeds, so the metrics hold for drawn signs, not for
photos of streets.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from files import atomic_path
from models_store.description import Task
from settings import Settings
from synthetic.scenes import write_classification_set, write_detection_set
from synthetic.signs import CLASS_NAMES

NAME = "drawn traffic signs"
SEED = 20_261_122  # not used by any training
SCENES = 200  # images in val, for tasks with boxes
CLOSE_UPS = 10  # images of each class in val, for `classify`
# Number of train images: scenes, or close-ups of each class. They exist only because a dataset must
# have a train split.
TRAIN = 2
CALIBRATION = 100  # scenes that int8 is calibrated on, or close-ups of all classes together
FORMAT = 1  # increment it when the drawing code changes


def drawn_set(task: Task, settings: Settings, progress: Callable[[int, int], None]) -> Path:
    """The path of the dataset for a task. Drawing the dataset takes a minute or two.

    The path is that of the data.yaml, or for `classify` of the folder whose splits have one folder
    per class.

    Args:
        task: `classify` gets close-ups, every other task scenes with boxes.
        settings: The home to store it in.
        progress: Called with the number of images drawn and their total; may raise to cancel.
    """
    kind = "close-ups" if task == "classify" else "scenes"
    folder = settings.paths.starter_sets / f"{kind}-{FORMAT}"
    if not folder.exists():
        try:
            with atomic_path(folder) as partial:
                _draw(task, partial, progress)
        except OSError:
            if not folder.exists():  # another process may have drawn it meanwhile
                raise
    return folder if task == "classify" else folder / "data.yaml"


def calibration_images(
    task: Task, folder: Path, progress: Callable[[int, int], None]
) -> list[Path]:
    """Draw images like those that the starters were trained on into an empty folder.

    They are neither of the trainings nor of `drawn_set`.
    """

    def told(done: int) -> None:
        progress(done, CALIBRATION)

    write, size = (
        (write_classification_set, 96) if task == "classify" else (write_detection_set, 640)
    )
    write(folder, CALIBRATION, SEED + 1, size, lambda i: False, told)
    return sorted(folder.rglob("*.jpg"))


def _draw(task: Task, folder: Path, progress: Callable[[int, int], None]) -> None:
    if task == "classify":
        count = (CLOSE_UPS + TRAIN) * len(CLASS_NAMES)
        write, size = write_classification_set, 96
    else:
        count, write, size = SCENES + TRAIN, write_detection_set, 640
    write(folder, count, SEED, size, lambda i: i >= TRAIN, lambda done: progress(done, count))
