"""A training on several GPUs, which are the CPU here: see `tests.support.cpu_ranks`."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest

from errors import ValidationFailed, VisionLoopError
from jobs import worker
from jobs.claims import CLAIM_ENV
from jobs.dispatcher import Dispatcher
from jobs.execution.local_engine import LocalEngine, Timing
from jobs.handle import JobCancelled, JobInterrupted
from jobs.job import Job
from jobs.processes import marked
from jobs.store import JobStore
from jobs.worker import WorkerJob
from models_store.registry import Registry
from settings import get_settings
from source_tree import ROOT, module_command
from tests.support.dispatching import CLAIM, at_work, begin, left, log_of
from tests.support.patience import PATIENCE, until, wait_until
from tests.support.trainer_job import RecordingJob, narrow_network, recipe, run
from training.yolo import ranks


@pytest.fixture(autouse=True)
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("VISIONLOOP_TRAIN_GPUS", "2")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    get_settings.cache_clear()
    yield
    monkeypatch.undo()
    get_settings.cache_clear()


@pytest.fixture
def jobs(registry: Registry) -> JobStore:
    return JobStore(registry.database)


def submit(jobs: JobStore, registry: Registry, **fields: Any) -> Job:
    planned = recipe(registry, "classify", model=narrow_network(registry, "classify"), **fields)
    return jobs.create(
        "training",
        config={},
        recipe=planned.model_dump(mode="json"),
        mode=planned.mode,
        task="classify",
        total_epochs=planned.epochs,
    )


def command(job: Job) -> list[str]:
    return module_command("tests.support.cpu_ranks", job.id, "--parent", str(os.getpid()))


@asynccontextmanager
async def dispatching(jobs: JobStore) -> AsyncIterator[Dispatcher]:
    chosen = get_settings()
    engine = LocalEngine(chosen, command=command, timing=Timing(saving=PATIENCE))
    async with at_work(Dispatcher(jobs, chosen, engine)) as dispatcher:
        yield dispatcher


def story(jobs: JobStore, body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), PATIENCE))
    assert not left(jobs)


def second_rank(job: Job) -> list[psutil.Process]:
    return [process for process in marked().get(job.id, []) if process.environ().get("RANK") == "1"]


def test_two_ranks_train_one_model(registry: Registry, jobs: JobStore) -> None:
    async def body() -> None:
        job = submit(jobs, registry, mode="freeze_strategy", epochs=2, min_epochs_per_stage=1)
        async with dispatching(jobs) as dispatcher:
            ended = await dispatcher.finished(job.id)
        text = log_of(jobs, job)
        assert (ended.status, ended.attempts) == ("completed", 1), text
        assert "Trains on 2 GPUs, with 4 images of a batch on each." in text
        for line in (
            "Epoch 1/2: ",
            "Epoch 2/2: ",
            "Training from the start",
            "Start weights know",
            "Stage 2 of 2",
        ):
            assert text.count(line) == 1, text
        assert ended.model_id is not None
        assert len(jobs.epochs(job.id)) == 2
        of_ranks = [
            (jobs.folder(job.id) / f"steps-of-rank-{rank}").read_text().split() for rank in (0, 1)
        ]
        assert len(of_ranks[0]) == 2 * 64 // 8  # each batch is one step of both
        assert of_ranks[0] == of_ranks[1]
        assert len(set(of_ranks[0])) == len(of_ranks[0])

    story(jobs, body)


@pytest.mark.slow
def test_a_rank_that_dies_a_stop_and_a_cancel_end_all_ranks(
    registry: Registry, jobs: JobStore
) -> None:
    async def body() -> None:
        job = submit(jobs, registry, epochs=500, patience=0)

        def text() -> str:
            return log_of(jobs, job)

        async with dispatching(jobs) as dispatcher:
            await until(lambda: "Epoch 2/500" in log_of(jobs, job))
            [second] = second_rank(job)
            second.kill()
            await until(lambda: "GPU 1 is out: The worker was killed by SIGKILL." in text())
            await until(lambda: "The job resumes from the checkpoint of epoch" in text())
            await until(lambda: "Training from epoch" in text() and text().count("Epoch ") > 4)
            assert second_rank(job)
        stopped = jobs.get(job.id)
        assert (stopped.status, stopped.crashes) == ("queued", 0), text()
        assert "Saved after batch" in text()
        assert not left(jobs)
        async with dispatching(jobs) as dispatcher:
            await until(
                lambda: f"Training from batch {stopped.checkpoint_batch + 1} of 8" in text()
            )
            jobs.request_cancel(job.id)
            assert (await dispatcher.finished(job.id)).status == "stopped"
            assert not left(jobs)

    story(jobs, body)


def test_a_training_for_more_gpus_than_there_are_is_refused(
    registry: Registry, job: RecordingJob
) -> None:
    planned = recipe(registry, "classify", model=narrow_network(registry, "classify"), epochs=1)
    with pytest.raises(VisionLoopError, match=r"is to use 2 GPUs .* but finds 0\. Set it to 1"):
        run(planned, job)


def test_a_rank_comes_before_ultralytics() -> None:
    import ultralytics.utils  # noqa: F401

    ranks.lead(1)
    with pytest.raises(RuntimeError, match="before its rank"):
        ranks.lead(2)
    assert "RANK" not in os.environ


HUNG = """
import sys, time
from pathlib import Path
from training.yolo import ranks

