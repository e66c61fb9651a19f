from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from dataset.dataset import Dataset
from dataset.inspection import check
from errors import VisionLoopError
from tests.support.seeds import rng
from tests.support.shapes import write_shapes
from training.replay.buffer import FILE, Replay, ReplaySampler, keep_apart, remember, share
from training.yolo.feature_extractor import ImageFeatures

NEW, OLD = range(80), range(100, 130)


@pytest.mark.parametrize(
    ("new", "ratio", "old"), [(80, 0.2, 20), (50, 0.5, 50), (10, 0.0, 0), (3, 0.2, 1)]
)
def test_old_samples_are_the_asked_share_of_an_epoch(new: int, ratio: float, old: int) -> None:
    assert share(new, ratio) == old


def test_each_epoch_has_every_new_sample_and_old_ones_in_turns() -> None:
    sampler = ReplaySampler(NEW, OLD, 0.2, seed=0)
    assert len(sampler) == 100
    epochs = [list(sampler) for _ in range(3)]
    for epoch in epochs:
        assert sorted(i for i in epoch if i < 100) == list(NEW)
        assert sum(i >= 100 for i in epoch) == 20
    drawn = Counter(i for epoch in epochs for i in epoch if i >= 100)
    assert set(drawn) == set(OLD)  # 60 draws of 30: each twice
    assert set(drawn.values()) == {2}
    assert epochs[0] != epochs[1]


def test_a_small_memory_is_drawn_from_again() -> None:
    drawn = [i for i in ReplaySampler(NEW, (100, 101), 0.5, seed=0) if i >= 100]
    assert Counter(drawn) == {100: 40, 101: 40}


def test_without_a_memory_only_the_new_samples_are_drawn() -> None:
    assert sorted(ReplaySampler(NEW, (), 0.2, seed=0)) == list(NEW)


def test_a_resumed_training_has_the_epochs_it_would_have_had() -> None:
    whole, resumed = (ReplaySampler(NEW, OLD, 0.2, seed=1) for _ in range(2))
    epochs = [list(whole) for _ in range(3)]
    resumed.epoch = 2
    assert list(resumed) == epochs[2]


@pytest.fixture
def old(tmp_path: Path) -> Dataset:
    folder = tmp_path / "old"
    return check(write_shapes(folder, "detect", train=30, val=2, imgsz=32), "detect", [tmp_path])


def test_the_memory_is_kept_with_the_job(old: Dataset, tmp_path: Path) -> None:
    asked: list[int] = []

    def look(images: Any) -> ImageFeatures:
        asked.append(len(images))
        features = rng(0).normal(size=(len(images), 8)).astype(np.float32)
        return ImageFeatures(features, np.ones(len(images), np.float32))

    ids = (0, 1, None)  # the triangle is nobody's class
    memory = remember(tmp_path, old, ids, 5, "herding", 0, look)
    assert len(set(memory)) == 5
    assert set(memory) <= set(old.splits["train"])
    assert asked == [20]  # four times as many as are kept
    assert json.loads((tmp_path / FILE).read_text())["criterion"] == "herding"
    assert remember(tmp_path, old, ids, 9, "random", 1, look) == memory  # a resumed job's
    assert asked == [20]


def test_a_damaged_memory_is_chosen_again(old: Dataset, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{")
    memory = remember(tmp_path, old, (0, 1, 2), 4, "random", 0, lambda _: ImageFeatures(None, None))  # type: ignore[arg-type]
    assert len(memory) == 4


@pytest.mark.parametrize(("ratio", "refused"), [(0.2, True), (0.0, False)])
def test_a_training_without_the_old_pictures_it_was_to_replay_is_no_replay(
    ratio: float, refused: bool
) -> None:
    files = [f"a/new-{i:06}.jpg" for i in range(6)]
    data = TensorDataset(torch.arange(6))
    data.im_files = files  # type: ignore[attr-defined]

    trainer = SimpleNamespace(args=SimpleNamespace(seed=0), add_callback=lambda *_: None)
    loader: Any = DataLoader(data, batch_size=2)
    if refused:
        with pytest.raises(VisionLoopError, match="None of the old images"):
            Replay(ratio).train_loader(trainer, loader)
        return
    assert len(Replay(ratio).train_loader(trainer, loader)) == 3


class Mix:
    """As Ultralytics' mixing augmentations ask for partners."""

    def get_params(self, labels: dict[str, Any]) -> Any:
        return self.get_indexes()

    def get_indexes(self) -> list[int]:
        return [0, 0, 0]


class Compose:
    def __init__(self, *transforms: Any) -> None:
        self.transforms = transforms


def test_old_pictures_are_mixed_with_old_ones_only() -> None:
    class Data:
        transforms = Compose(Compose(Mix()), Mix())

    keep_apart(Data, new=(1, 2, 3), old=(7, 8, 9))
    for mix in (Data.transforms.transforms[0].transforms[0], Data.transforms.transforms[1]):
        for _ in range(10):
            assert set(mix.get_params({"im_file": "a/new-000001.jpg"})) <= {1, 2, 3}
            assert set(mix.get_params({"im_file": "a/replayed-000001.jpg"})) <= {7, 8, 9}
