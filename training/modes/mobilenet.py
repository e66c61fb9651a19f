"""The training modes of MobileNet: what each of them changes in `mobilenet.trainer`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Sampler

from training.distillation.criterion import ClassifierCriterion
from training.distillation.session import DistillationSession
from training.incremental.class_prototypes import ClassPrototypes, StorePrototypes
from training.incremental.epoch_criteria import NEW, OLD, EpochCriteria
from training.incremental.losses import ClassifierRetentionLoss
from training.incremental.old_class_recovery import OldClassRecovery
from training.mobilenet.method import Method, Session
from training.mobilenet.trainer import Denormalised, Normalising
from training.replay.buffer import ReplaySampler
from training.replay.merged_dataset import REPLAYED, MergedDataset

if TYPE_CHECKING:
    from jobs.handle import JobHandle


class StoredPrototypes(Method):
    """Regular training; the published model has class prototypes.

    Args:
        known: See `StorePrototypes`.
    """

    def __init__(self, known: ClassPrototypes | None = None) -> None:
        self.known = known

    def model_saved(self, session: Session, model: nn.Module, folder: Path) -> None:
        StorePrototypes(self.known, session.how).model_saved(session, model, folder)


class FrozenFeatures(StoredPrototypes):
    """Staged unfreezing: the last layer is trained first, then all layers.

    Args:
        epochs: Number of epochs of the first stage.
        job: Its log shows the stage.
    """

    def __init__(self, epochs: int, job: JobHandle) -> None:
        super().__init__()
        self.patience_from = epochs
        self.job = job
        self._stage = -1

    def enter_epoch(self, session: Session) -> None:
        stage = int(session.epoch >= self.patience_from)
        features: Any = session.model.features
        features.requires_grad_(bool(stage))
        if not stage:
            features.eval()  # the running statistics are frozen too
        if stage != self._stage:
            learning = ("head", "backbone and head")[stage]
            self.job.log(f"Stage {stage + 1} of 2: {learning} learning.")
        self._stage = stage
        self.extra = {"stage": float(stage + 1), "stages": 2.0}


class MergedImages(StoredPrototypes):
    """Training on new images and a replay buffer.

    Args:
        dataset: New and old data.
        ratio: Share of replayed samples in each epoch.
        samples: Training samples in an epoch.
        seed: Seed of their order.
        known: See `StorePrototypes`.
    """

    def __init__(
        self,
        dataset: MergedDataset,
        ratio: float,
        samples: int,
        seed: int,
        known: ClassPrototypes | None = None,
    ) -> None:
        super().__init__(known)
        self.dataset, self.ratio, self.seed, self.samples = dataset, ratio, seed, samples
        self.first = len(dataset.new.splits["train"])  # index of the first replayed image
        self._sampler: ReplaySampler | None = None

    def sampler(self) -> Sampler[int]:
        old = range(self.first, len(self.dataset.scan().splits["train"]))
        self._sampler = ReplaySampler(range(self.first), old, self.ratio, self.seed)
        return self._sampler

    def enter_epoch(self, session: Session) -> None:
        assert self._sampler is not None
        self._sampler.epoch = session.epoch

    def files(self, rows: Tensor) -> list[str]:
        """Names of the images at `rows`, by which the losses tell replayed ones."""
        return [f"{REPLAYED if row >= self.first else ''}{row}" for row in rows.tolist()]


class Retention(MergedImages):
    """Incremental learning: replay, retention loss, and the best epoch on old and new classes.

    Args:
        dataset, ratio, samples, seed: See `MergedImages`.
        make_loss: Makes the retention loss for a network on a device.
        criteria: How the published epoch is chosen; None: the last one is published.
        statistics: Whether batch normalisation keeps its old statistics.
        rows_only: Whether only the rows of new classes in the last layer are trained.
        known: See `StorePrototypes`.
        recovery: Recovers lost old classes; None: there are no old val images.
    """

    def __init__(
        self,
        dataset: MergedDataset,
        ratio: float,
        samples: int,
        seed: int,
        make_loss: Callable[[Any, Any], ClassifierRetentionLoss],
        criteria: EpochCriteria | None,
        statistics: bool,
        rows_only: bool,
        known: ClassPrototypes | None,
        recovery: OldClassRecovery | None,
    ) -> None:
        super().__init__(dataset, ratio, samples, seed, known)
        self.make_loss, self.criteria, self.recovery = make_loss, criteria, recovery
        self.statistics, self.rows_only = statistics, rows_only
        if rows_only:
            self.weight_decay = 0.0  # the rows of old classes must not change

    def model_saved(self, session: Session, model: nn.Module, folder: Path) -> None:
        if self.recovery is not None:
            self.recovery.model_saved(session, model, folder)
        super().model_saved(session, model, folder)

    def begin(self, session: Session) -> None:
        self.criterion = self.make_loss(session.model, session.device)
        self.pixels = Denormalised.of(session.how, session.device)
        if self.rows_only:
            classifier: Any = session.model.classifier
            classifier[0].p = 0.0  # dropout would change the features that are translated

    def enter_epoch(self, session: Session) -> None:
        super().enter_epoch(session)
        if self.statistics:
            for module in session.model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()

    def loss(self, session: Session, images: Tensor, classes: Tensor, rows: Tensor) -> Tensor:
        batch = {"img": self.pixels(images), "cls": classes, "im_file": self.files(rows)}
        loss, items = self.criterion(session.model(images), batch)
        self.extra = {name: float(value) for name, value in items.items() if name != "loss"}
        return loss

    def metrics(self, predicted: NDArray[Any]) -> dict[str, float]:
        """The mean accuracies of the old classes on old val images, and of the new on new ones."""
        return part_means(self.dataset, self.criteria, predicted) if self.criteria else {}

    def rank(self, metrics: Mapping[str, float], epoch: int) -> tuple[float, float]:
        means = [metrics[name] for name in (OLD, NEW) if name in metrics]
        if self.criteria is None or not means:
            return float(epoch), 0.0  # forgetting cannot be measured: the last epoch
        return fmean(means), -metrics["val_loss"]


def part_means(
    dataset: MergedDataset, criteria: EpochCriteria, predicted: NDArray[Any]
) -> dict[str, float]:
    """Mean per-class accuracy of the old and the new classes, on the val images of their data.

    Args:
        dataset: New and old data.
        criteria: The classes to measure.
        predicted: The predicted class of each val image.
    """
    images = dataset.scan().splits["val"]
    true = np.array([dataset.classes[image] for image in images])
    replayed = np.arange(len(images)) >= len(dataset.new.splits["val"])
    means = {}
    for name, is_old in ((OLD, True), (NEW, False)):
        own = replayed == is_old
        accuracies = [
            float((predicted[own & (true == cls)] == cls).mean())
            for cls in sorted(criteria.on(is_old) & set(true[own].tolist()))
        ]
        if accuracies:
            means[name] = fmean(accuracies)
    return means


class Distillation(StoredPrototypes):
    """Knowledge distillation: the student also learns from a teacher's outputs.

    Args:
        session: Teacher, losses and projectors.
        replay: The replay of old images; None: there are none.
    """

    def __init__(self, session: DistillationSession, replay: MergedImages | None) -> None:
        super().__init__()
        self.distillation, self.replay = session, replay
        self.samples = replay.samples if replay else None

    def sampler(self) -> Sampler[int] | None:
        return self.replay.sampler() if self.replay else None

    def begin(self, session: Session) -> None:
        self.pixels = Denormalised.of(session.how, session.device)
        distillation = self.distillation
        distillation.prepare(session.model, session.device, distillation.state_file.is_file())
        context = replace(distillation.context, features=distillation.features)
        student = Normalising(session.model, session.how, session.device)
        criterion = session.criterion

        def task_loss(preds: Tensor, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
            return criterion(preds, batch["cls"]), {}

        distillation.criterion = ClassifierCriterion(context, student, task_loss)
        features: Any = session.model.features
        features.register_forward_hook(self._capture)

    def _capture(self, module: nn.Module, _: Any, features: Tensor) -> None:
        if module.training:
            self.distillation.context.captured.features = (features,)

    def enter_epoch(self, session: Session) -> None:
        if self.replay:
            self.replay.enter_epoch(session)
        assert self.distillation.criterion is not None
        self.distillation.criterion.progress = session.epoch / session.recipe.epochs

    def loss(self, session: Session, images: Tensor, classes: Tensor, rows: Tensor) -> Tensor:
        batch: dict[str, Any] = {"img": self.pixels(images), "cls": classes}
        if self.replay:
            batch["im_file"] = self.replay.files(rows)
        assert self.distillation.criterion is not None
        loss, items = self.distillation.criterion(session.model(images), batch)
        self.extra = {name: float(value) for name, value in items.items()}
        total: Tensor = loss
        return total

    def after_step(self, session: Session) -> None:
        self.distillation.step_projectors(session)

    def save(self, session: Session) -> None:
        self.distillation.save(session)
