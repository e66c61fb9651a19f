"""The replay buffer: a selection of old images; a fixed share of each epoch is sampled from it.

Rehearsal as in Robins 1995 ("Catastrophic Forgetting, Rehearsal and Pseudorehearsal"); a
class-balanced buffer as in iCaRL (Rebuffi et al. 2017).
"""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from dataset.dataset import Dataset
from errors import VisionLoopError
from files import atomic_write
from training.planning.options import Criterion
from training.replay import selection
from training.replay.merged_dataset import DatasetPart, is_replayed
from training.yolo.feature_extractor import ImageFeatures
from training.yolo.run import TrainerExtension

FILE = "memory.json"  # in the job's folder: the chosen images, so that a resumed job keeps them
CANDIDATES = 4  # features are computed for at most this multiple of the buffer's size
NEED_FEATURES = ("herding", "k_centre", "hardness")  # criteria that run the old model


def remember(
    folder: Path,
    old: Dataset,
    ids: Sequence[int | None],
    amount: int,
    criterion: Criterion,
    seed: int,
    extract: Callable[[Sequence[Path]], ImageFeatures],
) -> tuple[Path, ...]:
    """Choose the images of the buffer, or read the choice of an earlier attempt of the job.

    Args:
        folder: The job's folder.
        old: The old dataset; images of its train split are chosen.
        ids: The ids of its classes in the merged class list; images without objects of these
            classes are left out.
        amount: Maximum number of images in the buffer.
        criterion: See `selection.choose`.
        seed: Seed of the selection.
        extract: Features of images, from the old model; called if the criterion needs them.

    Returns:
        The images, in the order of the train split.
    """
    file = folder / FILE
    try:
        return tuple(old.root / name for name in json.loads(file.read_text())["pictures"])
    except (OSError, ValueError, KeyError):
        pass
    part = DatasetPart(old, {}, tuple(ids))
    pool = old.scan().splits["train"]
    counts = objects(part, pool, 1 + max((i for i in ids if i is not None), default=0))
    known = np.flatnonzero(counts.sum(axis=1) > 0)
    if len(known) > amount * CANDIDATES and criterion in NEED_FEATURES:
        known = known[selection.choose(counts[known], amount * CANDIDATES, "random", seed)]
    images, counts = [pool[i] for i in known], counts[known]
    needed = criterion in NEED_FEATURES and len(images) > amount
    features, hardness = extract(images) if needed else (None, None)
    taken = selection.choose(counts, amount, criterion, seed, features, hardness)
    chosen = tuple(images[i] for i in sorted(taken))
    names = [os.path.relpath(image, old.root) for image in chosen]
    atomic_write(file, json.dumps({"criterion": criterion, "pictures": names}))
    return chosen


def objects(part: DatasetPart, images: Sequence[Path], classes: int) -> np.ndarray[Any, Any]:
    """Number of objects of each class in each image, (images, classes)."""
    counts = np.zeros((len(images), classes), np.int64)
    for row, image in enumerate(images):
        for cls in part.classes(image):
            counts[row, cls] += 1
    return counts


def share(new: int, ratio: float) -> int:
    """The number of old samples that make up `ratio` of an epoch with `new` new samples.

    Examples:
        >>> share(80, 0.2)
        20
    """
    return math.ceil(new * ratio / (1 - ratio) - 1e-9)


