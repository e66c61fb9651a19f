"""Incremental learning: new classes or new data for a model that keeps what it knows.

The head gets rows for the new classes and is otherwise unchanged (`expansion`); a classifier's are
taught on the old network's features first (`new_rows`). A fixed share of each epoch is drawn from
a memory of old pictures (`replay`, chosen by `rehearsal`), and the old model fills in what the
labels leave open (`old_knowledge`). Without old pictures a detector has only that, a classifier
the mean features of its old classes (`class_means`). At the end both models are measured on old
and new data (`forgetting`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from dataset.allowed_roots import data_roots
from dataset.data_yaml import Keypoints
from dataset.dataset import Dataset
from dataset.inspection import check
from dataset.label_files import LabelRow
from models_store.store import locate
from settings import Settings, get_settings
from training.distillation.teacher import Teacher
from training.incremental.epoch_selection import ByPart, EpochCriteria, LastEpoch, judged
from training.incremental.feature_translation import (
    PrototypeTranslation,
    Translation,
    WeightTranslation,
    teach_rows,
)
from training.incremental.head_expansion import expand, imprint
from training.incremental.losses import (
    ClassifierRetentionLoss,
    DetectionRetentionLoss,
    PseudoFeatures,
    Strength,
)
from training.planning.class_union import ClassUnion, unite
from training.planning.compatibility import check_keypoints, check_old_classes
from training.planning.options import IncrementalOptions
from training.planning.recipe import Recipe
from training.prepare import announce, look_through
from training.publish import Trained
from training.replay.buffer import Replaying, objects, remember, share
from training.replay.merged_dataset import DatasetPart, MergedDataset, unite_data
from training.start_weights import Start, load_start
from training.yolo import trainer as yolo
from training.yolo.class_means import ClassPrototypes, look_at
from training.yolo.feature_extractor import FeatureExtractor, ImageFeatures
from training.yolo.run import Hook, Run

if TYPE_CHECKING:
    from jobs.handle import JobHandle

RATE = 0.001  # of learning, of classifiers with a memory
ROWS_RATE = 0.001  # where nothing but the rows of new classes learns


def train(recipe: Recipe, job: JobHandle) -> Trained:
    """Teach a YOLO model further classes or data, without losing the old ones.

    Raises:
        VisionLoopError: The data sets, the base model or the settings do not work out.
        JobCancelled: A stop was asked for.
    """
    announce(recipe, job)
    return learn(lesson(recipe, job, get_settings()), job)


def learn(task: IncrementalSetup, job: JobHandle) -> Trained:
    """Train as the lesson says."""
    if task.judged:
        job.log(
            "The best epoch is published: old classes are judged on old val pictures, new ones on "
            "new val pictures, and both count alike."
        )
    else:
        job.log("The last epoch is published: no old val pictures tell what is forgotten.")
    run = Run(task.pace, job, task.dataset, task.start, samples=task.samples)
    run.extensions = (task.choice, task.replaying)
    hooks: dict[str, Hook] = {"on_pretrain_routine_end": task.hold_on}
    if task.strength.statistics:
        hooks["on_train_batch_start"] = keep_statistics
    run.hooks = hooks
    trained = yolo.train(run)
    if task.only_rows and task.known is not None:
        found = ClassPrototypes.load(trained.folder)
        assert found is not None
        found.with_known(task.known).save(trained.folder)
    return replace(trained, class_counts=task.dataset.learned_counts)


@dataclass(frozen=True)
class IncrementalSetup:
    """What is learned, from which start, beside which memory.

    Attributes:
        start: The old network with rows for the new classes.
        old: The old network.
        dataset: New pictures and the memory.
        memory: How many old pictures are in it.
        samples: In an epoch.
        ratio: Share of the memory in an epoch.
        strength: Of the old model's hold.
        known: Mean features of a classifier's old classes, where it was published with them.
        met: Those of the new classes, in the old network.
        judged: How the published epoch is chosen; None: it is the last.
    """

    recipe: Recipe
    start: Start
    old: Start
    dataset: MergedDataset
    memory: int
    samples: int
    ratio: float
    strength: Strength
    known: ClassPrototypes | None = None
    met: ClassPrototypes | None = None
    judged: EpochCriteria | None = None

    @property
    def choice(self) -> type:
        """Of the published epoch, to be mixed into a trainer."""
        return type("Choice", (ByPart,), {"judged": self.judged}) if self.judged else LastEpoch

    @property
    def only_rows(self) -> bool:
        """Whether nothing but the rows of new classes learns."""
        return self.alone and self.strength.rows

    @property
    def alone(self) -> bool:
        """Whether a classifier learns further classes without old pictures."""
        grows = len(self.start.names) > len(self.old.names)
        return self.recipe.task == "classify" and grows and self.memory == 0

    @property
    def pace(self) -> Recipe:
        """The recipe; rows alone can learn faster than a whole network.

        It does not stop early where nothing tells which epoch is best.
        """
        changed: dict[str, Any] = {} if self.judged else {"patience": 0}
        hyper = self.recipe.hyper
        grows = self.recipe.task == "classify" and self.met is not None
        if grows and "lr0" not in hyper and "optimizer" not in hyper:
            rate = ROWS_RATE if self.only_rows else RATE
            changed["hyper"] = {"optimizer": "AdamW", "lr0": rate, "momentum": 0.9, **hyper}
        return self.recipe.model_copy(update=changed)

    @property
    def replaying(self) -> type:
        return type("Replay", (Replaying,), {"ratio": self.ratio})

    def hold_on(self, trainer: Any) -> None:
        """Give the old model its say in the loss, once the network is there."""
        teacher = Teacher(self.old, self.recipe.task)
        teacher.to(trainer.device)
        network = trainer.model
        if self.recipe.task == "classify":
            strength = self.strength
            if self.only_rows:  # what the old model says of new pictures cannot change
                strength = replace(strength, scores=0.0, logits=0.0)
            stand_ins = self._stand_ins(network, trainer.device) if self.alone else None
            network.criterion = ClassifierRetentionLoss(teacher, self.prior, strength, stand_ins)
            return
        task_loss = network.init_criterion()
        strides = [int(stride) for stride in network.model[-1].stride]
        network.criterion = DetectionRetentionLoss(task_loss, teacher, strides, self.strength)

    def _stand_ins(self, network: Any, device: torch.device) -> PseudoFeatures:
        """Without old pictures: something that stands for them; perhaps only new rows learn."""
        known: Any = self.old.model
        linear, old = network.model[-1].linear, known.model[-1].linear.to(device)
        if self.strength.rows:
            for parameter in network.parameters():
                parameter.requires_grad = parameter is linear.weight or parameter is linear.bias
            for parameter in (linear.weight, linear.bias):
                parameter.register_hook(partial(_only_from, old.out_features))
        assert self.met is not None
        translation = _translation(old, self.met, self.known, self.strength)
        return PseudoFeatures(linear, old.out_features, translation)

    @property
    def prior(self) -> torch.Tensor | None:
        """Share of each class in an epoch; None without a memory."""
        if not self.memory:
            return None
        amount = np.full(len(self.dataset.names), 1.0)  # a class that is never drawn is no zero
        for _, part in self.dataset.parts:
            images = part.splits["train"]
            counts = objects(part, images, len(amount)).sum(axis=0)
            draws = self.samples - self.ratio * self.samples
            if part is self.dataset.replayed:
                draws = self.ratio * self.samples
            amount += counts / max(1, counts.sum()) * draws
        return torch.from_numpy(amount / amount.sum()).float()


def lesson(recipe: Recipe, job: JobHandle, settings: Settings) -> IncrementalSetup:
    """Read both data sets, let the network grow, choose the memory."""
    options = recipe.incremental or IncrementalOptions()
    roots = data_roots(settings)
    new = check(recipe.dataset, recipe.task, roots, min_classes=1)
    old = check(options.old_data, recipe.task, roots, min_classes=1) if options.old_data else None
    for given in (new, old):
        if given is not None:
            look_through(given, job)
    before = load_start(recipe.origin, job.folder / "base", settings)
    known_points = Keypoints(tuple(before.architecture.get("kpt_shape") or ()))
    for given in (new, old):
        if given is not None and given.keypoints:
            check_keypoints(given.keypoints, known_points, "the data", "the base model")
    union = unite(before.names, new.names, new.counts["train"], options.new_classes)
    start = expand(before, union)
    added = f"{len(union.added)} new ones: {', '.join(union.added)}" if union.added else "no new"
    job.log(f"{union.old} classes of {recipe.origin.shown} are kept; {added}.")
    job.check()

    assert before.model is not None
    gpu = torch.cuda.is_available() and settings.device != "cpu"
    extractor = FeatureExtractor(
        before.model, recipe.task, recipe.imgsz, torch.device("cuda" if gpu else "cpu")
    )
    memory: tuple[Path, ...] = ()
    if old is not None:
        ids = union.ids(old.names)
        check_old_classes(union, old.names)
        if options.replays:
            memory = _memory(recipe, options, job, old, ids, extractor)
    dataset = unite_data(union, new, old, memory)
    known = met = None
    if recipe.task == "classify" and union.added:
        known = _published_means(before, recipe)
        if known is None and memory:
            known = _measured_means(union, dataset, extractor, job)
        if not memory:
            has = "has" if known is not None else "lacks"
            what = f"mean features of its classes at imgsz {recipe.imgsz}"
            job.log(f"The base model {has} {what}, to stand for old pictures.")
        met = _start_rows(start, union, new, known, extractor, recipe.seed, job)
    start = _begun(start, recipe, job, settings)
    amount = len(dataset.new.splits["train"])
    ratio = options.replay_ratio if memory else 0.0
    samples = amount + share(amount, ratio)
    return IncrementalSetup(
        recipe=recipe,
        start=start,
        old=before,
        dataset=dataset,
        memory=len(memory),
        samples=samples,
        ratio=ratio,
        strength=strength_of(len(memory)),
        known=known,
        met=met,
        judged=judged(dataset, union.old),
    )


def _begun(start: Start, recipe: Recipe, job: JobHandle, settings: Settings) -> Start:
    """The start, or what an interrupted lesson has made of it."""
    if recipe.old_base is None:
        return start
    begun = load_start(recipe.base, job.folder / "begun", settings)
    if begun.names == start.names:
        return begun
    job.log(
        f"The {recipe.base.shown} learned other classes than are to be learned now: this one "
        f"starts from {recipe.origin.shown}."
    )
    return start


def strength_of(memory: int) -> Strength:
    """With old pictures the network may normalise by what it sees, without it keeps to what it saw.

    Measured on GTSRB and road signs; see docs/explanation/learning-benchmarks.md.
    """
    return Strength(statistics=not memory)


def _memory(
    recipe: Recipe,
    options: IncrementalOptions,
    job: JobHandle,
    old: Dataset,
    ids: Sequence[int | None],
    extractor: FeatureExtractor,
) -> tuple[Path, ...]:
    part = DatasetPart(old, {}, tuple(ids))

    def look(images: Sequence[Path]) -> ImageFeatures:
        job.log(f"The old model looks at {len(images)} old pictures, to choose among them.")
        truth = {image: _truth(part, image) for image in images}
        return extractor.look(images, truth, job.check, job.log)

    memory = remember(
        job.folder,
        old,
        ids,
        options.max_replay_samples,
        options.rehearsal,
        recipe.seed,
        look,
    )
    pool = len(old.scan().splits["train"])
    job.log(
        f"{len(memory)} of {pool} old pictures are kept for replay, {options.replay_ratio:.0%} "
        f"of each epoch (max_replay_samples {options.max_replay_samples}, {options.rehearsal})."
    )
    return memory


def _truth(part: DatasetPart, image: Path) -> tuple[LabelRow, ...]:
    if part.dataset.task != "classify":
        return part.rows(image)
    return tuple(LabelRow(cls, ()) for cls in part.classes(image))


def _start_rows(
    start: Start,
    union: ClassUnion,
    new: Dataset,
    known: ClassPrototypes | None,
    extractor: FeatureExtractor,
    seed: int,
    job: JobHandle,
) -> ClassPrototypes:
    """Rows of new classes start from the old network's features of their pictures.

    Returns:
        The means of these.
    """
    ids = union.ids(new.names)
    images = {
        image: cls
        for image in new.scan().splits["train"]
        if (cls := ids[new.classes[image]]) is not None and cls >= union.old
    }
    features, own = look_at(extractor, images, job.check)
    found = ClassPrototypes.of(features, own, len(union.names))
    model: Any = start.model
    linear = model.model[-1].linear.cpu()
    imprint(linear, found.means, found.counts > 0, union.old)
    translation = _translation(extractor.model.model[-1].linear.cpu(), found, known, Strength())
    teach_rows(linear, features, own, union.old, translation, seed)
    return found


def _translation(
    old: nn.Linear, met: ClassPrototypes, known: ClassPrototypes | None, strength: Strength
) -> Translation:
    """Into the old classes, whose means are perhaps known."""
    if known is None:
        return WeightTranslation(old, strength.margin)
    return PrototypeTranslation(met.with_known(known).means.to(old.weight.device), strength.spread)


def _measured_means(
    union: ClassUnion, dataset: MergedDataset, extractor: FeatureExtractor, job: JobHandle
) -> ClassPrototypes | None:
    """Those of the memory, if it has pictures of every old class."""
    assert dataset.replayed is not None
    images = {image: dataset.classes[image] for image in dataset.replayed.splits["train"]}
    known = {image: cls for image, cls in images.items() if cls < union.old}
    found = ClassPrototypes.measure(extractor, known, union.old, job.check)
    return found if bool((found.counts > 0).all()) else None


def _published_means(before: Start, recipe: Recipe) -> ClassPrototypes | None:
    """Those that the base model was published with, if they are true for the pictures at hand.

    In pictures of another size the same things have other features.
    """
    how = before.preprocessing
    if recipe.origin.kind != "model" or how is None or how.imgsz != recipe.imgsz:
        return None
    found = ClassPrototypes.load(locate(recipe.origin.value))
    model: Any = before.model
    linear = model.model[-1].linear
    fits = found is not None and found.fit(linear.out_features, linear.in_features)
    return found if fits else None


def _only_from(first: int, gradient: torch.Tensor) -> torch.Tensor:
    """The gradient without its first rows."""
    kept = gradient.clone()
    kept[:first] = 0
    return kept


def keep_statistics(trainer: Any) -> None:
    """Normalise as the old model did: statistics of mostly new pictures would not fit the old."""
    for module in trainer.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
