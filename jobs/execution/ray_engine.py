"""Runs workers on a Ray cluster, through its REST interface for jobs; never imports ray.

A claim is also the id of a Ray job, `visionloop-JOB-ATTEMPT`: one attempt is submitted once,
however often that is tried. tests/support/fake_ray.py has what Ray 2.60 answers.

The workers outlive the service: nothing ends them when it stops, and the next dispatcher watches
them again. Whatever the cluster says late, or not at all, does no harm: a worker whose claim is no
longer in its job's row writes nothing, and ends itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
from pydantic import SecretStr
from sqlalchemy.engine import URL, make_url

from database import FAILURES
from jobs.claims import CLAIM_ENV
from jobs.execution.engine import End, Ending, Launched, NotLaunched
from jobs.execution.gpus import gpus_of
from jobs.job import Job
from jobs.logs.log_file import LogWriter
from jobs.processes import death
from jobs.states import LIVE
from settings import Settings, variable_of

log = logging.getLogger("visionloop")

PREFIX = "visionloop-"  # of our jobs' ids
TRAINER = "trainer"  # custom resource of the nodes that run jobs without a GPU
TIMEOUT = httpx.Timeout(10.0, connect=3.0)  # seconds for one request
INTERVAL = 1.0  # seconds between two questions how a worker is
LOG_SHARE = 20  # a log is fetched again after this many times as long as the last fetch took
STOP_WAIT = 10  # seconds that Ray leaves a worker between SIGTERM and SIGKILL
PENDING = 30.0  # seconds without a place on the cluster after which the job's log says so
LAST_LOOKS = 3  # attempts to fetch the end of a log

NOT_OURS = frozenset(
    {"home", "cluster_url", "webhook_url", "train_slots", "gateway_workers", "root_path"}
)
"""Settings of the service that do not hold on a node, or that no worker needs."""


def claim_of(job: Job) -> str:
    """The claim of a job's next attempt, which is also its id in the cluster."""
    return f"{PREFIX}{job.id}-{job.attempts + 1}"


@dataclass(eq=False)
class _Watched:
    """A worker on the cluster.

    Attributes:
        log: The log of its job.
        length: The number of characters of its output at the last look.
        fetched: When its output was last fetched (monotonic seconds), and how long that took.
        since: When the watch began.
        how: How it was asked to end.
        told: Whether the log says that it waits for a place.
        end: How it ended, once that is known.
        task: Asks the cluster.
    """

    log: LogWriter
    length: int = 0
    fetched: tuple[float, float] = (0.0, 0.0)
    since: float = field(default_factory=time.monotonic)
    how: Ending | None = None
    told: bool = False
    end: End | None = None
    task: asyncio.Task[None] | None = None


