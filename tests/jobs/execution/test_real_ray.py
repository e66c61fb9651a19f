"""The failures of test_ray_engine.py on a real Ray cluster of this machine (make test-cluster)."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest
from pydantic import SecretStr

from database import Database
from jobs.dispatcher import Dispatcher
from jobs.execution.ray_engine import RayEngine
from jobs.failures import DISK_FULL
from jobs.job import Job
from jobs.states import LIVE
from jobs.store import JobStore
from settings import Settings
from tests.support.dispatching import at_work, log_of
from tests.support.patience import PATIENCE, until
from tests.support.ray_cluster import RAY, TOKEN, RayCluster, ray_cluster

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(not RAY, reason="TEST_RAY names no program `ray`; see make test-cluster"),
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobStore]:
    store = JobStore(Database(Settings(home=tmp_path_factory.mktemp("home"))))
    yield store
    store.database.close()


@pytest.fixture(scope="module")
def ray(shared: JobStore) -> Iterator[RayCluster]:
    """A cluster with one node, at every test's beginning."""
    with ray_cluster(shared.database.settings.home) as found:
        found.start_node()
        yield found


@pytest.fixture(autouse=True)
def _idle(shared: JobStore) -> Iterator[None]:
    """A test that failed leaves no job; a worker that still runs ends itself."""
    yield
    for job in shared.list(None, "queued", *LIVE):
        shared.finish(job.id, "stopped")


@asynccontextmanager
async def dispatching(
    store: JobStore, ray: RayCluster, slots: int = 1, **values: Any
) -> AsyncIterator[Dispatcher]:
    home = store.database.settings.home
    chosen = Settings(home=home, train_slots=slots, device="cpu", **values)
    engine = RayEngine(chosen, ray.url, SecretStr(TOKEN), 0.2)
    async with at_work(Dispatcher(store, chosen, engine)) as dispatcher:
        yield dispatcher


def submit(store: JobStore, mode: str = "wait") -> Job:
    return store.create("training", config={}, recipe={}, mode=mode)


def go(store: JobStore, job: Job) -> None:
    """Have a job that waits complete."""
    (store.folder(job.id) / "go").touch()


async def working(store: JobStore, job: Job, attempt: int = 1) -> tuple[int, str]:
    """Process and node of the worker of an attempt, once its log has them."""
    text = rf"process (\d+) on (\S+), attempt {attempt}\n"
    await until(lambda: re.search(text, log_of(store, job)), 0.1)
    found = re.search(text, log_of(store, job))
    assert found is not None
    return int(found[1]), found[2]


def run(body: Any) -> None:
    asyncio.run(asyncio.wait_for(body(), PATIENCE))


def test_a_job_runs_on_the_node_and_its_output_is_kept(shared: JobStore, ray: RayCluster) -> None:
    async def body() -> None:
        job = submit(shared)
        async with dispatching(shared, ray) as dispatcher:
            _, node = await working(shared, job)
            assert node.startswith("127.0.0.")
            assert shared.get(job.id).progress == 50.0
            go(shared, job)
            ended = await dispatcher.finished(job.id)
        assert (ended.status, ended.model_id, ended.attempts) == ("completed", "m:1", 1)

    run(body)


def test_an_exit_code_is_seen(shared: JobStore, ray: RayCluster) -> None:
    async def body() -> None:
        job = submit(shared, f"exit {DISK_FULL}")
        async with dispatching(shared, ray) as dispatcher:
            ended = await dispatcher.finished(job.id)
        assert (ended.status, ended.attempts) == ("failed", 1)
        assert "The disk is full" in (ended.error or "")

    run(body)


def test_a_killed_worker_resumes_and_counts_as_a_crash(shared: JobStore, ray: RayCluster) -> None:
    async def body() -> None:
        job = submit(shared)
        async with dispatching(shared, ray) as dispatcher:
            process, _ = await working(shared, job)
            os.kill(process, signal.SIGKILL)
            await working(shared, job, 2)
            assert shared.get(job.id).crashes == 1
            go(shared, job)
            assert (await dispatcher.finished(job.id)).status == "completed"
        assert "The worker was killed by SIGKILL. The job resumes" in log_of(shared, job)

    run(body)


