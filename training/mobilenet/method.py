"""How a training mode changes the training of a MobileNet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Sampler

from models_store.description import Preprocessing
from training.planning.recipe import Recipe
from training.training_data import TrainingData

if TYPE_CHECKING:
    from jobs.handle import JobHandle


class Session(Protocol):
    """The parts of a training in progress (`mobilenet.trainer.Session`) that a method may use."""

    recipe: Recipe
    job: JobHandle
    dataset: TrainingData
    device: Any
    how: Preprocessing
    model: nn.Module
    criterion: nn.Module

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""


class Method:
    """A regular training. Modes derive from it and override what they change.

    Attributes:
        samples: Training samples in an epoch; None: each training image once.
        weight_decay: The default weight decay; None: that of the trainer.
        patience_from: The epoch from which early stopping counts.
        extra: Values to report beside the metrics.
    """

    samples: int | None = None
    weight_decay: float | None = None
    patience_from = 0
    extra: Mapping[str, float] = {}

    def sampler(self) -> Sampler[int] | None:
        """The order of the training images; None: a random permutation in each epoch."""
        return None

    def begin(self, session: Session) -> None:
        """Called once the network, its optimiser and its moving average are built."""

    def enter_epoch(self, session: Session) -> None:
        """Called at the start of each epoch, with the network in training mode."""

    def loss(self, session: Session, images: Tensor, classes: Tensor, rows: Tensor) -> Tensor:
        """The loss of a batch, a scalar.

        Args:
            session: The training.
            images: Augmented and normalised images (B, 3, H, W).
            classes: Class ids (B,).
            rows: Positions of the images in the train split (B,).
        """
        loss: Tensor = session.criterion(session.model(images), classes)
        return loss

    def after_step(self, session: Session) -> None:
        """Called after each step of the optimiser."""

    def metrics(self, predicted: NDArray[Any]) -> dict[str, float]:
        """Further validation metrics.

        Args:
            predicted: The predicted class of each val image.
        """
        return {}

    def rank(self, metrics: Mapping[str, float], epoch: int) -> tuple[float, float]:
        """The rank of an epoch; the epoch of the highest rank is published."""
        return metrics["accuracy"], -metrics["val_loss"]

    def save(self, session: Session) -> None:
        """Called after each checkpoint; may store more state beside it."""

    def model_saved(self, session: Session, model: nn.Module, folder: Path) -> None:
        """Called after the best network was written to `folder`; may store more files there."""
