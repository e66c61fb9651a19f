"""What becomes of a job whose process is gone: the one place that ends jobs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from filelock import FileLock

from jobs.artifacts import clear, kept_by
from jobs.failures import DISK_FULL, NO_ROOM
from jobs.logs import LogWriter
from jobs.processes import kill, marked
from jobs.store import LONGEST_ERROR, Job, JobStore
from models_store.registry import Registry, published
from settings import Settings

KILLED = "The service was killed while this job ran."
KILLS = 10  # of the service, for each crash that a job may have

Published = Callable[[str], str | None]


def dispatcher_lock(settings: Settings) -> FileLock:
    """Held by the dispatcher of a home; free where there is none."""
    return FileLock(settings.paths.dispatcher_lock, thread_local=False)


def published_in(registry: Registry) -> Published:
    """Which model a job has published, if any."""

    def version(job_id: str) -> str | None:
        made = published(job_id, registry)
        return made.id if made else None

    return version


@dataclass(frozen=True)
class JobFinalizer:
    """Brings the rows of jobs without a process to where they belong.

    Attributes:
        store: The job table.
        attempts: Crashes without a new checkpoint that end a job.
        published: The model a job has published, if any: a worker may have died between the
            publication and its last word.
    """

    store: JobStore
    attempts: int
    published: Published

    def recover(self, job_id: str) -> None:
        """Settle a job whose dispatcher is gone, after what is left of its processes.

        Hold the dispatcher's lock.
        """
        kill(marked().get(job_id, []))
        self.finalize(job_id, KILLED)

    def finalize(
        self, job_id: str, reason: str, *, code: int | None = None, leaving: bool = False
    ) -> None:
        """End a job, or put it back into the queue.

        Args:
            job_id: The job.
            reason: How its process ended.
            code: The exit code, where somebody was there to see it.
            leaving: The service stops.
        """
        writer = LogWriter(self.store.log(job_id))
        job = self.store.get(job_id)
        if job.is_final or job.status == "queued":
            if job.is_final:
                writer.say(f"Stopped before it began.{self._tidy(job)}")
            return
        model_id = job.model_id or self.published(job_id)
        if job.outcome == "completed" or (model_id and self._is_over(job, code, leaving)):
            if job.outcome != "completed":
                writer.say("The model is published; its evaluation was not finished.")
            writer.say(f"Completed{f': {model_id}' if model_id else ''}.")
            self.store.finish(job_id, "completed", model_id=model_id)
            clear(self.store.folder(job_id), completed=True)
        elif job.status == "stopping":
            writer.say(f"Stopped, as asked for.{self._tidy(job)}")
            self.store.finish(job_id, "stopped")
        elif job.outcome == "failed" or code == DISK_FULL:
            self._fail(job, job.error or NO_ROOM, writer)
        elif leaving:
            where = place(job, model_id)
            writer.say(f"The service stops; the job goes on {where} at its next start.")
            self.store.requeue(job_id, crashed=False)
        elif self._is_given_up(job, code):
            attempts = job.crashes + 1
            self._fail(
                job, f"{reason} Given up after {attempts} attempts that got no further.", writer
            )
        else:
            writer.say(f"{reason} The job goes on {place(job, model_id)}.")
            self.store.requeue(job_id, crashed=not self._is_free(job, code))

    def _is_over(self, job: Job, code: int | None, leaving: bool) -> bool:
        """Whether a job whose model is published, but not evaluated, ends with that."""
        ended = job.outcome is not None or job.status == "stopping" or code == DISK_FULL
        return ended or (not leaving and self._is_given_up(job, code))

    def _is_given_up(self, job: Job, code: int | None) -> bool:
        return not self._is_free(job, code) and job.crashes + 1 >= self.attempts

    def _is_free(self, job: Job, code: int | None) -> bool:
        """Whether this end costs no attempt: nobody saw it, so the service was killed too."""
        return code is None and job.attempts < KILLS * self.attempts

    def _fail(self, job: Job, error: str, writer: LogWriter) -> None:
        kept = self._tidy(job)  # first: where the disk is full, the row needs the room
        error = error[: LONGEST_ERROR - len(kept)] + kept
        writer.say(f"Failed: {error}")
        self.store.finish(job.id, "failed", error)

    def _tidy(self, job: Job) -> str:
        """Clear the folder of a job without a model. Returns what is kept of it, for people."""
        folder = self.store.folder(job.id)
        clear(folder, completed=False)
        return kept_by(job, folder)


def place(job: Job, model_id: str | None = None) -> str:
    """From where a job goes on; a published model is only evaluated."""
    if model_id:
        return f"with the evaluation of {model_id}"
    if job.kind == "annotation":  # pictures count as batches
        return f"after {job.checkpoint_batch} pictures" if job.checkpoint_batch else "from zero"
    if job.checkpoint_batch:
        return f"from batch {job.checkpoint_batch + 1} of epoch {job.checkpoint + 1}"
    return f"from the checkpoint of epoch {job.checkpoint}" if job.checkpoint else "from zero"
