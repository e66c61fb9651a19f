"""Checkpoint files, written atomically with torch."""

from __future__ import annotations

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
