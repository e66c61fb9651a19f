"""How many GPUs a job gets, and which."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.execution import gpus, local_engine
from jobs.execution.engine import Ending
from jobs.execution.gpus import check_gpus, gpus_of
from jobs.execution.local_engine import LocalEngine, Machine, slots
from jobs.store import JobStore
from settings import Settings
from tests.support.dispatching import story
from tests.support.patience import until


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the driver report a number of devices."""

    def pretend(count: int) -> None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        for module in (gpus, local_engine):
            monkeypatch.setattr(module, "cuda_devices", lambda: count)
            monkeypatch.setattr(module, "device", lambda _: "cuda" if count else "cpu")

    return pretend


@pytest.mark.parametrize(
    ("count", "each", "given", "expected"),
    [
        (0, 1, 0, 1),
        (1, 1, 0, 1),
        (4, 1, 0, 4),
        (4, 2, 0, 2),
        (5, 2, 0, 2),
        (2, 4, 0, 1),
        (4, 2, 3, 3),
    ],
)
def test_slots_are_as_many_as_have_gpus_of_their_own(
    devices: Any, count: int, each: int, given: int, expected: int
) -> None:
    devices(count)
    assert slots(Settings(train_gpus=each, train_slots=given)) == expected


@pytest.mark.parametrize(
    ("planned", "allowed", "used"), [(1, 4, 1), (2, 2, 2), (2, 4, 2), (4, 2, 1), (2, 1, 1)]
)
def test_a_job_uses_what_it_was_planned_for_or_one(planned: int, allowed: int, used: int) -> None:
    assert gpus_of({"gpus": planned}, Settings(train_gpus=allowed)) == used
    assert gpus_of({}, Settings(train_gpus=allowed)) == 1  # an evaluation


def test_jobs_get_gpus_that_no_other_job_has(
    store: JobStore, devices: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two trainings of two GPUs, and jobs of one that fill up what is least used."""
    devices(5)
    assert chosen_for(store, [2, 2, 1, 1]) == ["0,1", "2,3", "4", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5,6,7,9")
    assert chosen_for(store, [2, 1, 2]) == ["3,GPU-5", "6", "7,9"]
    devices(1)
    assert chosen_for(store, [2]) == [None]  # its worker refuses


def chosen_for(store: JobStore, wanted: list[int]) -> list[str | None]:
    """CUDA_VISIBLE_DEVICES of the workers of jobs, which are started one after the other."""
    seen: list[str | None] = []

    def start(command: Any, **options: Any) -> Any:
        seen.append(options["env"].get("CUDA_VISIBLE_DEVICES"))
        return Machine().start(["sleep", "9999"], **options)

    async def body() -> None:
        settings = Settings(home=store.database.settings.home, train_gpus=2)
        engine = LocalEngine(settings, machine=Machine(start=start, lacking_room=lambda _: None))
        claims = []
        for number in wanted:
            job = store.create("training", config={}, recipe={"gpus": number})
            claims.append(engine.claim(job))
            await engine.launch(job, claims[-1], store.log_writer(job.id))
        for claim in claims:
            await engine.end(claim, Ending.CANCEL)
        await until(lambda: all(engine.poll().values()))

    story(store, body)
    return seen


def test_a_machine_with_too_few_gpus_does_not_start(devices: Any) -> None:
    devices(1)
    check_gpus(Settings())
    with pytest.raises(RuntimeError, match="TRAIN_GPUS is 2, but jobs can use 1 GPUs here"):
        check_gpus(Settings(train_gpus=2))
    cluster = Settings.model_construct(cluster_url="http://ray-head:8265", train_gpus=2)
    check_gpus(cluster)  # its nodes have them
    devices(2)
    check_gpus(Settings(train_gpus=2))
    devices(0)
    with pytest.raises(RuntimeError, match="can use 0 GPUs"):
        check_gpus(Settings(train_gpus=2))
