"""Stops, hangs, and what an earlier life left: jobs go on, folders are tidied."""

from __future__ import annotations

import asyncio
import os
import subprocess

import pytest

from jobs.artifacts import note_best
from jobs.execution.local_engine import Timing
from jobs.finalizer import JobFinalizer
from jobs.processes import marked
from jobs.states import Status
from jobs.store import JobStore
from tests.support.dispatching import (
    CLAIM,
    SCATTERED,
    WAIT,
    begin,
    dispatching,
    left,
    left_of,
    log_of,
    running,
    story,
    submit,
    until,
)
from tests.support.patience import PATIENCE

SAVES = "trap 'sleep 0.5; touch saved; exit 143' USR1; touch ready; while true; do sleep 0.05; done"


def test_a_stop_of_the_service_sends_its_jobs_back_to_the_queue(store: JobStore) -> None:
    async def body() -> None:
        first, second = submit(store), submit(store)
        async with dispatching(store, SCATTERED, slots=2):
            await running(store, first)
            await running(store, second)
            store.request_cancel(second.id)
        interrupted = store.get(first.id)
        assert (interrupted.status, interrupted.crashes) == ("queued", 0)
        assert store.get(second.id).status == "stopped"
        assert "when the service starts again" in log_of(store, first)
        assert not left(store)
        async with dispatching(store, "exec sleep 9999"):
            assert (await running(store, first)).attempts == 2

    story(store, body)


def test_a_stop_of_the_service_lets_a_worker_save_what_it_has(store: JobStore) -> None:
    async def body() -> None:
        job = submit(store)
        async with dispatching(store, SAVES):
            started = await running(store, job)
            await until((store.folder(job.id) / "ready").exists)
            assert started.claim is not None
            store.note(job.id, started.claim, checkpoint_batch=3, progress=7.0)
        assert (store.folder(job.id) / "saved").exists()
        found = store.get(job.id)
        assert (found.status, found.progress) == ("queued", 7.0)
        assert "resumes from batch 4 of epoch 1 when the service starts again" in log_of(store, job)

    story(store, body)


def test_a_cancel_does_not_wait_for_a_worker_that_could_save(store: JobStore) -> None:
    async def body() -> None:
        job = submit(store)
        script = "trap '' TERM USR1; touch ready; while true; do sleep 0.05; done"
        timing = Timing(saving=10 * PATIENCE)
        async with dispatching(store, script, timing=timing) as dispatcher:
            await running(store, job)
            await until((store.folder(job.id) / "ready").exists)
            store.request_cancel(job.id)
            assert (await dispatcher.finished(job.id)).status == "stopped"

    story(store, body)


def test_a_worker_that_takes_too_long_to_save_is_ended(store: JobStore) -> None:
    async def body() -> None:
        job = submit(store)
        script = "trap '' USR1; touch ready; while true; do sleep 1; done"
        async with dispatching(store, script, timing=Timing(saving=0.3)):
            await running(store, job)
            await until((store.folder(job.id) / "ready").exists)
        assert store.get(job.id).status == "queued"
        assert "resumes from the beginning" in log_of(store, job)

    story(store, body)


@pytest.mark.parametrize("script", ["kill -STOP $$", "exec sleep 9999"])
def test_a_worker_that_hangs_is_ended_and_in_the_end_given_up(store: JobStore, script: str) -> None:
    timing = Timing(term_grace=0.1)

    async def body() -> None:
        job = submit(store)
        more = {"train_stall_minutes": 0.3 / 60, "train_attempts": 2}
        async with dispatching(store, script, settings=more, timing=timing) as dispatcher:
            ended = await dispatcher.finished(job.id)
        assert (ended.status, ended.attempts) == ("failed", 2)
        assert (ended.error or "").startswith(
            "The worker sent no heartbeat (progress or output) for 0.005 minutes"
        )

    story(store, body)


@pytest.mark.parametrize("sign", ["output", "half a line", "progress"])
def test_a_worker_that_gives_a_sign_of_life_is_let_be(store: JobStore, sign: str) -> None:
    patience, steps = 6.0, 14  # seconds without a sign; half seconds that pass
    script = {
        "output": "while true; do echo alive; sleep 0.1; done",
        "half a line": "while true; do printf .; sleep 0.1; done",
        "progress": "exec sleep 9999",
    }[sign]

    async def body() -> None:
        job = submit(store)
        more = {"train_stall_minutes": patience / 60}
        async with dispatching(store, script, settings=more):
            started = await running(store, job)
            assert started.claim is not None
            for step in range(steps):
                await asyncio.sleep(0.5)
                if sign == "progress":
                    store.note(job.id, started.claim, progress=float(step))
            assert store.get(job.id).attempts == 1

    story(store, body)


