"""Jobs on a cluster: each way in which a worker, a node or the cluster can fail is settled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr

from jobs.claims import HERE, is_of_this_machine
from jobs.control import status_of
from jobs.dispatcher import Dispatcher
from jobs.execution.engine import SplitEngine
from jobs.execution.local_engine import LocalEngine
from jobs.execution.ray_engine import RayEngine, claim_of, shared_settings
from jobs.failures import DISK_FULL
from jobs.job import Job
from jobs.store import JobStore
from settings import Settings
from tests.support.dispatching import at_work, log_of, story, submit
from tests.support.fake_ray import NO_ROOM, TOKEN, FakeRay, fake_ray
from tests.support.patience import PATIENCE, until
from tests.support.two_machines import Stores

QUICK = 0.02  # seconds between two looks


@pytest.fixture
def store(two: Stores) -> JobStore:
    """The jobs of one of several machines: a cluster needs a log that all of them have."""
    return two[0]


@pytest.fixture
def ray() -> Iterator[FakeRay]:
    with fake_ray() as found:
        yield found


@asynccontextmanager
async def dispatching(
    store: JobStore, ray: FakeRay, token: str = TOKEN, **values: Any
) -> AsyncIterator[Dispatcher]:
    """A dispatcher whose jobs run on the cluster."""
    chosen = Settings(home=store.database.settings.home, **{"train_slots": 1} | values)
    engine = RayEngine(chosen, ray.url, SecretStr(token), QUICK)
    async with at_work(Dispatcher(store, chosen, engine, retry=0.05)) as dispatcher:
        yield dispatcher


async def launched(store: JobStore, ray: FakeRay, job: Job, attempt: int = 1) -> str:
    """The claim of a job's attempt, once it was submitted and the row says so."""
    claim = f"visionloop-{job.id}-{attempt}"
    await until(lambda: claim in ray.jobs and store.get(job.id).claim == claim)
    await until(lambda: store.get(job.id).status == "running")
    return claim


@asynccontextmanager
async def working(store: JobStore, ray: FakeRay) -> AsyncIterator[tuple[Dispatcher, Job, str]]:
    """A dispatcher, and a job whose worker runs on the cluster, with its claim."""
    job = submit(store)
    async with dispatching(store, ray) as dispatcher:
        claim = await launched(store, ray, job)
        ray.run(claim)
        yield dispatcher, job, claim


