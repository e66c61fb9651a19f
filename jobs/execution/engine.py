"""`JobEngine`: what runs the workers of jobs, on this machine or on a cluster.

The dispatcher decides which job runs, and what its end means for its row. An engine only starts
workers, tells how they ended, and ends them. It names a worker by its claim; see `jobs.claims`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from jobs.job import Job
from jobs.logs.log_file import LogWriter


class NotLaunched(Exception):
    """A worker cannot be started for now; the message is a sentence for the job's log."""


class Ending(Enum):
    """How a worker is ended."""

    CANCEL = "at once"
    SAVE = "after it has saved, as the service stops"
    ABORT = "because it hangs, after it has logged where"


@dataclass(frozen=True)
class Launched:
    """A worker that was started.

    Attributes:
        shown: What the job's log calls it: `Process 4711`.
        pid: Its process id, if it runs on this machine.
        pid_started: See `jobs.processes.started_at`.
    """

    shown: str
    pid: int | None = None
    pid_started: float | None = None


@dataclass(frozen=True)
class End:
    """How a worker ended.

    Attributes:
        reason: A sentence for the job's log.
        code: The exit code, negative for a signal. None: nobody has seen one, because the machine
            or the cluster was lost. This does not count as a crash of the job.
    """

    reason: str
    code: int | None = None


class JobEngine(Protocol):
    """Runs workers. All methods are called in the dispatcher's event loop."""

    def claim(self, job: Job) -> str:
        """The claim for the next worker of a job; it is written to the row before `launch`."""

    async def launch(self, job: Job, claim: str, log: LogWriter) -> Launched:
        """Start a worker, whose output goes to `log`.

        Raises:
            NotLaunched: It cannot be started now. The dispatcher tries again.
        """

    def poll(self) -> Mapping[str, End | None]:
        """How every worker that is watched has ended, by claim; None: not yet."""

    async def end(self, claim: str, how: Ending) -> None:
        """End a worker; returns at the latest when everything was tried."""

    def forget(self, claim: str) -> None:
        """Stop watching a worker that has ended, once its job's row says so."""

    async def adopt(self, jobs: Collection[Job], log: Callable[[Job], LogWriter]) -> set[str]:
        """Watch the workers that an earlier dispatcher left running, or end them.

        Args:
            jobs: Those that wait, run or are being stopped, according to the table.
            log: Returns the log of a job that runs or is being stopped.

        Returns:
            The claims of running jobs whose workers are watched from now on. The others have ended.
        """

    def outlives(self, claim: str) -> bool:
        """Whether a worker goes on when this dispatcher stops, and the next one adopts it."""

    async def close(self) -> None:
        """Release what the engine holds; workers that outlive it go on."""


class SplitEngine:
    """Runs some kinds of jobs on this machine, the others on a cluster.

    Args:
        here: The engine of this machine.
        cluster: The engine of the cluster.
        kinds: The kinds of jobs that run here.
        is_here: Whether a claim is of a worker of `here`.
    """

    def __init__(
        self,
        here: JobEngine,
        cluster: JobEngine,
        kinds: Collection[str],
        is_here: Callable[[str | None], bool],
    ) -> None:
        self._here = here
        self._cluster = cluster
        self._kinds = kinds
        self._is_here = is_here

    def _of_job(self, job: Job) -> JobEngine:
        return self._here if job.kind in self._kinds else self._cluster

    def _of_claim(self, claim: str) -> JobEngine:
        return self._here if self._is_here(claim) else self._cluster

    def claim(self, job: Job) -> str:
        return self._of_job(job).claim(job)

    async def launch(self, job: Job, claim: str, log: LogWriter) -> Launched:
        return await self._of_job(job).launch(job, claim, log)

    def poll(self) -> Mapping[str, End | None]:
        return {**self._here.poll(), **self._cluster.poll()}

    async def end(self, claim: str, how: Ending) -> None:
        await self._of_claim(claim).end(claim, how)

    def forget(self, claim: str) -> None:
        self._of_claim(claim).forget(claim)

    async def adopt(self, jobs: Collection[Job], log: Callable[[Job], LogWriter]) -> set[str]:
        far = await self._cluster.adopt(jobs, log)
        return far | await self._here.adopt([job for job in jobs if job.claim not in far], log)

    def outlives(self, claim: str) -> bool:
        return self._of_claim(claim).outlives(claim)

    async def close(self) -> None:
        await self._here.close()
        await self._cluster.close()
