"""Incremental learning: adds classes or data to a model without losing what it knows.

1. The head is widened for the new classes; outputs of the old classes stay bit-equal
   (`head_expansion`). A classifier's new rows are imprinted and trained on the old network's
   features first.
2. A replay buffer holds old images, chosen by `replay.selection`; a fixed share of each epoch is
   drawn from it (`replay.buffer`).
3. A frozen copy of the old model supplies the targets that labels leave open: knowledge retention
   as in LwF (`incremental.losses`). A classifier without old images trains on pseudo-features of
   old classes instead (`feature_translation`), made from class prototypes.
4. The published epoch is the best on old and new val images together (`epoch_selection`). If an
   old class was lost there, the weights may be averaged with the old ones (`old_class_recovery`).

After publishing, the training job measures forgetting (`forgetting_job`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from dataset.dataset import Dataset
from evaluation.gate import default_gate
from models_store.shared.model_trees import located
from settings import Settings, get_settings
from training.distillation.teacher import Teacher
from training.incremental.class_prototypes import ClassPrototypes, StorePrototypes
from training.incremental.data import check_points, choose_buffer, read_datasets
from training.incremental.epoch_criteria import EpochCriteria, epoch_criteria
from training.incremental.epoch_selection import BestByPart, LastEpoch
from training.incremental.head_expansion import expand
from training.incremental.losses import (
    ClassifierRetentionLoss,
    DetectionRetentionLoss,
    PointRetentionLoss,
    PseudoFeatures,
    Strength,
)
from training.incremental.new_rows import (
    initialise_rows,
    known_prototypes,
    published_prototypes,
    translation_of,
)
from training.incremental.old_class_recovery import OldClassRecovery
from training.incremental.own_settings import ImageNumbers, choose_settings
from training.mobilenet import trainer as mobilenet
from training.mobilenet.data import preprocessing_for
from training.modes.mobilenet import Retention
from training.planning.class_union import ClassUnion, notes_on_classes, unite
from training.planning.options import IncrementalOptions
from training.planning.recipe import Recipe
from training.prepare import announce
from training.publish import Trained
from training.replay.buffer import Replay, objects, share
from training.replay.merged_dataset import DatasetPart, MergedDataset, unite_data
from training.start_weights import Start, last_layer, load_start
from training.yolo import trainer as yolo
from training.yolo.feature_extractor import FeatureExtractor
from training.yolo.run import Hook, Run, TrainerExtension

if TYPE_CHECKING:
    from jobs.handle import JobHandle

RATE = 0.001  # learning rate of classifiers that get new classes and replay old images
ROWS_RATE = 0.001  # learning rate if only the rows of new classes are trained


def train(recipe: Recipe, job: JobHandle) -> Trained:
    """Train a model on further classes or data, retaining what it knows.

    Raises:
        VisionLoopError: The datasets, the base model or the settings cannot be used.
        JobCancelled: The job was cancelled, or the service stops.
    """
    announce(recipe, job)
    return fit(set_up(recipe, job, get_settings()), job)


def set_up(recipe: Recipe, job: JobHandle, settings: Settings) -> IncrementalSetup:
    """Read both datasets, widen the network, choose the replay buffer."""
    options = recipe.incremental or IncrementalOptions()
    new, old = read_datasets(recipe, options, job, settings)
    before = load_start(recipe.origin, job.folder / "base", settings)
    check_points(before, new, old)
    union = unite(before.names, new.names, new.counts["train"], options.new_classes)
    start = expand(before, union)
    _log_classes(union, new, old, recipe, job)
    job.check()

    extractor = _old_extractor(before, recipe, settings)
    buffer = choose_buffer(recipe, options, job, old, union, extractor)
    grows = recipe.task == "classify" and bool(union.added)
    old_prototypes = published_prototypes(before, recipe) if grows else None
    new_prototypes = None
    numbers = _numbers(new, old, buffer, union)
    own = choose_settings(recipe.task, numbers, options.replay_ratio, old_prototypes is not None)
    for sentence in own.sentences:
        job.log(sentence)
    if own.hold_features:
        buffer = ()
    elif buffer:
        job.log(f"{own.ratio:.0%} of each epoch are old images.")
    dataset = unite_data(union, new, old, buffer, before.keypoint_names)
    if grows:
        old_prototypes = known_prototypes(old_prototypes, union, dataset, buffer, extractor, job)
        new_prototypes = initialise_rows(
            start, union, new, old_prototypes, extractor, recipe.seed, job
        )
    images = len(dataset.new.splits["train"])
    start = _resumed_start(start, recipe, job, settings)
    criteria = epoch_criteria(dataset, union.old)
    return IncrementalSetup(
        recipe=recipe,
        start=start,
        old=before,
        dataset=dataset,
        buffer_size=len(buffer),
        samples=images + share(images, own.ratio),
        ratio=own.ratio,
        decisions=own.sentences,
        strength=strength_of(len(buffer), own.balanced),
        old_prototypes=old_prototypes,
        new_prototypes=new_prototypes,
        criteria=criteria,
        recovery=_recovery(before, dataset, criteria, extractor, recipe, job, settings),
    )


def fit(setup: IncrementalSetup, job: JobHandle) -> Trained:
    """Train the network of a setup."""
    if setup.criteria:
        job.log(
            "The best epoch is published. Old classes are measured on old val images, new "
            "classes on new val images, and both means have the same weight."
        )
    else:
        job.log(
            "The last epoch is published, because forgetting cannot be measured without old val "
            "images."
        )
    if not setup.is_yolo:
        method = Retention(
            setup.dataset,
            setup.ratio,
            setup.samples,
            setup.recipe.seed,
            setup.classifier_loss,
            setup.criteria,
            setup.strength.statistics,
            setup.rows_only,
            setup.old_prototypes if setup.rows_only else None,
            setup.recovery,
        )
        trained = mobilenet.train(setup.schedule, job, setup.dataset, setup.start, method)
        return setup.completed(trained)
    hooks: dict[str, Hook] = {"on_pretrain_routine_end": setup.install_retention_loss}
    if setup.strength.statistics:
        hooks["on_train_batch_start"] = freeze_statistics
    run = Run(
        setup.schedule,
        job,
        setup.dataset,
        setup.start,
        hooks=hooks,
        extensions=(
            setup.epoch_selection,
            setup.replay,
            *((setup.recovery,) if setup.recovery else ()),
            setup.prototypes,
        ),
        samples=setup.samples,
    )
    trained = yolo.train(run)
    return setup.completed(trained)


@dataclass(frozen=True)
class IncrementalSetup:
    """The networks, the data and the options of an incremental training.

    Attributes:
        start: The old network with rows for the new classes.
        old: The old network; it is the frozen teacher.
        dataset: New images and the replay buffer.
        buffer_size: Images in the replay buffer.
        samples: Training samples in an epoch.
        ratio: Share of replayed samples in an epoch.
        decisions: Sentences on the settings that the training chose.
        strength: Weights of the retention losses.
        old_prototypes: Prototypes of a classifier's old classes in the old network's features;
            None: they are not known.
        new_prototypes: Prototypes of a classifier's new classes in the old network's features.
        criteria: How the published epoch is chosen; None: the last one is published.
        recovery: Recovers lost old classes; None: there are no old val images.
    """

    recipe: Recipe
    start: Start
    old: Start
    dataset: MergedDataset
    buffer_size: int
    samples: int
    ratio: float
    decisions: tuple[str, ...]
    strength: Strength
    old_prototypes: ClassPrototypes | None = None
    new_prototypes: ClassPrototypes | None = None
    criteria: EpochCriteria | None = None
    recovery: OldClassRecovery | None = None

    def completed(self, trained: Trained) -> Trained:
        """The result with the counts of the new data only, and with the decisions."""
        decisions, metrics = self.decisions, trained.metrics
        if self.recovery:
            decisions += self.recovery.sentences
            metrics = metrics | self.recovery.means
            if self.recovery.means and "fitness" in metrics:
                metrics["fitness"] = fmean(self.recovery.means.values())
        counts = self.dataset.learned_counts
        return replace(trained, class_counts=counts, decisions=decisions, metrics=metrics)

    @property
    def is_yolo(self) -> bool:
        """Whether the network is a YOLO model, and not a MobileNet."""
        return self.recipe.family == "yolo"

    @property
    def exemplar_free(self) -> bool:
        """Whether a classifier gets new classes without any old image."""
        grows = len(self.start.names) > len(self.old.names)
        return self.recipe.task == "classify" and grows and self.buffer_size == 0

    @property
    def rows_only(self) -> bool:
        """Whether only the rows of new classes in the last layer are trained."""
        return self.exemplar_free and self.strength.rows

    @property
    def unlabelled(self) -> list[int]:
        """The ids of old classes of which the old data has no object; empty without old data."""
        old = self.dataset.replayed
        return [i for i in range(len(self.old.names)) if old and i not in old.labelled_classes]

    @property
    def schedule(self) -> Recipe:
        """The recipe with this training's learning rate, and without early stopping if the last
        epoch is published.
        """
        changed: dict[str, Any] = {} if self.criteria else {"patience": 0}
        hyper = self.recipe.hyper
        grows = self.recipe.task == "classify" and self.new_prototypes is not None
        if grows and "lr0" not in hyper and "optimizer" not in hyper:
            rate = ROWS_RATE if self.rows_only else RATE
            adam = {"optimizer": "AdamW", "lr0": rate, "momentum": 0.9}
            changed["hyper"] = {**adam, **hyper} if self.is_yolo else {"lr0": rate, **hyper}
        return self.recipe.model_copy(update=changed)

    @property
    def epoch_selection(self) -> TrainerExtension:
        """Chooses the epoch that is published."""
        return BestByPart(self.criteria) if self.criteria else LastEpoch()

    @property
    def replay(self) -> TrainerExtension:
        """Draws a share of each epoch from the replay buffer."""
        return Replay(self.ratio)

    @property
    def prototypes(self) -> TrainerExtension:
        """Stores class prototypes. If only rows were trained, those of old classes stay valid."""
        return StorePrototypes(self.old_prototypes if self.rows_only else None)

    def install_retention_loss(self, trainer: Any) -> None:
        """Hook: install the knowledge-retention loss (LwF) once the network is built."""
        network = trainer.model
        if self.recipe.task == "classify":
            network.criterion = self.classifier_loss(network, trainer.device)
            return
        teacher = Teacher(self.old, self.recipe.task)
        teacher.to(trainer.device)
        task_loss = network.init_criterion()
        strides = [int(stride) for stride in network.model[-1].stride]
        points = point_loss(network.model[-1])
        network.criterion = DetectionRetentionLoss(
            task_loss, teacher, strides, self.strength, points, self.unlabelled
        )

    def classifier_loss(self, network: Any, device: torch.device) -> ClassifierRetentionLoss:
        """The knowledge-retention loss of a classifier."""
        teacher = Teacher(self.old, self.recipe.task)
        teacher.to(device)
        strength = self.strength
        if self.rows_only:  # scores of old classes cannot change then
            strength = replace(strength, scores=0.0, logits=0.0)
        pseudo = self._pseudo_features(network, device) if self.exemplar_free else None
        return ClassifierRetentionLoss(teacher, self.prior, strength, pseudo)

    def _pseudo_features(self, network: Any, device: torch.device) -> PseudoFeatures:
        """Pseudo-features of old classes; with `strength.rows`, freezes all but the new rows."""
        linear, old = last_layer(network), last_layer(self.old.model).to(device)
        if self.strength.rows:
            for parameter in network.parameters():
                parameter.requires_grad = parameter is linear.weight or parameter is linear.bias
            for parameter in (linear.weight, linear.bias):
                parameter.register_hook(partial(_zero_first_rows, old.out_features))
            linear.register_forward_pre_hook(partial(_restore_first_rows, old))
        assert self.new_prototypes is not None
        translation = translation_of(old, self.new_prototypes, self.old_prototypes, self.strength)
        return PseudoFeatures(linear, old.out_features, translation)

    @property
    def prior(self) -> torch.Tensor | None:
        """Share of each class in an epoch (C,), for logit adjustment; None without replay."""
        if not self.buffer_size:
            return None
        amount = np.full(len(self.dataset.names), 1.0)  # a class without samples must not be 0
        for _, part in self.dataset.parts:
            images = part.splits["train"]
            counts = objects(part, images, len(amount)).sum(axis=0)
            draws = self.samples - self.ratio * self.samples
            if part is self.dataset.replayed:
                draws = self.ratio * self.samples
            amount += counts / max(1, counts.sum()) * draws
        return torch.from_numpy(amount / amount.sum()).float()


def point_loss(head: Any) -> PointRetentionLoss | None:
    """The retention loss of a pose head's key points; None for other heads."""
    if (shape := getattr(head, "kpt_shape", None)) is None:
        return None
    count = int(shape[0])
    # The tolerances of Ultralytics' loss (utils/loss.py, 8.4.190); a YOLOv8 head doubles its
    # outputs, a YOLO26 head does not (nn/modules/head.py).
    from ultralytics.utils.metrics import OKS_SIGMA

    sigmas = torch.from_numpy(OKS_SIGMA) if tuple(shape) == (17, 3) else torch.ones(count) / count
    unit = 1.0 if type(head).__name__ == "Pose26" else 2.0
    return PointRetentionLoss((count, int(shape[1])), sigmas.float(), unit)


