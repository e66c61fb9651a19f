"""The machine as the operator sees it: versions, disks, memory of the processes, GPUs."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from inference.device import device
from models_store.store import bento_home
from settings import Settings
from source_tree import VERSION

PACKAGES = ("bentoml", "onnxruntime", "torch", "ultralytics")
GROUPS = Path("/sys/fs/cgroup")
SERVICE = "--service-name"  # on the command line of every service process
UNLIMITED = 2**60  # control groups of version 1 have a number of about 2**63 instead of no limit


def machine_gauges(settings: Settings) -> list[Metric]:
    """All gauges of the machine. Takes milliseconds.

    Those of GPUs are missing where the service runs on a CPU, that of the container's limit
    where there is none.
    """
    return [
        _build_info(settings),
        *_disks(settings),
        _resident_memory(),
        *_container_memory(GROUPS),
        *_gpus(settings),
    ]


def _build_info(settings: Settings) -> Metric:
    info = GaugeMetricFamily(
        "visionloop_build_info",
        "1; the versions of the service and of what it runs on, and its device",
        labels=["version", "python", "bentoml", "onnxruntime", "torch", "ultralytics", "device"],
    )
    packages = [_version(name) for name in PACKAGES]
    info.add_metric([VERSION, platform.python_version(), *packages, device(settings)], 1)
    return info


@cache
def _version(package: str) -> str:
    """A package's version, without importing it; empty if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _disks(settings: Settings) -> list[Metric]:
    free = GaugeMetricFamily(
        "visionloop_disk_free_bytes", "Free space on the disk of a folder", labels=["folder"]
    )
    size = GaugeMetricFamily(
        "visionloop_disk_size_bytes", "Size of the disk of a folder", labels=["folder"]
    )
    reserve = GaugeMetricFamily(
        "visionloop_disk_reserve_bytes",
        "Space that must stay free on the disk of VISIONLOOP_HOME (VISIONLOOP_DISK_RESERVE)",
        int(settings.disk_reserve),
    )
    for name, folder in (("VISIONLOOP_HOME", settings.home), ("BENTOML_HOME", bento_home())):
        with contextlib.suppress(OSError):
            found = shutil.disk_usage(folder)
            free.add_metric([name], found.free)
            size.add_metric([name], found.total)
    return [free, size, reserve]


def _resident_memory() -> Metric:
    memory = GaugeMetricFamily(
        "visionloop_memory_resident_bytes",
        "Resident memory of the processes of a kind: of a service, of jobs, of the supervisor",
        labels=["process"],
    )
    for kind, size in sorted(resident_by_kind(_processes()).items()):
        memory.add_metric([kind], size)
    return memory


def _processes() -> Iterator[psutil.Process]:
    """The supervisor's process, and all that descend from it."""
    with contextlib.suppress(psutil.Error):
        supervisor = psutil.Process(os.getppid())
        yield supervisor
        yield from supervisor.children(recursive=True)


def resident_by_kind(processes: Iterator[psutil.Process]) -> Counter[str]:
    """Bytes by kind: the name of a service, `job` (with its data loaders), `supervisor`."""
    found: Counter[str] = Counter()
    for process in processes:
        with contextlib.suppress(psutil.Error, IndexError):
            line = process.cmdline()
            if SERVICE in line:
                kind = line[line.index(SERVICE) + 1]
            elif process.pid == os.getppid():
                kind = "supervisor"
            else:
                kind = "job"
            found[kind] += process.memory_info().rss
    return found


def _container_memory(root: Path) -> list[Metric]:
    limit = _number(root / "memory.max", root / "memory/memory.limit_in_bytes")
    used = _number(root / "memory.current", root / "memory/memory.usage_in_bytes")
    if limit is None or used is None or limit >= UNLIMITED:
        return []
    return [
        GaugeMetricFamily(
            "visionloop_container_memory_limit_bytes", "Memory limit of the container", limit
        ),
        GaugeMetricFamily(
            "visionloop_container_memory_used_bytes",
            "Memory in use in the container, with its file cache",
            used,
        ),
    ]


def _number(*files: Path) -> int | None:
    """The number in the first file that exists; None if there is none, or it is `max`."""
    for file in files:
        with contextlib.suppress(OSError, ValueError):
            return int(file.read_text())
    return None


def _gpus(settings: Settings) -> list[Metric]:
    if device(settings) != "cuda":
        return []
    return gpu_gauges(_nvml())


@cache
def _nvml() -> Any:
    """NVIDIA's management library; None if the driver has none."""
    import pynvml  # type: ignore[import-untyped]

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def gpu_gauges(nvml: Any) -> list[Metric]:
    """Gauges of all GPUs of the machine; `nvml` is the module `pynvml`, None: there are none."""
    labels = ["gpu", "name"]
    used = GaugeMetricFamily(
        "visionloop_gpu_memory_used_bytes", "Memory of a GPU in use by anyone", labels=labels
    )
    size = GaugeMetricFamily("visionloop_gpu_memory_size_bytes", "Memory of a GPU", labels=labels)
    busy = GaugeMetricFamily(
        "visionloop_gpu_utilisation_ratio",
        "Share of the last second in which a GPU was at work",
        labels=labels,
    )
    if nvml is None:
        return []
    with contextlib.suppress(nvml.NVMLError):
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            name = nvml.nvmlDeviceGetName(handle)
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            used.add_metric([str(index), name], memory.used)
            size.add_metric([str(index), name], memory.total)
            with contextlib.suppress(nvml.NVMLError):  # not known with MIG
                share = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
                busy.add_metric([str(index), name], share)
    return [used, size, busy]
