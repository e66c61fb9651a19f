"""What a trainer or an evaluation sees of its job."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol


class JobCancelled(BaseException):
    """A stop was asked for. Not an Exception, so that no training code swallows it."""


class JobHandle(Protocol):
    """What a trainer sees of its job.

    Attributes:
        id: The job's.
        folder: For checkpoints and runs; outlives the process.
        resuming: An earlier attempt left a checkpoint.
    """

    id: str
    folder: Path
    resuming: bool

    @property
    def stop_requested(self) -> bool:
        """Whether the service stops: save, say so with `checkpointed`, raise JobCancelled."""

    def graceful_stop(self) -> AbstractContextManager[None]:
        """Within it, a stop of the service sets `stop_requested`, and the process is given a few
        seconds; outside it, the process ends at once."""

    def report(
        self, *, fraction: float, epoch: int, epochs: int, metrics: Mapping[str, float] = {}
    ) -> None:
        """Say how far the job is; as often as you like, four times a second it is written.

        Args:
            fraction: 0 to 1, of the whole job; what is shown never falls, after a resumption
                neither.
            epoch: The current one, from 1.
            epochs: How many there are at most.
            metrics: Losses and figures by name; earlier ones of other names stay.
        """

    def advance(self, fraction: float, metrics: Mapping[str, float] = {}) -> None:
        """As `report`, where there are no epochs, or no more."""

    def log(self, message: str) -> None:
        """A line of the job's log."""

    def check(self) -> None:
        """Raises JobCancelled where a stop was asked for."""

    def checkpointed(self, epoch: int, batch: int = 0) -> None:
        """A resumable checkpoint lies in the folder, with `epoch` whole epochs and `batch`
        batches of the next."""
