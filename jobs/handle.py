"""The interface between a job and the code that does its work."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol


class JobCancelled(BaseException):
    """The job is to stop. Not an Exception, so that no training code catches it by accident."""


class JobHandle(Protocol):
    """A job as a trainer, an evaluation or an annotation run sees it.

    Attributes:
        id: The job's id.
        folder: Checkpoints and runs; it outlives the process.
        resuming: An earlier attempt left a checkpoint.
    """

    id: str
    folder: Path
    resuming: bool

    @property
    def stop_requested(self) -> bool:
        """Whether the service stops: save, call `checkpointed`, raise JobCancelled."""

    def graceful_stop(self) -> AbstractContextManager[None]:
        """A context in which the work can be interrupted.

        Inside, a stop of the service sets `stop_requested` and leaves the process a few seconds.
        Outside, it ends the process at once.
        """

    def report(
        self, *, fraction: float, epoch: int, epochs: int, metrics: Mapping[str, float] = {}
    ) -> None:
        """Report progress. Call it as often as you like: it is written four times a second.

        Args:
            fraction: Done part of the whole job, 0 to 1. The progress shown never decreases, not
                even after a resume.
            epoch: The current epoch, from 1.
            epochs: The largest number of epochs.
            metrics: Losses and metrics by name, merged into the earlier ones.
        """

    def advance(self, fraction: float, metrics: Mapping[str, float] = {}) -> None:
        """Report progress without epochs, or after the last one."""

    def log(self, message: str) -> None:
        """Write a line to the job's log."""

    def check(self) -> None:
        """Raises JobCancelled if the job is to stop."""

    def checkpointed(self, epoch: int, batch: int = 0) -> None:
        """Report a resumable checkpoint in the folder.

        Args:
            epoch: Completed epochs.
            batch: Completed batches of the next epoch.
        """
