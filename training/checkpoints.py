"""Checkpoint files: written atomically with torch, and cleaned up after a killed process."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from files import atomic_path


def save_checkpoint(content: Any, target: Path) -> None:
    """Write `content` with `torch.save`; a killed process leaves the old checkpoint or the new.

    Raises:
        OSError, RuntimeError: The disk is full.
    """
    with atomic_path(target) as path:
        torch.save(content, path)


def open_checkpoint_folder(folder: Path) -> None:
    """Create the folder, or delete what a killed process left half-written in it.

    Only one process at a time writes into a job's checkpoint folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for partial in folder.glob(".partial-*"):
        shutil.rmtree(partial, ignore_errors=True)