class Job:
    id = "of no row"
    log = staticmethod(lambda line: print(line, flush=True))

ranks.MODULE, ranks.GRACE = "no_such_module", 0.1
with ranks.others(Job, 2, {}):
    time.sleep(9999)  # as in a collective operation of NCCL
"""


def test_a_worker_that_hangs_because_a_rank_died_ends() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HUNG], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )
    assert ended.returncode == 1
    assert "GPU 1 is out: The worker exited with code 1" in ended.stdout
    assert "No module named no_such_module" in ended.stderr


@pytest.mark.parametrize(
    ("raised", "becomes"),
    [
        (RuntimeError("Connection closed by peer"), JobInterrupted),
        (ValidationFailed("Out of memory"), ValidationFailed),
        (JobCancelled(), JobCancelled),
    ],
)
def test_an_error_that_a_dead_rank_explains_is_no_failure_of_the_job(
    job: RecordingJob,
    monkeypatch: pytest.MonkeyPatch,
    raised: BaseException,
    becomes: type[BaseException],
) -> None:
    monkeypatch.setattr(ranks, "MODULE", "no_such_module")

    def work() -> None:
        with ranks.others(job, 2, {}):
            wait_until(lambda: "GPU 1 is out" in job.text)
            raise raised

    with pytest.raises(becomes):
        work()
    assert "MASTER_PORT" not in os.environ


def test_an_interrupted_job_ends_without_an_outcome(registry: Registry, jobs: JobStore) -> None:
    def work(*_: Any) -> dict[str, Any]:
        raise JobInterrupted

    row = jobs.create("training", config={}, recipe={})
    begin(jobs, row.id)
    row = jobs.get(row.id)
    assert worker.run(WorkerJob(jobs, row), row, registry, work) == 1
    assert jobs.get(row.id).outcome is None
    jobs.finish(row.id, "stopped")


@pytest.mark.slow
def test_a_further_rank_takes_part_only_while_its_worker_has_the_job(
    registry: Registry, jobs: JobStore
) -> None:
    """Its handle is made from the environment, and its rank is Ultralytics'."""
    row = jobs.create("training", config={}, recipe={})
    begin(jobs, row.id)
    code = (
        "import os, signal, sys; from training.rank import join; "
        f"joined = join({row.id!r}, os.getppid()); "
        "from ultralytics.utils import RANK, WORLD_SIZE; "
        "print(RANK, WORLD_SIZE, joined and joined[0].folder); "
        "print(signal.getsignal(signal.SIGTERM) is signal.SIG_IGN)"
    )
    found = {}
    for claim in (CLAIM, f"{CLAIM}0"):
        ended = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, **ranks.rank_environment(1, 2), CLAIM_ENV: claim},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        found[claim] = ended.stdout.split()
    jobs.finish(row.id, "stopped")
    assert found[CLAIM] == ["1", "2", str(jobs.folder(row.id)), "True"]
    assert found[f"{CLAIM}0"] == ["1", "2", "None", "True"]
