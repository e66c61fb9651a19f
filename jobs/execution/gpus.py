"""The number of GPUs that a job uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inference.device import cuda_devices, device
from settings import Settings


def check_gpus(settings: Settings) -> None:
    """Check that this machine has the GPUs of a training, unless a cluster runs the trainings.

    Raises:
        RuntimeError: It has fewer; the message says what to set.
    """
    if settings.train_gpus == 1 or settings.cluster_url is not None:
        return
    found = cuda_devices() if device(settings) == "cuda" else 0
    if found < settings.train_gpus:
        raise RuntimeError(
            f"VISIONLOOP_TRAIN_GPUS is {settings.train_gpus}, but jobs can use {found} GPUs here "
            "(of those that the driver and CUDA_VISIBLE_DEVICES show). Set it to 1, or add GPUs."
        )


def gpus_of(recipe: Mapping[str, Any], settings: Settings) -> int:
    """The number of GPUs that a job with this recipe uses.

    Only a training that was planned for several uses several, and only while the setting allows as
    many.
    """
    planned = int(recipe.get("gpus", 1))
    return planned if planned <= settings.train_gpus else 1