def test_a_cancelled_job_is_stopped(shared: JobStore, ray: RayCluster) -> None:
    async def body() -> None:
        job = submit(shared)
        async with dispatching(shared, ray) as dispatcher:
            process, _ = await working(shared, job)
            shared.request_cancel(job.id)
            assert (await dispatcher.finished(job.id)).status == "stopped"
        assert not psutil.pid_exists(process)

    run(body)


def test_a_worker_that_the_cluster_stops_has_time_to_save(
    shared: JobStore, ray: RayCluster
) -> None:
    async def body() -> None:
        job = submit(shared)
        async with dispatching(shared, ray, train_attempts=1) as dispatcher:
            await working(shared, job)
            ray.stop_job(str(shared.get(job.id).claim))
            await working(shared, job, 2)
            assert (shared.get(job.id).checkpoint, shared.get(job.id).crashes) == (1, 0)
            go(shared, job)
            assert (await dispatcher.finished(job.id)).status == "completed"
        log = log_of(shared, job)
        assert "] saved\n" in log
        assert "The cluster stopped the worker. The job resumes from the checkpoint" in log

    run(body)


def test_what_waits_is_stopped_at_once_and_never_starts(shared: JobStore, ray: RayCluster) -> None:
    """One node, two slots: more jobs than the cluster has room for."""

    async def body() -> None:
        first, second = submit(shared), submit(shared)
        async with dispatching(shared, ray, slots=2) as dispatcher:
            await working(shared, first)
            await until(lambda: ray.status(str(shared.get(second.id).claim)) == "PENDING", 0.1)
            claim = str(shared.get(second.id).claim)
            shared.request_cancel(second.id)
            assert (await dispatcher.finished(second.id)).status == "stopped"
            go(shared, first)
            await dispatcher.finished(first.id)
            third = submit(shared)
            await working(shared, third)
            go(shared, third)
            await dispatcher.finished(third.id)
        assert ray.status(claim) in ("PENDING", "STOPPED")  # of late, and without having run
        assert "process" not in log_of(shared, second)

    run(body)


def test_a_worker_outlives_the_service(shared: JobStore, ray: RayCluster) -> None:
    async def body() -> None:
        job = submit(shared)
        async with dispatching(shared, ray):
            process, _ = await working(shared, job)
        os.kill(process, 0)
        assert shared.get(job.id).status == "running"
        async with dispatching(shared, ray) as second:
            await asyncio.sleep(1)
            go(shared, job)
            ended = await second.finished(job.id)
        assert (ended.status, ended.attempts) == ("completed", 1)
        assert log_of(shared, job).count(f"process {process}") == 1

    run(body)


def test_a_wrong_token_starts_nothing(shared: JobStore, ray: RayCluster) -> None:
    async def body() -> None:
        job = submit(shared)
        chosen = Settings(home=shared.database.settings.home, train_slots=1, device="cpu")
        dispatcher = Dispatcher(shared, chosen, RayEngine(chosen, ray.url, SecretStr("x"), 0.2))
        dispatcher.start()
        await until(lambda: "(VISIONLOOP_CLUSTER_TOKEN)" in log_of(shared, job))
        await dispatcher.stop()
        shared.request_cancel(job.id)

    run(body)


def test_a_job_goes_on_elsewhere_when_its_node_is_lost(shared: JobStore, ray: RayCluster) -> None:
    async def body() -> None:
        job = submit(shared)
        async with dispatching(shared, ray, train_attempts=1) as dispatcher:
            first, node = await working(shared, job)
            other = await asyncio.to_thread(ray.start_node)
            began = time.monotonic()
            ray.kill_raylet(node)
            _, resumed_on = await working(shared, job, 2)
            print(f"Resumed {time.monotonic() - began:.1f} s after the node was lost.")
            assert resumed_on == other
            assert shared.get(job.id).crashes == 0
            await until(lambda: not psutil.pid_exists(first))  # by itself, if not with its node
            go(shared, job)
            assert (await dispatcher.finished(job.id)).status == "completed"
        assert "The cluster lost the node on which the worker ran." in log_of(shared, job)

    run(body)
