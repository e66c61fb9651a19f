"""Reports a YOLO training's progress to its job, from Ultralytics' callbacks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from jobs.handle import JobCancelled
from training.schedule import SAVE_INTERVAL, TRAINING_SHARE
from training.yolo import mid_epoch
from training.yolo.metrics import losses, scores

if TYPE_CHECKING:
    from training.yolo.run import Run

TRAIN_COST, VAL_COST = 3, 1  # relative time for an image in training and in validation
LIVE_INTERVAL = 0.5  # seconds between live losses; reading them waits for the GPU


class Progress:
    """Reports progress after each batch, and ends the training when the job is cancelled.

    Saves within an epoch if it takes longer than `SAVE_INTERVAL`, and when the service stops.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._trainer: Any = None
        self._batches = 0  # trained in this epoch
        self._validated = 0  # validation batches of this epoch
        self._epoch = -1
        self._live = 0.0  # time of the last reading of live losses
        self._saved = time.monotonic()

    def trained(self, trainer: Any) -> None:
        """Callback: a training batch is done."""
        if trainer.epoch != self._epoch:
            self._epoch, self._batches, self._validated = trainer.epoch, self.run.done, 0
            self.run.done = 0
        self._trainer = trainer
        self._batches += 1
        metrics: dict[str, float] = {}
        if time.monotonic() - self._live > LIVE_INTERVAL:
            self._live = time.monotonic()
            metrics = losses(trainer.tloss)
        self._report(metrics)
        if self.run.job.stop_requested or time.monotonic() - self._saved > SAVE_INTERVAL:
            self._save()

    def validated(self, _: Any) -> None:
        """Callback: a validation batch starts."""
        self._validated += 1
        if self._trainer is not None:
            self._report({})
            if self.run.job.stop_requested:
                self._save()

    def finished_epoch(self, trainer: Any) -> None:
        """Callback: an epoch is trained, validated and saved."""
        run = self.run
        metrics = epoch_metrics(run, trainer)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        run.job.log(f"Epoch {trainer.epoch + 1}/{trainer.epochs}: {shown}")
        self._batches = len(trainer.train_loader)
        self._validated = len(trainer.test_loader)
        self._saved = time.monotonic()
        self._report(metrics)

    def _save(self) -> None:
        """Save within the epoch, at most up to its last batch but one.

        So a resumed epoch has at least one batch to train.
        """
        trainer, job = self._trainer, self.run.job
        batches = len(trainer.train_loader)
        batch = min(self._batches, batches - 1)
        self._saved = time.monotonic()
        if batch and bool(torch.isfinite(trainer.loss).all()):
            try:
                trainer.run_callbacks(mid_epoch.EVENT)
                mid_epoch.save(trainer, self.run.checkpoints, batch)
            except (OSError, RuntimeError) as error:  # the last complete epoch is still saved
                job.log(f"This epoch could not be saved: {error}")
            else:
                job.log(f"Saved after batch {batch} of {batches} in epoch {trainer.epoch + 1}.")
                job.checkpointed(trainer.epoch, batch)
        if job.stop_requested:
            raise JobCancelled

    def _report(self, metrics: Mapping[str, float]) -> None:
        trainer, run = self._trainer, self.run
        train = len(trainer.train_loader) * TRAIN_COST
        val = len(trainer.test_loader) * 2 * VAL_COST  # validation batches are twice as large
        done = min(train, self._batches * TRAIN_COST) + min(val, self._validated * 2 * VAL_COST)
        epochs = int(trainer.epochs)
        fraction = TRAINING_SHARE * (trainer.epoch + done / (train + val)) / epochs
        run.job.report(
            fraction=fraction,
            epoch=trainer.epoch + 1,
            epochs=epochs,
            metrics={**metrics, **run.extra} if metrics else {},
            batch=min(self._batches, len(trainer.train_loader)),
            batches=len(trainer.train_loader),
        )
        run.job.check()


def epoch_metrics(run: Run, trainer: Any) -> dict[str, float]:
    """The losses, metrics and fitness of the trainer's epoch, once it is validated."""
    measured = scores(trainer.metrics, run.recipe.task, trainer.validator.speed, run.metric_names)
    return {**losses(trainer.tloss), **measured, "fitness": float(trainer.fitness)}
