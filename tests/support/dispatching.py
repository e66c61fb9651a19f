"""A dispatcher under test, with shell scripts for workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import psutil

from jobs.claims import HERE
from jobs.dispatcher import Dispatcher
from jobs.execution.local_engine import LocalEngine, Machine, Timing
from jobs.job import Job, Kind
from jobs.processes import is_alive, marked
from jobs.store import JobStore
from settings import Settings
from tests.support.patience import PATIENCE, until

CLAIM = f"{HERE}1"  # of the worker that `begin` pretends to start
WAIT = "while [ ! -e go ]; do sleep 0.05; done"
SCATTERED = "setsid sleep 9999 & sleep 9999 & echo ready; touch ready; sleep 9999"


def submit(store: JobStore, kind: Kind = "training") -> Job:
    return store.create(kind, config={}, recipe={})


def begin(
    store: JobStore, job_id: str, pid: int = 7, since: float = 1.0, claim: str = CLAIM
) -> bool:
    """Set a queued job to running, as a dispatcher does that starts a worker with this claim."""
    return store.claim(job_id, claim) and store.start(job_id, claim, pid, since)


@asynccontextmanager
async def dispatching(
    store: JobStore,
    script: str,
    slots: int = 1,
    settings: dict[str, Any] | None = None,
    timing: Timing | None = None,
    machine: Machine | None = None,
    **more: Any,
) -> AsyncIterator[Dispatcher]:
    """A dispatcher whose workers run a shell script in their job's folder."""

    def command(job: Job) -> list[str]:
        return ["sh", "-c", f"cd {store.folder(job.id)}; {script}"]

    home = store.folder("x").parent.parent
    chosen = Settings(home=home, train_slots=slots, device="cpu", **(settings or {}))
    engine = LocalEngine(
        chosen, command=command, timing=timing or Timing(), machine=machine or Machine()
    )
    async with at_work(Dispatcher(store, chosen, engine, **more)) as dispatcher:
        yield dispatcher


@asynccontextmanager
async def at_work(dispatcher: Dispatcher) -> AsyncIterator[Dispatcher]:
    """A dispatcher from its start to its stop."""
    dispatcher.start()
    try:
        yield dispatcher
    finally:
        await asyncio.wait_for(dispatcher.stop(), PATIENCE)


async def running(store: JobStore, job: Job) -> Job:
    """The job, once it runs, in a process that lives."""
    await until(lambda: store.get(job.id).status == "running")
    found = store.get(job.id)
    assert is_alive(found.pid, found.pid_started)
    return found


def log_of(store: JobStore, job: Job) -> str:
    path = store.log_to_read(job.id)
    return path.read_text() if path.exists() else ""


def left(store: JobStore) -> list[psutil.Process]:
    """The processes of this store's jobs."""
    found = marked()
    return [process for job in store.list() for process in found.get(job.id, [])]


def left_of(store: JobStore, job: Job) -> list[str]:
    folder = store.folder(job.id)
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def story(store: JobStore, body: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(_awaited(body), PATIENCE))
    assert not left(store)


async def _awaited(body: Callable[[], Awaitable[None]]) -> None:
    await body()