class RayEngine:
    """The engine of a Ray cluster.

    Args:
        settings: Are passed on to the workers, without secrets: those are in the environment of the
            nodes, as Ray's dashboard shows what a job is given.
        url: Address of the cluster's dashboard, such as `http://ray-head:8265`.
        token: Ray's authentication token.
        interval: Seconds between two questions how a worker is.
    """

    def __init__(
        self,
        settings: Settings,
        url: str,
        token: SecretStr | None = None,
        interval: float = INTERVAL,
    ) -> None:
        self._settings = settings
        self._interval = interval
        headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
        # The cluster is near: no proxy of the surroundings is asked for the way to it.
        self._client = httpx.AsyncClient(
            base_url=url, headers=headers, timeout=TIMEOUT, trust_env=False
        )
        self._watched: dict[str, _Watched] = {}
        self._trouble = ""  # why the cluster did not answer, while it does not

    def claim(self, job: Job) -> str:
        return claim_of(job)

    async def launch(self, job: Job, claim: str, log: LogWriter) -> Launched:
        try:
            answer = await self._client.post("/api/jobs/", json=self._submission(job, claim))
        except httpx.HTTPError as error:  # perhaps it has arrived: the next attempt will tell
            raise NotLaunched(f"The cluster cannot be reached: {_said(error)}") from error
        # Ray answers 500 to a second submission of the same id.
        if answer.status_code != 200 and f"{claim} already exists" not in answer.text:
            raise NotLaunched(f"The cluster refuses the job: {_refusal(answer)}")
        self._watch(claim, log)
        return Launched(f"Cluster job {claim}")

    def poll(self) -> Mapping[str, End | None]:
        return {claim: watched.end for claim, watched in self._watched.items()}

    async def end(self, claim: str, how: Ending) -> None:
        """Ask the cluster to stop a worker: it gets SIGTERM, and later SIGKILL."""
        watched = self._watched.get(claim)
        if watched is None:
            return
        while watched.end is None and claim in self._watched:
            with contextlib.suppress(httpx.HTTPError):
                answer = await self._client.post(f"/api/jobs/{claim}/stop")
                if answer.status_code in (200, 404):
                    watched.how = how
                    return
            await asyncio.sleep(self._interval)

    def forget(self, claim: str) -> None:
        self._watched.pop(claim, None)

    async def adopt(self, jobs: Collection[Job], log: Callable[[Job], LogWriter]) -> set[str]:
        """Watch the workers of the jobs that run here, whether the cluster answers now or not.

        A job that waits, but was perhaps submitted already, is submitted again with the same id.
        """
        found = {job.claim: job for job in jobs if job.status in LIVE and is_ours(job.claim)}
        for claim, job in found.items():
            self._watch(str(claim), log(job))
        return {str(claim) for claim in found}

    def outlives(self, claim: str) -> bool:
        return True

    async def close(self) -> None:
        tasks = [watched.task for watched in self._watched.values() if watched.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()

    # --- what is submitted

    def _submission(self, job: Job, claim: str) -> dict[str, Any]:
        threads = self._settings.train_threads
        # Ray forces one thread upon workers to which it has assigned no CPU.
        openmp = f"OMP_NUM_THREADS={threads}" if threads else "-u OMP_NUM_THREADS"
        # Without any resource, Ray runs a job on the head.
        needs: dict[str, Any] = {"entrypoint_num_gpus": gpus_of(job.recipe, self._settings)}
        if self._settings.device == "cpu":
            needs = {"entrypoint_resources": {TRAINER: 1}}
        return needs | {
            # `exec`: with a shell in between, a worker that is killed would end with 137, not -9.
            "entrypoint": f"exec env {openmp} python -m worker {job.id}",
            "submission_id": claim,
            "runtime_env": {"env_vars": self._environment(claim)},
            "metadata": {"job_id": job.id, "kind": job.kind},
        }

    def _environment(self, claim: str) -> dict[str, str]:
        ours = {
            CLAIM_ENV: claim,
            "PYTHONUNBUFFERED": "1",
            "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT),
        }
        return shared_settings(self._settings, os.environ) | ours

    # --- how it ends

    def _watch(self, claim: str, log: LogWriter) -> None:
        if claim not in self._watched:
            watched = _Watched(log)
            self._watched[claim] = watched
            watched.task = asyncio.create_task(self._follow(claim, watched))

    async def _follow(self, claim: str, watched: _Watched) -> None:
        """Ask the cluster about a worker until it has ended."""
        while watched.end is None:
            try:
                watched.end = await self._look(claim, watched)
                self._reached()
            except (httpx.HTTPError, ValueError, KeyError) as error:
                self._not_reached(_said(error))
            except FAILURES:  # its output is copied, and its end settled, once the database is back
                pass
            except Exception:
                log.exception("Cluster job %s cannot be watched; trying again", claim)
            if watched.end is None:
                await asyncio.sleep(self._interval)

    async def _look(self, claim: str, watched: _Watched) -> End | None:
        """How a worker has ended; None: not yet.

        Raises:
            HTTPError, ValueError, KeyError: The cluster does not answer as it should. That says
                nothing about the worker.
        """
        answer = await self._client.get(f"/api/jobs/{claim}")
        if answer.status_code == 404 and f"{claim} does not exist" in answer.text:
            return End("The cluster does not know the job any more: its head was started anew.")
        answer.raise_for_status()
        found = answer.json()
        status, code = found["status"], found["driver_exit_code"]
        if status == "PENDING":
            return self._not_started(found, watched)
        if status == "RUNNING":
            began, took = watched.fetched
            if time.monotonic() - began >= max(self._interval, LOG_SHARE * took):
                await self._copy(claim, watched)
            return None
        lost = found["error_type"] == "JOB_SUPERVISOR_ACTOR_DIED"
        await self._copy_rest(claim, watched, 1 if lost else LAST_LOOKS)
        if status == "STOPPED":
            hung = watched.how is Ending.ABORT  # which counts as a crash
            return End("The cluster stopped the worker.", -signal.SIGKILL if hung else None)
        if code is not None:
            return End(death(code, memory=False), code)
        if status == "SUCCEEDED":
            return End(death(0, memory=False), 0)
        if lost:
            return End("The cluster lost the node on which the worker ran.")
        said = str(found["message"] or "").partition("\n")[0][:300]
        return End(f"The cluster could not run the worker: {said}")

    def _not_started(self, found: Mapping[str, Any], watched: _Watched) -> End | None:
        """The end of a worker that was to be stopped before it ran; Ray never says so itself."""
        if watched.how is not None:
            return End("The worker was ended before it started.")
        watched.log.heard += 1  # it waits; it does not hang
        if not watched.told and time.monotonic() - watched.since > PENDING:
            watched.told = True
            device = "VISIONLOOP_DEVICE=cpu asks for the resource `trainer` instead of a GPU."
            watched.log.say_soon(f"The cluster has no place for the worker yet. {device}")
        return None

    def _reached(self) -> None:
        if self._trouble:
            self._trouble = ""
            log.info("The cluster answers again.")

    def _not_reached(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            log.warning(
                "The cluster does not answer; its jobs are watched again later: %s", trouble
            )

    # --- the log

    async def _copy(self, claim: str, watched: _Watched, *, rest: bool = False) -> bool:
        """Copy the whole lines that a worker has written since; at its end the rest, too.

        Returns:
            Whether the log has what was fetched now: another machine may have copied meanwhile.
        """
        began = time.monotonic()
        copied = await asyncio.to_thread(watched.log.copied, claim)
        answer = await self._client.get(f"/api/jobs/{claim}/logs")
        answer.raise_for_status()
        text = str(answer.json()["logs"])
        watched.fetched = (began, time.monotonic() - began)
        whole = len(text) if rest else text.rfind("\n") + 1
        if new := text[copied:whole]:
            feed = partial(watched.log.feed, new.encode(), ended=rest, mark=(claim, whole))
            await asyncio.to_thread(feed)
            copied = await asyncio.to_thread(watched.log.copied, claim)
        elif len(text) != watched.length:  # half a line is a sign of life, too
            watched.log.heard += 1
        watched.length = len(text)
        return copied >= whole

    async def _copy_rest(self, claim: str, watched: _Watched, attempts: int) -> None:
        for left in reversed(range(attempts)):
            try:
                if await self._copy(claim, watched, rest=True):
                    return
            except (httpx.HTTPError, ValueError, KeyError) as error:
                if not left:
                    watched.log.say_soon(f"The end of the worker's output is lost: {_said(error)}.")
            await asyncio.sleep(self._interval)


def is_ours(claim: str | None) -> bool:
    """Whether a claim is of a worker on a cluster."""
    return claim is not None and claim.startswith(PREFIX)


def shared_settings(settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that the workers on the nodes are given: those that are set, without secrets.

    A database URL with a password is a secret; the nodes have it in their environment.
    """
    given_as = {name.upper(): value for name, value in environment.items()}
    shared = {}
    for name in settings.model_fields_set - NOT_OURS:
        value, given = getattr(settings, name), given_as.get(variable_of(name))
        if given is None or isinstance(value, SecretStr):
            continue
        if name == "database_url" and _has_password(make_url(given)):
            continue
        shared[variable_of(name)] = given
    return shared


def _has_password(url: URL) -> bool:
    """Whether a database URL has a password, which libpq takes among its parameters, too."""
    return bool(url.password) or any("password" in name.lower() for name in url.query)


def _said(error: Exception) -> str:
    """One line of an error; httpx has some without a message."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _refusal(answer: httpx.Response) -> str:
    """The reason of a refusal: the last line, as Ray sends tracebacks."""
    if answer.status_code in (401, 403):
        return f"{answer.text.strip()[:200]} (VISIONLOOP_CLUSTER_TOKEN)"
    lines = [line for line in answer.text.splitlines() if line.strip(" .")]
    return (lines[-1] if lines else f"status {answer.status_code}").strip()[:300]
