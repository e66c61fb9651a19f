"""What a job's trouble means: errors whose messages say what to do, exit codes, and outages.

That a worker cannot reach the database or the object store is no fault of its job. A worker that
waited in vain exits with TRY_AGAIN. The job resumes from its checkpoint, after a pause that grows
with the outage, and fails once it has made no checkpoint for LONGEST_OUTAGE seconds. The job's row
says since when (`Job.outage_since`): from the first failure after a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import PurePath

from disk_space import NO_ROOM, is_disk_full
from errors import DatasetInvalid, InsufficientStorage, ValidationFailed, VisionLoopError

DISK_FULL = 28  # exit code of a worker that could not write its outcome (ENOSPC)
TRY_AGAIN = 75  # exit code of a worker that could not reach what it needs (EX_TEMPFAIL)
UNTRIED = 600.0  # seconds without an attempt, as in a queue or without a server, that end an outage
LONGEST_OUTAGE = 24 * 3600.0  # seconds for which attempts that fail so are followed by another
SHORTEST_PAUSE, LONGEST_PAUSE = 5.0, 60.0  # seconds between two of them
SHARE = 0.25  # of the outage so far, as a pause

UNREACHABLE = "The worker could not reach the database or the object store."
REMEDY = (
    "Check that its machine reaches them (VISIONLOOP_DATABASE_URL, VISIONLOOP_STORE_URL, AWS_*); "
    "the job's log has what it said."
)
NO_MEMORY = (
    "out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory",
    "alloc_failed",
)  # fmt: skip
NO_SHARED_MEMORY = ("killed by signal: bus error", "out of shared memory")
DIVERGED = ("nan persisted", "corrupted with nan", "nan/inf detected but")


@contextmanager
def explained(batch: int, imgsz: int) -> Iterator[None]:
    """A context that replaces exceptions by errors that tell the user what to do, where known.

    Args:
        batch: Batch size, for the message.
        imgsz: Image size in pixels, for the message.

    Raises:
        ValidationFailed: The settings do not fit the machine or the data.
        DatasetInvalid: Ultralytics refuses the dataset.
        InsufficientStorage: The disk is full.
    """
    try:
        yield
    except Exception as error:
        known = translated(error, (batch, imgsz))
        if known is None or known is error:
            raise
        raise known from error


def translated(error: Exception, shape: tuple[int, int] | None = None) -> VisionLoopError | None:
    """The error that tells the user what to do about an exception; None if that is not known.

    Args:
        error: The exception.
        shape: Batch and imgsz of the training that raised it.
    """
    if isinstance(error, VisionLoopError):
        return error
    text = str(error)
    said = text.lower()
    if isinstance(error, MemoryError) or any(word in said for word in NO_MEMORY):
        where = f" with batch {shape[0]} at imgsz {shape[1]}" if shape else ""
        return ValidationFailed(
            f"Out of memory{where}. Reduce batch or imgsz, or choose a smaller model."
        )
    if is_disk_full(error):
        return InsufficientStorage(NO_ROOM)
    if any(word in said for word in NO_SHARED_MEMORY):
        return ValidationFailed(
            "The data loading processes used up the shared memory. Start the container with more "
            "(docker run --shm-size=1g), or train with workers=0."
        )
    if isinstance(error, FileNotFoundError):
        name = PurePath(str(error.filename or text.rpartition(" ")[2])).name
        return DatasetInvalid(
            f"The file '{name}', which the job needs, is gone. If its dataset was deleted or "
            "moved, bring it back, then start the job again."
        )
    if isinstance(error, FloatingPointError) or any(word in said for word in DIVERGED):
        return ValidationFailed(
            "The training diverged: its loss stayed infinite or NaN. Use a smaller lr0 and "
            "check the labels."
        )
    if shape and ("final batch=1" in said or "more than 1 value per channel" in said):
        return ValidationFailed(
            f"With batch {shape[0]} one batch has only a single image, which is too few at imgsz "
            f"{shape[1]}. Use another batch, or a larger imgsz."
        )
    if isinstance(error, RuntimeError) and said.startswith("dataset"):
        return DatasetInvalid(text.replace("❌", "").strip())
    return None


def reason(error: Exception) -> str:
    """The error message of a failed job."""
    if (known := translated(error)) is not None:
        return known.message
    text = str(error).strip().partition("\n")[0][:300]
    return f"{type(error).__name__}: {text} (the job's log has the details)"


def seconds_since(moment: str | None) -> float:
    """Seconds since a time as rows have it; 0 for None."""
    if moment is None:
        return 0.0
    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()


def ago(seconds: float) -> str:
    """The time that many seconds ago, as rows have it."""
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def pause_left(outage_since: str | None, ended_at: str) -> float:
    """Seconds until a job is tried again.

    Args:
        outage_since: The beginning of the outage; None: there is none.
        ended_at: When its last attempt ended; in the future, the clock was set back, and nothing is
            left: it may be set back by more than any pause.
    """
    ended = seconds_since(ended_at)
    if outage_since is None or ended < -SHORTEST_PAUSE:
        return 0.0
    outage = seconds_since(outage_since) - ended
    return min(LONGEST_PAUSE, max(SHORTEST_PAUSE, SHARE * outage)) - ended


def spoken(seconds: float) -> str:
    """A duration in words: `40 seconds`, `3 minutes`, `5 hours`."""
    units = ((3600, "hour"), (60, "minute"), (1, "second"))
    size, word = next((unit for unit in units if seconds >= unit[0]), units[-1])
    count = round(seconds / size)
    return f"{count} {word}{'s' * (count != 1)}"
