"""Checkpoints within an epoch of a YOLO training, for a later process to resume from.

Ultralytics 8.4.190 saves complete epochs only. `epoch.pt`, beside its last.pt, holds what changed
since: weights, their moving average, optimiser, gradient scaler, and the number of trained
batches. Gradients accumulated but not yet applied (`nbs` above `batch`) are lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DistributedSampler

from training.checkpoints import save_checkpoint

FILE = "epoch.pt"
EVENT = "on_partial_save"  # event before such a save, so that a mode can save its own state too


class Remaining:
    """A data loader whose first pass yields only as many batches as the epoch has left.

    The batches are sampled anew, so in this epoch some images may occur twice and others not at
    all. The warm-up, too, restarts with the first of these batches.
    """

    def __init__(self, loader: Any, done: int) -> None:
        self._loader = loader
        self._done = done
        # Every process starts with the same seed, so without another one the batches that are
        # already trained would come again.
        if loader.generator is not None:
            loader.generator.manual_seed(loader.generator.initial_seed() + done)
        if isinstance(sampler := getattr(loader, "sampler", None), DistributedSampler):
            sampler.seed += done  # of several GPUs: by the seed and the epoch alone

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        # As a generator, this runs only when the first batch is requested. Ultralytics creates two
        # iterators and uses the second, so the unused one does not reset `_done`.
        left, self._done = len(self) - self._done, 0
        yield from islice(self._loader, left)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def unwrapped(model: Any) -> Any:
    """The network itself, where several GPUs train it and it is wrapped for that."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def save(trainer: Any, folder: Path, batch: int) -> None:
    """Save the state after `batch` batches of the trainer's epoch, atomically.

    Raises:
        OSError, RuntimeError: The disk is full.
    """
    content = {
        "epoch": trainer.epoch,
        "batch": batch,
        "batches": len(trainer.train_loader),
        "model": unwrapped(trainer.model).state_dict(),
        "average": trainer.ema.ema.state_dict(),
        "updates": trainer.ema.updates,
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": trainer.scaler.state_dict(),
    }
    save_checkpoint(content, folder / FILE)


def restore(trainer: Any, folder: Path) -> int:
    """Restore the state within the epoch that `save` wrote.

    The trainer must already be set up for this epoch.

    Returns:
        The number of batches of the epoch that are trained; 0 if there is no checkpoint of it.
    """
    try:
        saved = torch.load(folder / FILE, map_location=trainer.device, weights_only=True)
    except FileNotFoundError:
        return 0
    except Exception:  # a damaged file can raise anything
        return 0
    # Different if the saved epoch is complete, or the training resumes from an earlier epoch.
    if saved["epoch"] != trainer.start_epoch:
        return 0
    unwrapped(trainer.model).load_state_dict(saved["model"])
    trainer.ema.ema.load_state_dict(saved["average"])
    trainer.ema.updates = saved["updates"]
    groups = zip(saved["optimizer"]["param_groups"], trainer.optimizer.param_groups, strict=True)
    for group, ours in groups:
        group["fused"] = ours.get("fused")  # the device decides, not the checkpoint
    trainer.optimizer.load_state_dict(saved["optimizer"])
    if saved["scaler"]:
        trainer.scaler.load_state_dict(saved["scaler"])
    batches = len(trainer.train_loader)  # differs if the batch was halved after out of memory
    return min(batches - 1, int(saved["batch"]) * batches // int(saved["batches"]))


def forget(folder: Path) -> None:
    """Delete the checkpoint within the epoch; call it when the complete epoch is saved."""
    (folder / FILE).unlink(missing_ok=True)
