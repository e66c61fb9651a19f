"""Turns what can go wrong inside a training into a sentence with a remedy."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from errors import DatasetInvalid, ValidationFailed, VisionLoopError
from training.recipe import Recipe

NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "alloc_failed")
NO_SPACE = ("no space left", "disk quota", "os error 28", "enforce fail at inline_container")
DIVERGED = ("nan persisted", "corrupted with nan", "nan/inf detected but")


@contextmanager
def explained(recipe: Recipe) -> Iterator[None]:
    """Raise what users can do something about as an error that says what.

    Raises:
        ValidationFailed: The settings do not fit the machine or the data.
        DatasetInvalid: Ultralytics refuses the data set.
        VisionLoopError: The disk is full.
    """
    try:
        yield
    except VisionLoopError:
        raise
    except MemoryError as error:
        raise _no_memory(recipe) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_space() from error
        raise
    except Exception as error:
        text = str(error)
        known = text.lower()
        if any(word in known for word in NO_MEMORY):
            raise _no_memory(recipe) from error
        if any(word in known for word in NO_SPACE):
            raise _no_space() from error
        if any(word in known for word in DIVERGED):
            raise ValidationFailed(
                "The training diverged: its loss became infinite or NaN and stayed so. Use a "
                "smaller lr0 and check the labels."
            ) from error
        if "final batch=1" in known or "more than 1 value per channel" in known:
            raise ValidationFailed(
                f"With batch {recipe.batch} a batch holds a single picture, too little for imgsz "
                f"{recipe.imgsz}. Use another batch, or a larger imgsz."
            ) from error
        if isinstance(error, RuntimeError) and known.startswith("dataset"):
            raise DatasetInvalid(text.replace("❌", "").strip()) from error
        raise


def _no_memory(recipe: Recipe) -> VisionLoopError:
    return ValidationFailed(
        f"Out of memory with batch {recipe.batch} at imgsz {recipe.imgsz}. "
        "Reduce batch or imgsz, or choose a smaller model."
    )


def _no_space() -> VisionLoopError:
    return VisionLoopError(
        "The disk is full. Free space on the disk of VISIONLOOP_HOME (and of BENTOML_HOME), then "
        "start the job again."
    )
