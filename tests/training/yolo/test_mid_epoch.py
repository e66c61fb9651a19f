"""Trainings that the service's stop interrupts within an epoch go on within it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DistributedSampler, RandomSampler

from files import delete_abandoned
from jobs.handle import JobCancelled
from models_store.registry import Registry
from tests.support.seeds import derived
from tests.support.trainer_job import RecordingJob, narrow_mobilenet, narrow_network, recipe, run
from training.mobilenet import trainer
from training.mobilenet.trainer import Batches
from training.yolo import mid_epoch, progress
from training.yolo.mid_epoch import Remaining

BATCHES = 8  # of the drawn data's 64 pictures
EPOCH = BATCHES + 2  # reports: with one of the validation, one of the whole


@pytest.fixture
def plan(registry: Registry, family: str) -> Any:
    names = ("circle", "square", "triangle")
    base = narrow_mobilenet(registry, names) if family == "mobilenet" else None
    base = base or narrow_network(registry, "classify")
    return recipe(registry, "classify", model=base, epochs=3)


@pytest.mark.parametrize("family", ["yolo", "mobilenet"])
@pytest.mark.parametrize(
    ("place", "epoch", "batch", "again"),
    [("first epoch", 0, 3, 0), ("third epoch", 2, 7, 0), ("validation", 1, 8, 1)],
)
def test_a_stop_within_an_epoch_loses_no_batch(
    plan: Any, job: RecordingJob, family: str, place: str, epoch: int, batch: int, again: int
) -> None:
    reports = 1 + epoch * EPOCH + batch + (place == "validation")
    job.leave_when = lambda job: len(job.fractions) >= reports
    with pytest.raises(JobCancelled):
        run(plan, job)
    before = max(job.fractions)
    kept = batch - again if family == "yolo" else batch  # Ultralytics wants one to be left
    assert job.batches == [(epoch, kept)]
    assert f"Saved after batch {kept} of {BATCHES} in epoch {epoch + 1}." in job.text

    job.leave_when = lambda _: False
    trained = run(plan, job)
    where = f"from batch {kept + 1} of {BATCHES} in epoch {epoch + 1} to epoch 3"
    if kept == BATCHES:
        where = f"from the validation of epoch {epoch + 1} to epoch 3"
    assert f"Training {where}" in job.text
    assert job.checkpoints == [1, 2, 3]
    resumed = [fraction for fraction in job.fractions[reports:] if fraction > 0]
    assert resumed[0] >= before - 1e-9 or place == "validation"
    assert resumed == sorted(resumed)
    repeated = (place == "validation") * (2 if family == "yolo" else 1)
    assert len(job.fractions) == 2 + 3 * EPOCH + repeated
    assert "accuracy" in trained.metrics
    assert not (job.folder / "checkpoints" / mid_epoch.FILE).exists()


@pytest.mark.parametrize("family", ["yolo", "mobilenet"])
def test_the_state_within_an_epoch_is_taken_up_exactly(
    plan: Any, job: RecordingJob, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    file = job.folder / "checkpoints" / ("epoch.pt" if family == "yolo" else "last.pt")
    job.leave_when = lambda job: len(job.fractions) >= 1 + 5
    with pytest.raises(JobCancelled):
        run(plan, job)
    first = torch.load(file, weights_only=True)
    monkeypatch.setattr(trainer.Session, "_rate", lambda *_: 0.0)  # nothing more is learned
    job.leave_when = lambda job: len(job.fractions) >= 1 + 5 + 1 + 1
    with pytest.raises(JobCancelled):
        run(plan, job)
    second = torch.load(file, weights_only=True)
    steps = [next(iter(saved["optimizer"]["state"].values()))["step"] for saved in (first, second)]
    assert steps[1] == steps[0] + 1, "the optimiser goes on with the step after"
    for name, value in first["model"].items():
        if value.ndim == 4:  # a convolution's
            assert torch.allclose(value, second["model"][name], atol=0.02), name


@pytest.mark.parametrize("family", ["yolo", "mobilenet"])
def test_a_long_epoch_is_saved_now_and_then(
    plan: Any, job: RecordingJob, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    monkeypatch.setattr(progress, "SAVE_INTERVAL", 0.0)
    monkeypatch.setattr(trainer, "SAVE_INTERVAL", 0.0)
    run(plan.model_copy(update={"epochs": 1}), job)
    assert {batch for _, batch in job.batches} >= {1, 2, 3, 4, 5, 6, 7}
    assert job.checkpoints == [1]


@pytest.mark.parametrize("spoil", ["damaged", "of another epoch"])
def test_what_was_saved_within_an_epoch_must_fit(
    registry: Registry, job: RecordingJob, spoil: str
) -> None:
    plan = recipe(registry, "classify", model=narrow_network(registry, "classify"), epochs=1)
    job.leave_when = lambda job: len(job.fractions) >= 1 + 5
    with pytest.raises(JobCancelled):
        run(plan, job)
    file = job.folder / "checkpoints" / mid_epoch.FILE
    if spoil == "damaged":
        file.write_bytes(file.read_bytes()[:5000])
    else:
        torch.save(torch.load(file, weights_only=True) | {"epoch": 4}, file)
    job.leave_when = lambda _: False
    run(plan, job)
    assert job.text.count("Training from the start") == 2


def test_a_full_disk_at_a_stop_costs_only_the_epoch(
    registry: Registry, job: RecordingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    plan = recipe(registry, "classify", model=narrow_network(registry, "classify"), epochs=1)
    monkeypatch.setattr(progress.mid_epoch, "save", full)
    job.leave_when = lambda job: len(job.fractions) >= 1 + 5
    with pytest.raises(JobCancelled):
        run(plan, job)
    assert job.batches == []
    assert "This epoch could not be saved: [Errno 28]" in job.text


class Loader(list[int]):
    generator = None
    dataset = "pictures"
    sampler: Any = None


def test_only_the_first_pass_is_shortened() -> None:
    loader = Remaining(Loader(range(8)), 5)
    assert len(loader) == 8
    iter(loader)  # as Ultralytics does it
    assert [len(list(loader)) for _ in range(3)] == [3, 8, 8]
    assert loader.dataset == "pictures"


def test_a_pass_that_goes_on_has_the_pictures_that_were_left() -> None:
    def batches(skip: int) -> list[int]:
        sampler = RandomSampler(range(30), generator=torch.Generator().manual_seed(derived(7)))
        made = Batches(sampler, 4, drop_last=False)
        made.skip = skip
        indices = [index for batch in made for index in batch]
        assert len(made) == 8
        assert Counter(index for batch in made for index in batch) == Counter(range(30))
        return indices

    whole = batches(0)
    assert Counter(whole) == Counter(range(30))
    assert batches(3) == whole[12:]
    assert batches(8) == []


def test_what_a_killed_save_left_is_ignored_and_then_deleted(tmp_path: Path) -> None:
    partial = tmp_path / ".partial-killed"
    partial.mkdir()
    (partial / mid_epoch.FILE).write_bytes(b"half")
    assert mid_epoch.restore(None, tmp_path) == 0
    mid_epoch.forget(tmp_path)
    delete_abandoned(tmp_path)
    assert not list(tmp_path.iterdir())


def test_ranks_draw_the_rest_of_an_epoch_anew() -> None:
    """Their sampler has no generator, but a seed that all ranks share."""

    def drawn(done: int) -> list[int]:
        loader = Loader(range(8))
        images: Any = range(32)
        loader.sampler = DistributedSampler(images, num_replicas=2, rank=1, seed=3)
        Remaining(loader, done)
        return list(loader.sampler)

    assert drawn(5) != drawn(0)
    assert drawn(5) == drawn(5)
