"""Resolves the final state of jobs whose worker has exited. Only this module ends such jobs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from database import Database, State, now
from disk_space import NO_ROOM
from exclusive import Exclusive
from jobs.artifacts import kept_by
from jobs.claims import HOST
from jobs.failures import DISK_FULL, LONGEST_OUTAGE, REMEDY, TRY_AGAIN, seconds_since, spoken
from jobs.job import Job
from jobs.logs.log_file import LogWriter
from jobs.processes import kill, marked
from jobs.shared_folders import JobFolders
from jobs.store import LONGEST_ERROR, JobStore
from models_store.registry import Registry, published

LEADER = "leader"  # key in the table `state`
KILLED = "The service was killed while this job ran."
BEGINNING = "from the beginning"
KILLS = 10  # unobserved ends per allowed attempt that are not counted as crashes

Published = Callable[[str], str | None]


def dispatcher_lock(database: Database) -> Exclusive:
    """The lock that the dispatcher of these jobs holds while it runs; nobody waits for it."""
    return database.exclusive("dispatcher", timeout=0)


def note_leader(database: Database, leads: bool) -> None:
    """Have the database say that this server leads, and since when; or that it does no longer.

    Only where several may lead.
    """
    if not database.is_shared:
        return
    with database.write() as session:
        if leads:
            session.merge(State(key=LEADER, text=f"{now()} {HOST}"))
        elif (row := session.get(State, LEADER)) is not None and (row.text or "").endswith(HOST):
            session.delete(row)


def leader(database: Database) -> dict[str, str] | None:
    """The server that leads, and since when, as the database says; None: none, or one machine."""
    if not database.is_shared:
        return None
    with database.read() as session:
        row = session.get(State, LEADER)
    since, _, server = ((row and row.text) or "").partition(" ")
    return {"server": server, "since": since} if server else None


def published_in(registry: Registry) -> Published:
    """A function that returns the id of the model that a job has published, if any."""

    def version(job_id: str) -> str | None:
        made = published(job_id, registry)
        return made.id if made else None

    return version


@dataclass(frozen=True)
class JobFinalizer:
    """Ends or requeues jobs whose process has ended.

    Attributes:
        store: The job table.
        attempts: Number of crashes without a new checkpoint between them after which a job fails.
        published: Returns the id of the model that a job has published, if any. A worker may have
            died after it published a model and before it reported its outcome.
    """

    store: JobStore
    attempts: int
    published: Published

    def recover(self, job_id: str) -> None:
        """Kill the processes of a job whose dispatcher has ended, then finalize the job.

        The caller must hold the dispatcher's lock.
        """
        kill(marked().get(job_id, []))
        self.finalize(job_id, KILLED)

    def finalize(
        self,
        job_id: str,
        reason: str,
        *,
        claim: str | None = None,
        code: int | None = None,
        shutdown: bool = False,
        yielded: bool = False,
    ) -> None:
        """End a job, or requeue it.

        Args:
            job_id: The job.
            reason: A sentence on how its process ended.
            claim: That of the worker that ended. Nothing is done if another one has the job now:
                another dispatcher, which took over meanwhile, has given it away. None: any worker.
            code: The exit code; None if no dispatcher observed it.
            shutdown: Whether the service is stopping.
            yielded: Whether its process was ended because another job waits.
        """
        writer = self.store.log_writer(job_id)
        job = self.store.get(job_id)
        if job.is_final or job.status == "queued":
            if job.is_final:
                writer.say(f"Ended on request, before it started.{self._tidy(job)}")
            return
        if claim is not None and job.claim != claim:
            return
        model_id = job.model_id or self.published(job_id)
        if job.outcome == "completed" or (model_id and self._is_over(job, code, shutdown)):
            if job.outcome != "completed":
                writer.say("The model is published, but its evaluation did not finish.")
            writer.say(f"Completed{f': {model_id}' if model_id else ''}.")
            self.store.finish(job_id, "completed", claim=job.claim, model_id=model_id)
            JobFolders(self.store.database.settings).settle(job_id, completed=True)
        elif job.status == "stopping":
            writer.say(f"Ended on request.{self._tidy(job)}")
            self.store.finish(job_id, "stopped", claim=job.claim)
        elif job.outcome == "failed" or code == DISK_FULL:
            self._fail(job, job.error or NO_ROOM, writer)
        elif shutdown:
            where = place(job, model_id)
            writer.say(
                f"The service is stopping. The job resumes {where} when the service starts again."
            )
            self.store.requeue(job_id, False, job.claim, "The service was stopped.")
        elif yielded:
            writer.say(f"Another job is to run. This one resumes {place(job, model_id)} after it.")
            self.store.requeue(job_id, False, job.claim, "Another job was to run.")
        elif code == TRY_AGAIN and self._is_given_up(job, code):
            self._fail(
                job, f"{reason} This lasts for {spoken(LONGEST_OUTAGE)} now. {REMEDY}", writer
            )
        elif code == TRY_AGAIN:
            writer.say(f"{reason} The job resumes {place(job, model_id)} shortly.")
            self.store.requeue(job_id, False, job.claim, reason, outage=True)
        elif self._is_given_up(job, code):
            attempts = job.crashes + 1
            self._fail(
                job,
                f"{reason} The job failed after {attempts} attempts without a new checkpoint.",
                writer,
            )
        else:
            writer.say(f"{reason} The job resumes {place(job, model_id)}.")
            self.store.requeue(job_id, not self._is_free(job, code), job.claim, reason)

    def _is_over(self, job: Job, code: int | None, shutdown: bool) -> bool:
        """Whether a job whose model is published, but not evaluated, counts as completed."""
        ended = job.outcome is not None or job.status == "stopping" or code == DISK_FULL
        return ended or (not shutdown and self._is_given_up(job, code))

    def _is_given_up(self, job: Job, code: int | None) -> bool:
        if code == TRY_AGAIN:
            return seconds_since(job.outage_since) > LONGEST_OUTAGE
        return not self._is_free(job, code) and job.crashes + 1 >= self.attempts

    def _is_free(self, job: Job, code: int | None) -> bool:
        """Whether the end is not counted as a crash: no exit code was seen, so the service died."""
        return code is None and job.attempts < KILLS * self.attempts

    def _fail(self, job: Job, error: str, writer: LogWriter) -> None:
        kept = self._tidy(job)  # before the row is written, which needs space on a full disk
        error = error[: LONGEST_ERROR - len(kept)] + kept
        writer.say(f"Failed: {error}")
        self.store.finish(job.id, "failed", error, job.claim)

    def _tidy(self, job: Job) -> str:
        """Clear the folder of a job without a model. Returns a sentence on what is kept."""
        folder = self.store.folder(job.id)
        JobFolders(self.store.database.settings).settle(job.id, completed=False)
        return kept_by(job, folder)


def place(job: Job, model_id: str | None = None) -> str:
    """Where a job resumes, for its log: once its model is published, only at its evaluation."""
    if model_id:
        return f"with the evaluation of {model_id}"
    if job.kind == "annotation":  # images count as batches
        return f"after {job.checkpoint_batch} images" if job.checkpoint_batch else BEGINNING
    if job.checkpoint_batch:
        return f"from batch {job.checkpoint_batch + 1} of epoch {job.checkpoint + 1}"
    return f"from the checkpoint of epoch {job.checkpoint}" if job.checkpoint else BEGINNING
