"""Rehearsal: a memory of old pictures, and a fixed share of each epoch drawn from it.

Robins 1995; class-balanced exemplars as in iCaRL (Rebuffi et al. 2017).
"""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from dataset.dataset import Dataset
from errors import VisionLoopError
from training.planning.options import Criterion
from training.replay import selection
from training.replay.merged_dataset import DatasetPart, is_replayed
from training.yolo.feature_extractor import ImageFeatures

FILE = "memory.json"  # in the job's folder: which pictures, so that a resumed job has the same
LOOKED_AT = 4  # times the size of the memory: so many pictures the criterion is computed for
SEEN_APART = ("herding", "k_centre", "hardness")  # criteria that need the old model's view


def remember(
    folder: Path,
    old: Dataset,
    ids: Sequence[int | None],
    amount: int,
    criterion: Criterion,
    seed: int,
    look: Callable[[Sequence[Path]], ImageFeatures],
) -> tuple[Path, ...]:
    """Choose the memory, or read what an earlier attempt of the job chose.

    Args:
        folder: The job's.
        old: The old data; its train split is chosen from.
        ids: Where its classes are in the union; pictures without an object of them do not count.
        amount: Pictures to keep at most.
        criterion: See `rehearsal.choose`.
        seed: Of chance.
        look: The old model's view of pictures; called where the criterion needs it.
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
    if len(known) > amount * LOOKED_AT and criterion in SEEN_APART:
        known = known[selection.choose(counts[known], amount * LOOKED_AT, "random", seed)]
    images, counts = [pool[i] for i in known], counts[known]
    needed = criterion in SEEN_APART and len(images) > amount
    features, hardness = look(images) if needed else (None, None)
    taken = selection.choose(counts, amount, criterion, seed, features, hardness)
    chosen = tuple(images[i] for i in sorted(taken))
    names = [os.path.relpath(image, old.root) for image in chosen]
    temporary = file.with_suffix(".writing")
    temporary.write_text(json.dumps({"criterion": criterion, "pictures": names}))
    os.replace(temporary, file)
    return chosen


def objects(part: DatasetPart, images: Sequence[Path], classes: int) -> np.ndarray[Any, Any]:
    """Objects of each class in each picture, (pictures, classes)."""
    counts = np.zeros((len(images), classes), np.int64)
    for row, image in enumerate(images):
        for cls in part.classes(image):
            counts[row, cls] += 1
    return counts


def share(new: int, ratio: float) -> int:
    """How many old samples an epoch with `new` new ones has, so that they are `ratio` of it.

    Examples:
        >>> share(80, 0.2)
        20
    """
    return math.ceil(new * ratio / (1 - ratio) - 1e-9)


class ReplaySampler(Sampler[int]):
    """Each epoch: every new sample once, and the old ones in turns, so that they are `ratio`.

    Old samples are drawn without repetition until all had their turn. The order depends on seed
    and epoch alone: a resumed training has the epochs that it would have had.

    Attributes:
        epoch: The next one, from 0.
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
        """Old samples from a place of the endless sequence of permutations on."""
        size, drawn = max(1, len(self.old)), list[int]()
        for round_ in range(first // size, (first + count - 1) // size + 1 if count else 0):
            order = np.random.default_rng((self.seed, 0, round_)).permutation(len(self.old))
            start = max(0, first - round_ * size)
            drawn += [
                self.old[int(index)] for index in order[start : first + count - round_ * size]
            ]
        return drawn


class Replaying:
    """Mixed into a trainer: its training loader draws as `ReplaySampler` does.

    Subclasses set `ratio`. Mosaic and mixup put a picture together with others of its kind only,
    so that each sample is wholly old or new (`union_dataset.is_replayed` of its `im_file`), and
    the share of old ones is what was asked for.
    """

    ratio: float

    def get_dataloader(
        self: Any, dataset_path: Any, batch_size: int = 16, rank: int = 0, mode: str = "train"
    ) -> Any:
        loader = super().get_dataloader(dataset_path, batch_size, rank, mode)  # type: ignore[misc]
        if mode != "train":
            return loader
        files = files_of(loader.dataset)
        old = [i for i, file in enumerate(files) if is_replayed(file)]
        new = [i for i, file in enumerate(files) if not is_replayed(file)]
        if self.ratio > 0 and not old:
            raise VisionLoopError(
                "None of the old pictures chosen for replay is in the training data: they could "
                "not be read, or were left out. Check old_data_path."
            )
        keep_apart(loader.dataset, new, old)
        sampler = ReplaySampler(new, old, self.ratio, self.args.seed)
        self.add_callback("on_train_start", lambda _: setattr(sampler, "epoch", self.start_epoch))
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
    """The picture files of one of Ultralytics' data sets, in order of index."""
    if hasattr(dataset, "im_files"):
        return list(dataset.im_files)
    return [sample[0] for sample in dataset.samples]


def keep_apart(dataset: Any, new: Sequence[int], old: Sequence[int]) -> None:
    """Let each mixing augmentation take partners of the picture's own kind."""
    for mix in _mixing(getattr(dataset, "transforms", None)):
        _Partners(mix, {False: new, True: old}).attach()


class _Partners:
    """Chooses the pictures that one of Ultralytics' mixing augmentations adds (8.4.190)."""

    def __init__(self, mix: Any, pools: dict[bool, Sequence[int]]) -> None:
        self.mix, self.pools = mix, pools
        self.old = False  # the kind of the picture at hand
        self.get_params, self.get_indexes = mix.get_params, mix.get_indexes

    def attach(self) -> None:
        self.mix.get_params, self.mix.get_indexes = self.params, self.indexes

    def params(self, labels: dict[str, Any]) -> Any:
        self.old = is_replayed(labels["im_file"])
        return self.get_params(labels)

    def indexes(self) -> Any:
        asked = self.get_indexes()
        pool = self.pools[self.old]
        if isinstance(asked, int):
            return random.choice(pool)
        return random.choices(pool, k=len(asked))


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