@pytest.mark.parametrize("ending", ["stopped", "failed", "completed"])
def test_what_has_ended_keeps_its_log_its_figures_and_best_weights_without_a_model(
    store: JobStore, ending: Status
) -> None:
    async def body() -> None:
        job, old = submit(store), submit(store)
        store.finish(old.id, ending)  # by a dispatcher that was killed before it tidied
        for folder in (store.folder(job.id), store.folder(old.id)):
            for name in ("checkpoints/last.pt", "data/x", "model/m", "run/args.yaml"):
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).touch()
            (folder / "run" / "results.csv").touch()
            (folder / "checkpoints" / "best.pt").touch()
            note_best(folder / "checkpoints", 7)
        async with dispatching(store, WAIT) as dispatcher:
            started = await running(store, job)
            assert started.claim is not None
            if ending == "stopped":
                store.request_cancel(job.id)
            else:
                store.note(job.id, started.claim, outcome=ending)
                (store.folder(job.id) / "go").touch()
            assert (await dispatcher.finished(job.id)).status == ending
            await until(lambda: not (store.folder(job.id) / "checkpoints" / "last.pt").exists())
        best = [] if ending == "completed" else ["checkpoints/best.json", "checkpoints/best.pt"]
        assert left_of(store, old) == [*best, "run/results.csv"]
        assert set(left_of(store, job)) - {"go"} == {"log", "run/results.csv", *best}
        advice = (
            "Its best weights (epoch 7) are kept. To start from them, send "
            f"resume_weights={job.id}."
        )
        assert (advice in log_of(store, job)) == bool(best)
        assert (advice in (store.get(job.id).error or "")) == (ending == "failed")

    story(store, body)


def test_what_an_earlier_life_left_is_taken_over(store: JobStore) -> None:
    async def body() -> None:
        stopping, running_, published, failed, done = (submit(store) for _ in range(5))
        for job in (stopping, running_, published, failed, done):
            begin(store, job.id, 2**22 + 1)
        store.request_cancel(stopping.id)
        store.request_cancel(published.id)
        store.note(failed.id, CLAIM, outcome="failed", error="It broke.")
        store.note(done.id, CLAIM, outcome="completed", model_id="m:2")
        subprocess.run(  # noqa: ASYNC221
            ["sh", "-c", "sleep 9999 > /dev/null 2>&1 &"],
            env={**os.environ, "VISIONLOOP_JOB": running_.id},
            check=True,
        )
        (orphan,) = marked()[running_.id]

        def model_of(job_id: str) -> str | None:
            return "m:1" if job_id == published.id else None

        async with dispatching(store, "exec sleep 9999", published=model_of):
            await until(lambda: store.get(running_.id).attempts == 2)
            await running(store, running_)
            assert orphan not in marked()[running_.id]
        ended = [store.get(job.id) for job in (stopping, published, failed, done)]
        assert [job.status for job in ended] == ["stopped", "completed", "failed", "completed"]
        assert [job.model_id for job in ended] == [None, "m:1", None, "m:2"]

    story(store, body)


def test_a_published_model_is_evaluated_again_but_not_for_ever(store: JobStore) -> None:
    """A worker that dies between publication and its last word: the model stays, whatever."""

    async def body() -> None:
        job = submit(store)
        async with dispatching(store, "kill -9 $$", published=lambda _: "m:1") as dispatcher:
            ended = await dispatcher.finished(job.id)
        assert (ended.status, ended.model_id, ended.attempts) == ("completed", "m:1", 3)
        log = log_of(store, job)
        assert log.count("The job resumes with the evaluation of m:1.") == 2
        assert "The model is published, but its evaluation did not finish.\n" in log

    story(store, body)


def test_a_second_dispatcher_of_one_home_waits_for_the_first(store: JobStore) -> None:
    async def body() -> None:
        async with dispatching(store, "exec sleep 9999"):
            await asyncio.sleep(0.1)
            async with dispatching(store, "exec sleep 9999"):
                job = submit(store)
                await running(store, job)
                await asyncio.sleep(0.7)
                assert len(marked()[job.id]) == 1

    story(store, body)


def test_kills_of_the_service_use_up_no_attempts(store: JobStore) -> None:
    async def body() -> None:
        job = submit(store)
        for life in range(5):
            begin(store, job.id, 2**22 + 1)
            async with dispatching(store, "exec sleep 9999"):
                attempts = 2 * life + 2
                await until(lambda: store.get(job.id).attempts >= attempts)  # noqa: B023
                await running(store, job)
            found = store.get(job.id)
            assert (found.status, found.crashes) == ("queued", 0)

    story(store, body)


def test_a_job_that_brings_the_service_down_each_time_is_given_up(store: JobStore) -> None:
    job = submit(store)
    finalizer = JobFinalizer(store, 1, lambda _: None)
    for life in range(1, 11):
        assert store.get(job.id).status == "queued", life
        begin(store, job.id, 2**22 + 1)
        finalizer.recover(job.id)
    assert store.get(job.id).status == "failed"


def test_every_epoch_is_observed_once(store: JobStore) -> None:
    async def body() -> None:
        job = submit(store)
        seen: list[tuple[str, float]] = []
        async with dispatching(
            store, WAIT, on_epoch=lambda *epoch: seen.append(epoch)
        ) as dispatcher:
            started = await running(store, job)
            assert started.claim is not None
            store.note(job.id, started.claim, checkpoint=2, epoch_seconds=1.5)
            await until(lambda: len(seen) == 2)
            last = {"checkpoint": 3, "epoch_seconds": 2.5, "outcome": "completed"}
            store.note(job.id, started.claim, **last)
            (store.folder(job.id) / "go").touch()
            await dispatcher.finished(job.id)
            await until(lambda: len(seen) == 3)
        assert seen == [("training", 1.5), ("training", 1.5), ("training", 2.5)]

    story(store, body)