def strength_of(buffer_size: int, balanced: bool = False) -> Strength:
    """The retention strength: without replay, batch-norm statistics stay those of the old model.

    Where all classes are equally frequent, holding the old scores keeps no more of the old classes,
    and costs new ones. Measured on GTSRB and road signs; see
    docs/explanation/learning-benchmarks.md.

    Args:
        buffer_size: Images in the replay buffer.
        balanced: See `OwnSettings`.
    """
    strength = Strength(statistics=not buffer_size)
    return replace(strength, scores=0.0) if balanced else strength


def freeze_statistics(trainer: Any) -> None:
    """Hook: keep batch normalisation in eval mode, with the old model's running statistics.

    Statistics of new images would not fit old images.
    """
    for module in trainer.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def _log_classes(
    union: ClassUnion, new: Dataset, old: Dataset | None, recipe: Recipe, job: JobHandle
) -> None:
    base = recipe.origin.shown
    added = f"{len(union.added)} new ones: {', '.join(union.added)}" if union.added else "none new"
    job.log(f"{union.old} classes of {base} are kept; {added}.")
    for note in notes_on_classes(union, new, old, base):
        if note not in recipe.notes:  # only now the classes of a weights file are known
            job.log(note)


def _numbers(
    new: Dataset, old: Dataset | None, buffer: Sequence[Path], union: ClassUnion
) -> ImageNumbers:
    """The numbers of images and classes that the settings are chosen from."""
    part = DatasetPart(old, {}, union.ids(old.names)) if old is not None else None
    seen = {cls for image in buffer if part for cls in part.classes(image)}
    absent = sum(i not in seen for i in range(union.old))
    images = len(new.scan().splits["train"])
    return ImageNumbers(images, len(buffer), union.old, len(union.added), absent)