class ReplaySampler(Sampler[int]):
    """Yields every new sample once per epoch, and old samples as the share `ratio` of the epoch.

    An old sample is not repeated until all old samples were drawn. The order depends only on seed
    and epoch, so a resumed training has the same epochs as an uninterrupted one.

    Attributes:
        epoch: The next epoch, from 0.
    """

    def __init__(self, new: Sequence[int], old: Sequence[int], ratio: float, seed: int) -> None:
        self.new, self.old, self.seed = tuple(new), tuple(old), seed
        self.replays = share(len(self.new), ratio) if self.old else 0
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.new) + self.replays

    def __iter__(self) -> Iterator[int]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        samples = [*self.new, *self._turns(epoch * self.replays, self.replays)]
        np.random.default_rng((self.seed, 1, epoch)).shuffle(samples)
        return iter(samples)

    def _turns(self, first: int, count: int) -> list[int]:
        """`count` old samples, from position `first` of an endless sequence of permutations."""
        size, drawn = max(1, len(self.old)), list[int]()
        for round_ in range(first // size, (first + count - 1) // size + 1 if count else 0):
            order = np.random.default_rng((self.seed, 0, round_)).permutation(len(self.old))
            start = max(0, first - round_ * size)
            drawn += [
                self.old[int(index)] for index in order[start : first + count - round_ * size]
            ]
        return drawn


@dataclass(frozen=True)
class Replay(TrainerExtension):
    """Trainer extension: the training loader samples with `ReplaySampler`.

    Mosaic and mixup combine old images only with old ones, and new ones only with new ones. So
    each sample is entirely old or new (`merged_dataset.is_replayed` of its `im_file`), and the
    share of old samples is exactly `ratio`.

    Attributes:
        ratio: Share of old samples in each epoch.
    """

    ratio: float

    def train_loader(self, trainer: Any, loader: Any) -> Any:
        """The loader with another sampler.

        Raises:
            VisionLoopError: `ratio` is above 0, but the dataset has no old samples.
        """
        files = files_of(loader.dataset)
        old = [i for i, file in enumerate(files) if is_replayed(file)]
        new = [i for i, file in enumerate(files) if not is_replayed(file)]
        if self.ratio > 0 and not old:
            raise VisionLoopError(
                "None of the old images selected for replay is in the training data: they could "
                "not be read, or were ignored. Check old_data_path."
            )
        keep_apart(loader.dataset, new, old)
        sampler = ReplaySampler(new, old, self.ratio, trainer.args.seed)
        trainer.add_callback(
            "on_train_start", lambda _: setattr(sampler, "epoch", trainer.start_epoch)
        )
        return type(loader)(
            loader.dataset,
            batch_size=loader.batch_size,
            sampler=sampler,
            num_workers=loader.num_workers,
            prefetch_factor=loader.prefetch_factor,
            pin_memory=loader.pin_memory,
            collate_fn=loader.collate_fn,
            worker_init_fn=loader.worker_init_fn,
            generator=loader.generator,
        )


def files_of(dataset: Any) -> list[str]:
    """The image files of one of Ultralytics' datasets, in order of index."""
    if hasattr(dataset, "im_files"):
        return list(dataset.im_files)
    return [sample[0] for sample in dataset.samples]


def keep_apart(dataset: Any, new: Sequence[int], old: Sequence[int]) -> None:
    """Make mixing augmentations (mosaic, mixup) combine old images with old, new with new."""
    for mix in _mixing(getattr(dataset, "transforms", None)):
        _Partners(mix, {False: new, True: old}).attach()


class _Partners:
    """Chooses the images that an Ultralytics augmentation mixes into an image (8.4.190)."""

    def __init__(self, mix: Any, pools: dict[bool, Sequence[int]]) -> None:
        self.mix, self.pools = mix, pools
        self.old = False  # whether the current image is replayed
        self.get_params, self.get_indexes = mix.get_params, mix.get_indexes

    def attach(self) -> None:
        self.mix.get_params, self.mix.get_indexes = self.params, self.indexes

    def params(self, labels: dict[str, Any]) -> Any:
        self.old = is_replayed(labels["im_file"])
        return self.get_params(labels)

    def indexes(self) -> Any:
        wanted = self.get_indexes()
        pool = self.pools[self.old]
        if isinstance(wanted, int):
            return random.choice(pool)
        return random.choices(pool, k=len(wanted))


def _mixing(transforms: Any) -> Iterator[Any]:
    if transforms is None:
        return
    if hasattr(transforms, "get_indexes"):
        yield transforms
    for inner in (
        *getattr(transforms, "transforms", ()),
        getattr(transforms, "pre_transform", None),
    ):
        if inner is not None:
            yield from _mixing(inner)
