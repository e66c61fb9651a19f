"""A YOLO epoch that was interrupted: saved between two batches, gone on with by a later process.

Ultralytics 8.4.190 saves whole epochs only. Beside its last.pt stands a file with what has
changed since: weights, their average, the optimiser, the scaler, and the batches trained. What
is lost are gradients that were gathered but not yet applied (`nbs` above `batch`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch

FILE = "epoch.pt"
EVENT = "on_partial_save"  # just before, for what a mode keeps beside the trainer


class Remaining:
    """A loader whose first pass yields only the batches that the epoch has left.

    They are drawn anew: within this epoch a picture may come twice and another not at all. The
    warm-up counts from the first of them, too.
    """

    def __init__(self, loader: Any, done: int) -> None:
        self._loader = loader
        self._done = done
        if loader.generator is not None:  # seeded alike in each process: not the same ones again
            loader.generator.manual_seed(loader.generator.initial_seed() + done)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        # A generator: Ultralytics asks for two iterators and uses the second.
        left, self._done = len(self) - self._done, 0
        yield from islice(self._loader, left)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def save(trainer: Any, folder: Path, batch: int) -> None:
    """Keep the state after `batch` batches of the trainer's epoch; whole or not at all.

    Raises:
        OSError, RuntimeError: The disk is full.
    """
    content = {
        "epoch": trainer.epoch,
        "batch": batch,
        "batches": len(trainer.train_loader),
        "model": trainer.model.state_dict(),
        "average": trainer.ema.ema.state_dict(),
        "updates": trainer.ema.updates,
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": trainer.scaler.state_dict(),
    }
    temporary = folder / f"{FILE}.writing"
    torch.save(content, temporary)
    os.replace(temporary, folder / FILE)


def restore(trainer: Any, folder: Path) -> int:
    """Bring a trainer that was set up for this very epoch to where it was saved within it.

    Returns:
        The batches of the epoch that are done; 0 where nothing fitting was saved.
    """
    try:
        saved = torch.load(folder / FILE, map_location=trainer.device, weights_only=True)
    except FileNotFoundError:
        return 0
    except Exception:  # whatever a damaged file provokes
        return 0
    if saved["epoch"] != trainer.start_epoch:  # the epoch was finished, or goes back further
        return 0
    trainer.model.load_state_dict(saved["model"])
    trainer.ema.ema.load_state_dict(saved["average"])
    trainer.ema.updates = saved["updates"]
    groups = zip(saved["optimizer"]["param_groups"], trainer.optimizer.param_groups, strict=True)
    for group, ours in groups:
        group["fused"] = ours.get("fused")  # the device decides, not the checkpoint
    trainer.optimizer.load_state_dict(saved["optimizer"])
    if saved["scaler"]:
        trainer.scaler.load_state_dict(saved["scaler"])
    batches = len(trainer.train_loader)  # others, where the batch was halved for want of memory
    return min(batches - 1, int(saved["batch"]) * batches // int(saved["batches"]))


def forget(folder: Path) -> None:
    """The epoch is finished and saved by itself."""
    (folder / FILE).unlink(missing_ok=True)
