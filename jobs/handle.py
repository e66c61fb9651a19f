"""`JobHandle`: the interface through which the code of a job reports and is stopped."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol


class JobCancelled(BaseException):
    """The job must stop. Not an Exception, so that training code does not catch it by accident."""


class JobInterrupted(BaseException):
    """The work cannot go on through no fault of its own; the job resumes from its checkpoint."""


class JobHandle(Protocol):
    """The job's interface for a training, an evaluation or a batch annotation.

    Attributes:
        id: The job's id.
        folder: Folder for checkpoints and run files; it is kept when the process ends.
        resuming: Whether an earlier attempt left a checkpoint.
    """

    id: str
    folder: Path
    resuming: bool

    @property
    def stop_requested(self) -> bool:
        """Whether the service is stopping: save, call `checkpointed`, then raise JobCancelled."""

    def graceful_stop(self) -> AbstractContextManager[None]:
        """A context for work that can save its state when the service stops.

        Inside the context, a stop of the service sets `stop_requested`, and the process has a few
        seconds to save. Outside, the process ends at once.
        """

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
        """Report progress. It may be called often: the row is written four times a second at most.

        Args:
            fraction: Completed share of the whole job, 0 to 1. The progress shown never decreases,
                not even after a resume.
            epoch: The current epoch, from 1.
            epochs: The maximum number of epochs.
            metrics: Losses and metrics by name; they are merged into those reported before.
            batch: Number of trained batches of the current epoch.
            batches: Number of batches of an epoch; 0: not known.
        """

    def advance(self, fraction: float, metrics: Mapping[str, float] = {}) -> None:
        """Report progress of a job without epochs, or after the last epoch."""

    def log(self, message: str) -> None:
        """Write a line to the job's log."""

    def replace_recipe(self, recipe: Mapping[str, Any], shown: Mapping[str, Any]) -> None:
        """Store what the job does from now on, also when it is resumed.

        Args:
            recipe: Replaces the recipe of the job's row.
            shown: Replaces `resolved` in the config that clients see.
        """

    def check(self) -> None:
        """Check whether the job must stop.

        Raises:
            JobCancelled: The job must stop.
        """

    def finished_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add a trained and validated epoch to the job's history, before its checkpoint is written.

        A process that is killed in between repeats the epoch, which then replaces this entry; so no
        epoch is missing, and none is there twice.

        Args:
            epoch: The epoch, from 1; entries of later epochs, of an earlier attempt, are deleted.
            metrics: The epoch's losses and metrics by name.
        """

    def checkpointed(self, epoch: int, batch: int = 0) -> None:
        """Report that a checkpoint to resume from is in the folder.

        Args:
            epoch: Number of completed epochs.
            batch: Number of completed batches of the next epoch.

        Raises:
            InsufficientStorage: The free disk space is below the minimum to keep free, and the
                job is not finished yet.
        """
