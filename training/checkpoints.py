"""Checkpoint files: written atomically with torch, and checked before a training goes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dataset.class_matching import tidy
from errors import VisionLoopError
from files import atomic_path


def save_checkpoint(content: Any, target: Path) -> None:
    """Write `content` with `torch.save`; a killed process leaves the old checkpoint or the new.

    Raises:
        OSError, RuntimeError: The disk is full.
    """
    with atomic_path(target) as path:
        torch.save(content, path)


def check_order(before: Sequence[str], names: Sequence[str], job_id: str) -> None:
    """Check that the class ids of a job's checkpoint still mean the same classes.

    A version before sorted class folders by names with decomposed accents.

    Args:
        before: The class names of the checkpoint.
        names: Those of the dataset now.
        job_id: The job's id.

    Raises:
        VisionLoopError: They are in another order.
    """
    known, now = [tidy(name) for name in before], [tidy(name) for name in names]
    if known != now and sorted(known) == sorted(now):
        raise VisionLoopError(
            "The classes of the dataset are no longer in the order in which this training began "
            f"to learn them. Start it again; with resume_weights {job_id} it keeps what it learned."
        )
