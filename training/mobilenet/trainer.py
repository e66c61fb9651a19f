"""The trainer of MobileNetV2 classifiers (Sandler et al. 2018; torchvision's network).

AdamW with warm-up and a cosine schedule, label smoothing, early stopping, and a moving average of
the weights (EMA). The averaged weights are validated and published. Checkpoints are written after
each epoch, and within an epoch when the service stops. They hold the complete state, so that a
resumed training gives the same result as an uninterrupted one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler
from torchvision.models.mobilenetv2 import InvertedResidual

from cores import cpu_count
from errors import ValidationFailed
from evaluation.confusion import classifier_scores
from jobs.artifacts import BEST, CHECKPOINTS, note_best
from jobs.failures import explained
from jobs.handle import JobCancelled, JobHandle
from models_store.description import ModelDescription, Preprocessing
from models_store.weight_ema import WeightEMA
from models_store.weights import build_model, describe, describe_mobilenet, save_model
from settings import get_settings
from training.checkpoints import check_order, save_checkpoint
from training.data_workers import data_workers
from training.mobilenet.data import CACHE, Training, Validation, preprocessing_for
from training.mobilenet.method import Method
from training.planning.recipe import Recipe
from training.prepare import scan_images
from training.publish import Trained
from training.schedule import SAVE_INTERVAL, TRAINING_SHARE, Amount, amount_of
from training.start_weights import Start, keep_rows
from training.training_data import TrainingData

SCRATCH_RATE, FINE_RATE = 2e-3, 5e-4  # peak learning rates: from scratch, from start weights
SMALLEST_RATE = 0.01  # final learning rate, as a share of the peak
CLIP = 5.0  # maximum gradient norm


def train(
    recipe: Recipe, job: JobHandle, dataset: TrainingData, start: Start, method: Method
) -> Trained:
    """Train a MobileNetV2 from its start weights to its best epoch.

    Args:
        recipe: The requested training.
        job: The job; it gets progress and log lines, and is checked for a requested stop.
        dataset: The images.
        start: The start weights.
        method: How the training mode changes the training.

    Raises:
        VisionLoopError: The dataset, the start weights or the settings cannot be used.
        JobCancelled: The job was cancelled, or the service stops.
    """
    gpu = torch.cuda.is_available() and get_settings().device != "cpu"

    with explained(recipe.batch, recipe.imgsz):
        device = torch.device("cuda" if gpu else "cpu")
        scan_images(dataset, job)
        session = Session.begin(recipe, job, dataset, start, device, method)
        with job.graceful_stop():
            while not session.is_over:
                session.train_epoch()
                session.validate()
                session.save()
        return session.collect()


@dataclass
class State:
    """The progress of a training, as stored in a checkpoint beside the tensors."""

    epoch: int = 0  # number of finished epochs
    batch: int = 0  # number of batches trained in the next epoch
    best_epoch: int = 0
    best: tuple[float, float] = (-1.0, -math.inf)  # accuracy, then minus the loss
    metrics: dict[str, float] = field(default_factory=dict)  # metrics of the best epoch


class Batches(BatchSampler):
    """Batch sampler whose next pass skips the first `skip` batches, which are trained already."""

    skip = 0

    def __iter__(self) -> Iterator[list[int]]:
        skip, self.skip = self.skip, 0
        return islice(super().__iter__(), skip, None)


class Session:
    """A training in progress: network, optimiser, data loaders and state."""

    def __init__(
        self,
        recipe: Recipe,
        job: JobHandle,
        dataset: TrainingData,
        start: Start,
        device: Any,
        method: Method,
    ) -> None:
        self.method = method
        self.recipe, self.job, self.dataset, self.device = recipe, job, dataset, device
        self.how = preprocessing_for(recipe.imgsz, start.preprocessing)
        hyper = recipe.hyper
        images, classes = dataset.scan().splits, dataset.classes
        self.amount: Amount = amount_of(recipe, method.samples or len(images["train"]))
        cores = cpu_count()
        # float32; batches of validation are twice as large
        batch_bytes = 3 * recipe.batch * 3 * self.how.imgsz**2 * 4
        workers = int(hyper.get("workers", data_workers(cores, batch_bytes)))
        cache = CACHE // max(1, workers)
        train = Training(images["train"], classes, recipe, self.how, cache)
        val = Validation(images["val"], classes, self.how, cache)
        if len(train) < 2:
            raise ValidationFailed("Training needs at least two images. Add images to train.")
        self.generator = torch.Generator().manual_seed(recipe.seed)
        sampler = method.sampler() or RandomSampler(train, generator=self.generator)
        samples = len(sampler)  # type: ignore[arg-type]
        self.batches = Batches(
            sampler,
            recipe.batch,
            drop_last=samples > recipe.batch and samples % recipe.batch == 1,
        )
        self.loader: DataLoader[Any] = DataLoader(
            train,
            batch_sampler=self.batches,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        self.val_loader: DataLoader[Any] = DataLoader(
            val, recipe.batch * 2, num_workers=workers, persistent_workers=workers > 0
        )
        self.model = network(recipe, dataset, start, job).to(device).train()
        momentum = float(hyper.get("bn_momentum", max(0.05, self.amount.bn_momentum)))
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = momentum
            elif isinstance(module, nn.Dropout):
                module.p = float(hyper.get("dropout", 0.2))
        decay = method.weight_decay
        self.optimizer = torch.optim.AdamW(
            _groups(self.model, hyper.get("weight_decay", 0.02 if decay is None else decay))
        )
        self.average = WeightEMA(self.model)
        self.criterion: nn.Module = nn.CrossEntropyLoss(
            label_smoothing=hyper.get("label_smoothing", 0.05)
        )
        scratch = recipe.base.kind == "scratch"
        self.rate = float(hyper.get("lr0", SCRATCH_RATE if scratch else FINE_RATE))
        self.state = State()
        self.loss = 0.0
        self.shuffle = self.generator.get_state()  # random state at the start of the epoch
        self.saved = time.monotonic()
        method.begin(self)

    @classmethod
    def begin(
        cls,
        recipe: Recipe,
        job: JobHandle,
        dataset: TrainingData,
        start: Start,
        device: Any,
        method: Method,
    ) -> Session:
        """Create a session: resumed from the job's checkpoint if there is one, else new."""
        torch.manual_seed(recipe.seed)
        session = cls(recipe, job, dataset, start, device, method)
        session.checkpoints.mkdir(parents=True, exist_ok=True)
        resumed = session.load()
        where = f"from epoch {session.state.epoch + 1}" if resumed else "from the start"
        if session.state.batch == len(session.loader):
            where = f"from the validation of epoch {session.state.epoch + 1}"
        elif session.state.batch:
            place = f"{session.state.batch + 1} of {len(session.loader)}"
            where = f"from batch {place} in epoch {session.state.epoch + 1}"
        counts = [len(dataset.scan().splits[split]) for split in ("train", "val")]
        job.log(
            f"Training {where} to epoch {recipe.epochs} on {device}: {counts[0]} images, "
            f"{counts[1]} for validation, batch {recipe.batch}, imgsz {recipe.imgsz}, AdamW with "
            f"lr0 {session.rate:g}, {torch.get_num_threads()} threads."
        )
        return session

    @property
    def checkpoints(self) -> Path:
        return self.job.folder / CHECKPOINTS

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return self.state.epoch

    @property
    def is_over(self) -> bool:
        waited = self.state.epoch - self.state.best_epoch
        waited = min(waited, self.state.epoch - self.method.patience_from)
        impatient = bool(self.recipe.patience) and waited >= self.recipe.patience
        return self.state.epoch >= self.recipe.epochs or impatient

    def train_epoch(self) -> None:
        self.model.train()
        self.method.enter_epoch(self)
        total = seen = 0.0
        self.shuffle = self.generator.get_state()
        self.batches.skip = self.state.batch
        for index, (images, classes, rows) in enumerate(self.loader, self.state.batch):
            self.job.check()
            step = self.state.epoch * len(self.loader) + index
            for group in self.optimizer.param_groups:
                group["lr"] = self._rate(step)
            images, classes = images.to(self.device), classes.to(self.device)
            loss = self.method.loss(self, images, classes, rows)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
            self.optimizer.step()
            self.method.after_step(self)
            self.average.update(self.model)
            total, seen = total + loss.item() * len(classes), seen + len(classes)
            self.loss = total / seen
            if not math.isfinite(self.loss):
                raise FloatingPointError(f"The loss is {self.loss}.")
            self.state.batch = index + 1
            self._report(index + 1, 0, {"loss": self.loss})
            if self.job.stop_requested or time.monotonic() - self.saved > SAVE_INTERVAL:
                self.save()

    @torch.inference_mode()
    def validate(self) -> None:
        """Validate the averaged weights, and record whether this epoch is the best so far."""
        count = len(self.dataset.names)
        matrix = torch.zeros(count, count, dtype=torch.long)
        total = seconds = 0.0
        predicted: list[Tensor] = []
        for index, (images, classes) in enumerate(self.val_loader):
            self.job.check()
            began = time.perf_counter()
            output = self.average.model(images.to(self.device)).float().cpu()
            seconds += time.perf_counter() - began
            predicted.append(output.argmax(1))
            total += nn.functional.cross_entropy(output, classes, reduction="sum").item()
            matrix += torch.bincount(
                classes * count + output.argmax(1), minlength=count * count
            ).view(count, count)
            self._report(len(self.loader), index + 1, {})
            if self.job.stop_requested:
                self.save()
        metrics = classifier_scores(matrix.numpy())
        seen = int(matrix.sum())
        metrics |= {"loss": self.loss, "val_loss": total / seen}
        metrics |= self.method.metrics(torch.cat(predicted).numpy())
        metrics["inference_time"] = round(1000 * seconds / seen, 3)  # ms per image
        state = self.state
        state.epoch, state.batch = state.epoch + 1, 0
        ranked = self.method.rank(metrics, state.epoch)
        if ranked > state.best:
            state.best, state.best_epoch = ranked, state.epoch
            state.metrics = {**metrics, "epoch": float(state.epoch)}
        shown = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        self.job.log(f"Epoch {state.epoch}/{self.recipe.epochs}: {shown}")
        self._report(0, 0, metrics)
        self.job.finished_epoch(state.epoch, metrics)

    def save(self) -> None:
        """Write the checkpoint atomically, and the averaged weights of the best epoch separately.

        Raises:
            JobCancelled: The service stops.
        """
        state, count = self.state, len(self.loader)
        if state.best_epoch == state.epoch and not state.batch:
            described = self.describe().model_dump_json()
            weights = self.average.model.state_dict()
            save_checkpoint({"model": weights, "description": described}, self.checkpoints / BEST)
            note_best(self.checkpoints, state.epoch)
        content = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "state": vars(state),
            "loss": self.loss,
            "random": torch.get_rng_state(),
            "shuffle": self.shuffle if state.batch else self.generator.get_state(),
        }
        save_checkpoint(content, self.checkpoints / "last.pt")
        self.method.save(self)
        self.saved = time.monotonic()
        self.job.checkpointed(state.epoch, state.batch)
        if state.batch:
            self.job.log(f"Saved after batch {state.batch} of {count} in epoch {state.epoch + 1}.")
        if self.job.stop_requested:
            raise JobCancelled

    def load(self) -> bool:
        """Load the checkpoint; False if there is none, or none that can be read."""
        path = self.checkpoints / "last.pt"
        if not path.is_file():
            return False
        try:
            saved = torch.load(path, map_location=self.device, weights_only=True)
        except Exception as error:  # a damaged file can raise anything
            self.job.log(f"The checkpoint cannot be read ({error}); training starts again.")
            return False
        if saved["state"]["best_epoch"]:
            if not (self.checkpoints / BEST).is_file():
                return False
            best = torch.load(self.checkpoints / BEST, map_location="cpu", weights_only=True)
            learned = ModelDescription.model_validate_json(best["description"]).names
            check_order(learned, self.dataset.names, self.job.id)
        self.model.load_state_dict(saved["model"])
        self.average.load_state_dict(saved["average"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.state = State(**saved["state"])
        self.state.best = (float(self.state.best[0]), float(self.state.best[1]))
        self.loss = saved["loss"]
        torch.set_rng_state(saved["random"].cpu())
        self.generator.set_state(saved["shuffle"].cpu())
        return True

    def describe(self) -> ModelDescription:
        return describe(
            self.average.model,
            self.recipe.imgsz,
            names=self.dataset.names,
            preprocessing=self.how,
            description=f"Trained from {self.recipe.base.shown}.",
        )

    def collect(self) -> Trained:
        """Save the averaged weights of the best epoch as a model folder."""
        model = self.average.model.cpu()
        best = torch.load(self.checkpoints / BEST, map_location="cpu", weights_only=True)
        model.load_state_dict(best["model"])
        folder = self.job.folder / "model"
        folder.mkdir(exist_ok=True)
        save_model(folder, model, self.describe())
        self.method.model_saved(self, model, folder)
        metrics = self.state.metrics
        self.job.log(f"Best epoch {self.state.best_epoch}: accuracy {metrics['accuracy']:.3f}.")
        fingerprint = self.dataset.learned.fingerprint
        return Trained(folder, metrics, fingerprint, self.dataset.class_counts)

    def _rate(self, step: int) -> float:
        """The learning rate at a step: linear warm-up, then cosine decay."""
        total = self.amount.epochs * len(self.loader)
        epochs = float(self.recipe.hyper.get("warmup_epochs", self.amount.warmup_epochs))
        warm = max(1.0, epochs * len(self.loader))
        if step < warm:
            return self.rate * (step + 1) / warm
        low = float(self.recipe.hyper.get("lrf", SMALLEST_RATE))
        progress = (step - warm) / max(1.0, total - warm)
        return self.rate * (low + (1 - low) * (1 + math.cos(math.pi * min(1.0, progress))) / 2)

    def _report(self, trained: int, validated: int, metrics: dict[str, float]) -> None:
        """Report progress by batches; an image takes three times as long to train as to validate.

        Validation batches are twice as large as training batches.
        """
        whole = 3 * len(self.loader) + 2 * len(self.val_loader)
        done = self.state.epoch + (3 * trained + 2 * validated) / whole
        self.job.report(
            fraction=TRAINING_SHARE * done / self.recipe.epochs,
            epoch=min(self.state.epoch + 1, self.recipe.epochs),
            epochs=self.recipe.epochs,
            metrics={**metrics, **self.method.extra} if metrics else {},
            batch=trained,
            batches=len(self.loader),
        )


@dataclass(frozen=True)
class Denormalised:
    """Maps normalised images back to pixel values from 0 to 1, for networks that expect these."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, how: Preprocessing, device: torch.device) -> Denormalised:
        return cls(*(torch.tensor(v, device=device).view(1, -1, 1, 1) for v in (how.mean, how.std)))

    def __call__(self, images: Tensor) -> Tensor:
        """Pixel values of images (B, 3, H, W)."""
        return (images * self.std + self.mean).clamp(0, 1)


class Normalising(nn.Module):
    """A network with the normalisation of its input: it takes pixel values from 0 to 1."""

    def __init__(self, model: nn.Module, how: Preprocessing, device: torch.device) -> None:
        super().__init__()
        self.model = model
        self.mean, self.std = (
            torch.tensor(v, device=device).view(1, -1, 1, 1) for v in (how.mean, how.std)
        )

    def forward(self, images: Tensor) -> Any:
        return self.model((images - self.mean) / self.std)


def network(recipe: Recipe, dataset: TrainingData, start: Start, job: JobHandle) -> nn.Module:
    """The network to train, with one output per class.

    Rows of the last layer are copied from the start weights for classes of the same name.
    """
    width = float(start.architecture.get("width_mult", 1.0))
    description = describe_mobilenet(
        len(dataset.names), recipe.imgsz, names=dataset.names, width=width
    )
    model: Any = build_model(description)
    if start.model is not None:
        known: Any = start.model
        model.features.load_state_dict(known.features.state_dict())
        kept = keep_rows(model.classifier[-1], known.classifier[-1], dataset.names, start.names)
        job.log(f"Start weights know {kept} of the {len(dataset.names)} classes by name.")
    else:
        open_residuals(model)
    return model


def open_residuals(model: nn.Module) -> None:
    """Initialise every residual block as the identity (Goyal et al. 2017, section 5.1).

    Training from scratch with small batches converges much faster: with 64 synthetic images and
    12 epochs, accuracy is 1.0 instead of 0.6.
    """
    for block in model.modules():
        if isinstance(block, InvertedResidual) and block.use_res_connect:
            nn.init.zeros_(block.conv[-1].weight)


def _groups(model: nn.Module, decay: float) -> Iterator[dict[str, Any]]:
    """The optimiser's parameter groups: no weight decay for biases and normalisation layers."""
    yield {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": float(decay)}
    yield {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0}