def _old_extractor(before: Start, recipe: Recipe, settings: Settings) -> FeatureExtractor:
    """The old network as an extractor of features, for choosing images and for prototypes."""
    assert before.model is not None
    gpu = torch.cuda.is_available() and settings.device != "cpu"
    how = preprocessing_for(recipe.imgsz, before.preprocessing)
    return FeatureExtractor(
        before.model,
        recipe.task,
        recipe.imgsz,
        torch.device("cuda" if gpu else "cpu"),
        how if recipe.family == "mobilenet" else None,
    )


def _recovery(
    before: Start,
    dataset: MergedDataset,
    criteria: EpochCriteria | None,
    extractor: FeatureExtractor,
    recipe: Recipe,
    job: JobHandle,
    settings: Settings,
) -> OldClassRecovery | None:
    """What recovers lost old classes; None: without old val images their loss is not seen."""
    if criteria is None:
        return None
    origin = recipe.origin
    return OldClassRecovery(
        before,
        located(origin.value, settings) if origin.kind == "model" else job.folder / "base",
        dataset,
        criteria,
        recipe.imgsz,
        extractor.how if recipe.family == "mobilenet" else None,
        default_gate(settings).max_class_drop,
        job,
    )


def _resumed_start(start: Start, recipe: Recipe, job: JobHandle, settings: Settings) -> Start:
    """The start weights, or the weights of the interrupted job that the recipe resumes from."""
    if recipe.old_base is None:
        return start
    resumed = load_start(recipe.base, job.folder / "begun", settings)
    if resumed.names == start.names:
        return resumed
    job.log(
        f"The {recipe.base.shown} was trained for different classes, so this training starts "
        f"from {recipe.origin.shown}."
    )
    return start


def _zero_first_rows(first: int, gradient: torch.Tensor) -> torch.Tensor:
    """Gradient hook: the first rows get no gradient."""
    kept = gradient.clone()
    kept[:first] = 0
    return kept


def _restore_first_rows(old: nn.Linear, linear: Any, _: object) -> None:
    """Forward hook: the first rows are those of `old`; an optimiser's weight decay shrinks them."""
    with torch.no_grad():
        linear.weight[: old.out_features] = old.weight
        linear.bias[: old.out_features] = old.bias
