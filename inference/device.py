"""The device that serves models, and limits on concurrent calls; without importing torch."""

from __future__ import annotations

import ctypes
import importlib.util
import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from cores import cpu_count
from settings import Settings

Device = Literal["cpu", "cuda"]

GPU_BATCH = 32
GPU_SLOTS = 3  # batches in flight: one being decoded, one on the device, one being drawn
CPU_BATCH = 2

CPU_ENGINES = ("onnxruntime", "openvino", "int8")
CUDA_ENGINES = ("torch", "tensorrt")
PACKAGES = {
    "openvino": ("openvino", "Install it: pip install openvino. Or use 'auto'."),
    "int8": ("openvino", "Install it: pip install openvino. Or use 'auto'."),
    "tensorrt": ("tensorrt", "Install it: requirements-tensorrt.txt. Or use 'auto'."),
}
"""Forced engine → its package, if the service runs without it, and what to do."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the calls to one runner: `slots` in flight, of at most `max_batch` items."""

    slots: int
    max_batch: int


def device(settings: Settings, gpus: int | None = None) -> Device:
    """The device that `settings.device` and `settings.engine` select on this machine.

    `gpus` is the number of CUDA devices; None: asked of the driver.

    Raises:
        RuntimeError: `cuda` or an engine for it was requested and there is no CUDA device.
    """
    if settings.device == "cpu" or settings.engine in CPU_ENGINES:
        return "cpu"
    if (cuda_devices() if gpus is None else gpus) > 0:
        return "cuda"
    if settings.engine in CUDA_ENGINES:
        raise RuntimeError(
            f"VISIONLOOP_ENGINE is '{settings.engine}', but no CUDA device was found (driver "
            "missing, or CUDA_VISIBLE_DEVICES hides it). Use 'auto', 'onnxruntime' or 'openvino'."
        )
    if settings.device == "cuda":
        raise RuntimeError(
            "VISIONLOOP_DEVICE is 'cuda', but no CUDA device was found (driver missing, or "
            "CUDA_VISIBLE_DEVICES hides it). Use 'auto' or 'cpu'."
        )
    return "cpu"


def check_engine(settings: Settings) -> None:
    """Check that the package of a forced engine is installed.

    Raises:
        RuntimeError: It is not; the message says how to install it.
    """
    package, remedy = PACKAGES.get(settings.engine, ("", ""))
    if package and not installed(package):
        raise RuntimeError(
            f"VISIONLOOP_ENGINE is '{settings.engine}', but {package} is not installed. {remedy}"
        )


def installed(package: str) -> bool:
    """Whether a package can be imported; it is not."""
    return importlib.util.find_spec(package) is not None


def limits(settings: Settings, gpus: int | None = None) -> Limits:
    """Slots and batch size that keep a runner busy without a long queue inside it.

    On a CPU items are predicted independently, so small batches suffice. There are two more slots
    than the sessions need, so that no session is idle while a response is sent or while a batch
    waits for its slowest item. `gpus` is that of `device`.
    """
    if device(settings, gpus) == "cuda":
        return Limits(GPU_SLOTS, settings.max_batch or GPU_BATCH)
    batch = settings.max_batch or CPU_BATCH
    sessions = cpu_sessions(settings)
    return Limits(-(-sessions // batch) + 2, batch)


def cpu_sessions(settings: Settings) -> int:
    """The number of images that a CPU runner predicts at once, with one thread each."""
    return settings.sessions or cpu_count()


@lru_cache(maxsize=1)
def cuda_devices() -> int:
    """The number of visible CUDA devices, as the driver reports it."""
    try:
        driver = ctypes.CDLL("libcuda.so.1" if os.name == "posix" else "nvcuda.dll")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