def test_a_job_is_submitted_once_with_its_claim_and_without_secrets(
    store: JobStore, ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISIONLOOP_TOKEN", "a secret of the service")
    monkeypatch.setenv("VISIONLOOP_GATE_MIN_GAIN", "0.25")

    async def body() -> None:
        job = submit(store)
        async with dispatching(store, ray) as dispatcher:
            claim = await launched(store, ray, job)
            assert (store.get(job.id).attempts, store.get(job.id).pid) == (1, None)
            assert status_of(store.get(job.id)) == "running"  # no process of this machine
            ray.run(claim, "epoch 1\nepoch")
            await until(lambda: "] epoch 1\n" in log_of(store, job))
            store.note(job.id, claim, outcome="completed", model_id="m:1")
            ray.run(claim, " 2\nthe last word")
            ray.exit(claim, 0)
            ended = await dispatcher.finished(job.id)
        assert (ended.status, ended.model_id, ended.claim) == ("completed", "m:1", None)
        lines = [line.partition("] ")[2] for line in log_of(store, job).splitlines()]
        assert lines == [
            f"Cluster job {claim} started.",
            "epoch 1",
            "epoch 2",
            "the last word",
            "Completed: m:1.",
        ]
        [sent] = ray.submitted
        assert sent["submission_id"] == claim
        assert sent["entrypoint"] == f"exec env -u OMP_NUM_THREADS python -m worker {job.id}"
        assert sent["entrypoint_num_gpus"] == 1
        assert sent["runtime_env"] == {
            "env_vars": {
                "VISIONLOOP_CLAIM": claim,
                "VISIONLOOP_ALLOW_DOWNLOAD": "never",  # of every test
                "VISIONLOOP_GATE_MIN_GAIN": "0.25",
                "PYTHONUNBUFFERED": "1",
                "RAY_JOB_STOP_WAIT_TIME_S": "10",
            }
        }

    story(store, body)


def test_a_job_without_a_gpu_asks_for_a_node_of_trainers(store: JobStore, ray: FakeRay) -> None:
    async def body() -> None:
        job = submit(store)
        async with dispatching(store, ray, device="cpu", train_threads=3):
            await launched(store, ray, job)
        [sent] = ray.submitted
        assert sent["entrypoint_resources"] == {"trainer": 1}
        assert "entrypoint_num_gpus" not in sent
        assert sent["entrypoint"] == f"exec env OMP_NUM_THREADS=3 python -m worker {job.id}"

    story(store, body)


@pytest.mark.parametrize(("allowed", "asked"), [(2, 2), (4, 2), (1, 1)])
def test_a_job_asks_for_the_gpus_that_it_was_planned_for(
    store: JobStore, ray: FakeRay, allowed: int, asked: int
) -> None:
    async def body() -> None:
        job = store.create("training", config={}, recipe={"gpus": 2})
        async with dispatching(store, ray, train_gpus=allowed):
            await launched(store, ray, job)
        [sent] = ray.submitted
        assert sent["entrypoint_num_gpus"] == asked

    story(store, body)


def test_no_more_jobs_are_submitted_than_there_are_slots(store: JobStore, ray: FakeRay) -> None:
    async def body() -> None:
        jobs = [submit(store) for _ in range(4)]
        async with dispatching(store, ray, train_slots=2) as dispatcher:
            claims = [await launched(store, ray, job) for job in jobs[:2]]
            await asyncio.sleep(0.7)
            assert list(ray.jobs) == claims
            ray.run(claims[0])
            ray.exit(claims[0], DISK_FULL)
            await dispatcher.finished(jobs[0].id)
            await launched(store, ray, jobs[2])
            assert len(ray.jobs) == 3

    story(store, body)


@pytest.mark.parametrize("attempts", [1, 2])
@pytest.mark.parametrize(
    ("code", "words"), [(-9, "was killed by SIGKILL"), (1, "exited with code 1")]
)
def test_a_worker_that_dies_counts_as_a_crash(
    store: JobStore, ray: FakeRay, code: int, words: str, attempts: int
) -> None:
    async def body() -> None:
        job = submit(store)
        async with dispatching(store, ray, train_attempts=attempts) as dispatcher:
            for attempt in range(1, attempts + 1):
                claim = await launched(store, ray, job, attempt)
                assert store.get(job.id).crashes == attempt - 1
                ray.run(claim)
                ray.exit(claim, code)
            ended = await dispatcher.finished(job.id)
        assert (ended.status, ended.attempts) == ("failed", attempts)
        assert words in (ended.error or "")

    story(store, body)


def test_a_full_disk_of_a_node_fails_the_job(store: JobStore, ray: FakeRay) -> None:
    async def body() -> None:
        job = submit(store)
        async with dispatching(store, ray) as dispatcher:
            ray.exit(await launched(store, ray, job), DISK_FULL)
            ended = await dispatcher.finished(job.id)
        assert (ended.status, ended.attempts) == ("failed", 1)
        assert "The disk is full" in (ended.error or "")

    story(store, body)


def test_a_cancelled_job_is_stopped_on_the_cluster(store: JobStore, ray: FakeRay) -> None:
    async def body() -> None:
        async with working(store, ray) as (dispatcher, job, claim):
            store.request_cancel(job.id)
            assert (await dispatcher.finished(job.id)).status == "stopped"
        assert ray.stops == [claim]

    story(store, body)


def test_a_job_that_waits_on_the_cluster_is_stopped_at_once(store: JobStore, ray: FakeRay) -> None:
    """Ray leaves it waiting for ever; its claim is no longer in the row, so it would do nothing."""

    async def body() -> None:
        job = submit(store)
        async with dispatching(store, ray) as dispatcher:
            claim = await launched(store, ray, job)
            store.request_cancel(job.id)
            ended = await dispatcher.finished(job.id)
            assert (ended.status, ended.claim) == ("stopped", None)
        assert ray.jobs[claim]["status"] == "PENDING"
        assert ray.stops == [claim]

    story(store, body)


@pytest.mark.parametrize("loss", ["node", "head", "no room", "stopped by another"])
def test_what_the_cluster_loses_is_no_crash_and_goes_on_elsewhere(
    store: JobStore, ray: FakeRay, loss: str
) -> None:
    said = {
        "node": "The cluster lost the node on which the worker ran.",
        "head": "The cluster does not know the job any more: its head was started anew.",
        "no room": f"The cluster could not run the worker: {NO_ROOM}",
        "stopped by another": "The cluster stopped the worker.",
    }[loss]

    async def body() -> None:
        job = submit(store)
        async with dispatching(store, ray, train_attempts=1):
            claim = await launched(store, ray, job)
            ray.run(claim, "epoch 1\n")
            await until(lambda: "epoch 1" in log_of(store, job))
            store.note(job.id, claim, checkpoint=1)
            if loss == "node":
                ray.lose_node(claim)
            elif loss == "head":
                ray.lose_head()
            elif loss == "no room":
                ray.set(claim, "FAILED", message=NO_ROOM, error_type="JOB_SUPERVISOR_ACTOR_DIED_")
            else:
                ray.stop(claim)
            await launched(store, ray, job, 2)
            assert store.get(job.id).crashes == 0
            assert store.note(job.id, claim, progress=99.0) is None  # if it still runs somewhere
        log = log_of(store, job)
        assert f"{said} The job resumes from the checkpoint of epoch 1." in log
        assert "] epoch 1\n" in log  # what was copied of its output is kept

    story(store, body)


def test_while_the_cluster_does_not_answer_nothing_is_settled(
    store: JobStore, ray: FakeRay
) -> None:
    """A dead head leaves a dashboard that answers 500; a proxy before it may answer 404."""

    async def body() -> None:
        async with working(store, ray) as (dispatcher, job, claim):
            ray.broken = True
            await asyncio.sleep(0.3)
            found = store.get(job.id)
            assert (found.status, found.claim) == ("running", claim)
            ray.broken = False
            store.note(job.id, claim, outcome="completed")
            ray.exit(claim, 0)
            assert (await dispatcher.finished(job.id)).status == "completed"

    story(store, body)


def test_a_cancel_arrives_once_the_cluster_answers_again(store: JobStore, ray: FakeRay) -> None:
    async def body() -> None:
        async with working(store, ray) as (dispatcher, job, _):
            ray.broken = True
            store.request_cancel(job.id)
            await asyncio.sleep(0.8)
            assert store.get(job.id).status == "stopping"
            ray.broken = False
            assert (await dispatcher.finished(job.id)).status == "stopped"

    story(store, body)


def test_a_submission_whose_answer_is_lost_is_not_made_twice(store: JobStore, ray: FakeRay) -> None:
    async def body() -> None:
        job = submit(store)
        ray.losing = True
        async with dispatching(store, ray):
            await until(lambda: ray.submitted)
            assert store.get(job.id).status == "queued"
            ray.losing = False
            await launched(store, ray, job)
            assert len(ray.submitted) == 1
        said = "cannot be started yet: The cluster cannot be reached"
        await until(lambda: said in log_of(store, job))

    story(store, body)


def test_a_wrong_token_is_told_in_the_jobs_log(store: JobStore, ray: FakeRay) -> None:
    async def body() -> None:
        job = submit(store)
        async with dispatching(store, ray, token="wrong"):
            await until(lambda: "cannot be started yet" in log_of(store, job))
        assert "Invalid authentication token (VISIONLOOP_CLUSTER_TOKEN)." in log_of(store, job)
        assert store.get(job.id).status == "queued"

    story(store, body)


def test_workers_outlive_the_service_and_are_adopted(store: JobStore, ray: FakeRay) -> None:
    async def body() -> None:
        job, ended_meanwhile, waiting = (submit(store) for _ in range(3))
        async with dispatching(store, ray, train_slots=2):
            claims = [await launched(store, ray, one) for one in (job, ended_meanwhile)]
            for claim in claims:
                ray.run(claim, "epoch 1\n")
            await until(lambda: "epoch 1" in log_of(store, job))
        assert not ray.stops
        found = store.get(job.id)
        assert (found.status, found.claim, status_of(found)) == ("running", claims[0], "running")
        ray.exit(claims[1], DISK_FULL)
        ray.run(claims[0], "epoch 2\n")
        async with dispatching(store, ray, train_slots=2) as second:
            assert (await second.finished(ended_meanwhile.id)).status == "failed"
            await launched(store, ray, waiting)
            await until(lambda: "epoch 2" in log_of(store, job))
            store.note(job.id, claims[0], outcome="completed")
            ray.exit(claims[0], 0)
            ended = await second.finished(job.id)
        assert (ended.status, ended.attempts) == ("completed", 1)
        assert log_of(store, job).count("epoch 1") == 1
        assert len(ray.submitted) == 3

    story(store, body)


def test_output_is_a_sign_of_life_of_a_worker_that_was_adopted_too(
    store: JobStore, ray: FakeRay
) -> None:
    more: dict[str, Any] = {"train_stall_minutes": 3.0 / 60}

    async def body() -> None:
        job = submit(store)
        async with dispatching(store, ray):
            claim = await launched(store, ray, job)
        async with dispatching(store, ray, **more):
            for second in range(6):
                ray.run(claim, f"second {second}\n")
                await asyncio.sleep(1)
            assert not ray.stops

    story(store, body)


def test_a_new_dispatcher_cancels_what_was_cancelled_meanwhile(
    store: JobStore, ray: FakeRay
) -> None:
    async def body() -> None:
        job = submit(store)
        async with dispatching(store, ray):
            claim = await launched(store, ray, job)
            ray.run(claim)
        assert store.request_cancel(job.id).status == "stopping"
        async with dispatching(store, ray) as second:
            assert (await second.finished(job.id)).status == "stopped"
        assert ray.stops == [claim]

    story(store, body)


def test_an_attempt_that_was_submitted_but_not_noted_is_not_submitted_again(
    store: JobStore, ray: FakeRay
) -> None:
    """The dispatcher was killed between the two; the next one has the same claim."""

    async def body() -> None:
        job = submit(store)
        assert store.claim(job.id, claim_of(job))
        ray.submit({"submission_id": claim_of(job)})
        async with dispatching(store, ray):
            await launched(store, ray, job)
        assert len(ray.submitted) == 1

    story(store, body)


def test_a_worker_that_hangs_counts_as_a_crash(store: JobStore, ray: FakeRay) -> None:
    async def body() -> None:
        job = submit(store)
        more: dict[str, Any] = {"train_stall_minutes": 0.3 / 60, "train_attempts": 1}
        async with dispatching(store, ray, **more) as dispatcher:
            ray.run(await launched(store, ray, job))
            ended = await dispatcher.finished(job.id)
        assert (ended.status, ended.attempts) == ("failed", 1)
        assert (ended.error or "").startswith("The worker sent no heartbeat")

    story(store, body)


def test_a_worker_that_waits_for_a_place_does_not_hang(
    store: JobStore, ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.execution.ray_engine.PENDING", 0.0)

    async def body() -> None:
        job = submit(store)
        async with dispatching(store, ray, train_stall_minutes=0.7 / 60):
            claim = await launched(store, ray, job)
            await asyncio.sleep(2)
            assert store.get(job.id).claim == claim
            assert not ray.stops
        assert log_of(store, job).count("The cluster has no place for the worker yet.") == 1

    story(store, body)


def test_some_kinds_run_on_this_machine(store: JobStore, ray: FakeRay) -> None:
    async def body() -> None:
        chosen = Settings(home=store.database.settings.home, train_slots=1, device="cpu")
        local = LocalEngine(chosen, command=lambda _: ["sleep", "9999"])
        cluster = RayEngine(chosen, ray.url, SecretStr(TOKEN), QUICK)
        engine = SplitEngine(local, cluster, ("fetch",), is_of_this_machine)
        dispatcher = Dispatcher(store, chosen, engine)
        dispatcher.start()
        fetch, training = submit(store, "fetch"), submit(store)
        claim = await launched(store, ray, training)
        await until(lambda: store.get(fetch.id).status == "running")
        assert (store.get(fetch.id).claim or "").startswith(HERE)
        assert list(ray.jobs) == [claim]
        await asyncio.wait_for(dispatcher.stop(), PATIENCE)
        assert [store.get(job.id).status for job in (fetch, training)] == ["queued", "running"]

    story(store, body)


def test_neither_secrets_nor_what_holds_for_the_service_only_is_shared() -> None:
    given = {
        "VISIONLOOP_DATABASE_URL": "postgresql+psycopg://me:hunter2@db/signs",
        "VISIONLOOP_LABEL_STUDIO_TOKEN": "hunter3",
        "VISIONLOOP_WEBHOOK_SECRET": "hunter4hunter4hunter4",
        "VISIONLOOP_HOME": "/srv/visionloop",
        "VISIONLOOP_ALLOW_DOWNLOAD": "never",
        "VISIONLOOP_STORE_URL": "s3://bucket/prefix",
    }
    fields = {name.removeprefix("VISIONLOOP_").lower(): value for name, value in given.items()}
    settings = Settings(**fields)  # type: ignore[arg-type]
    assert shared_settings(settings, given) == {
        "VISIONLOOP_ALLOW_DOWNLOAD": "never",
        "VISIONLOOP_STORE_URL": "s3://bucket/prefix",
    }
    for secret in ("password=hunter2", "sslmode=require&sslpassword=hunter2"):
        given["VISIONLOOP_DATABASE_URL"] = f"postgresql+psycopg://me@db/signs?{secret}"
        assert "VISIONLOOP_DATABASE_URL" not in shared_settings(settings, given)
    given["VISIONLOOP_DATABASE_URL"] = "postgresql+psycopg://db/signs"
    assert "VISIONLOOP_DATABASE_URL" in shared_settings(settings, given)
