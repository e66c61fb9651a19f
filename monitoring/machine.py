"""The machine as the operator sees it: versions, disks, memory of the processes, GPUs."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

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
    for disk in disks(settings):
        free.add_metric([disk.folder], disk.free)
        size.add_metric([disk.folder], disk.size)
    return [free, size, reserve]


class Disk(NamedTuple):
    """The disk of one of our folders; free and whole size in bytes."""

    folder: str
    free: int
    size: int


def disks(settings: Settings) -> list[Disk]:
    """The disks of the folders of the service."""
    found = []
    for name, folder in (("VISIONLOOP_HOME", settings.home), ("BENTOML_HOME", bento_home())):
        with contextlib.suppress(OSError):
            usage = shutil.disk_usage(folder)
            found.append(Disk(name, usage.free, usage.total))
    return found


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


class ProcessMemory(NamedTuple):
    """A process of the server.

    Attributes:
        kind: The name of a service, `job` (with its data loaders), `supervisor`.
        pid: Its id.
        resident: Bytes of resident memory.
    """

    kind: str
    pid: int
    resident: int


def process_memory() -> list[ProcessMemory]:
    """The memory of each process of the server. Takes milliseconds."""
    return list(_memory(_processes()))


def _memory(processes: Iterable[psutil.Process]) -> Iterator[ProcessMemory]:
    for process in processes:
        with contextlib.suppress(psutil.Error, IndexError):
            line = process.cmdline()
            if SERVICE in line:
                kind = line[line.index(SERVICE) + 1]
            elif process.pid == os.getppid():
                kind = "supervisor"
            else:
                kind = "job"
            yield ProcessMemory(kind, process.pid, process.memory_info().rss)


def resident_by_kind(processes: Iterator[psutil.Process]) -> Counter[str]:
    """Bytes by kind: the name of a service, `job` (with its data loaders), `supervisor`."""
    found: Counter[str] = Counter()
    for one in _memory(processes):
        found[one.kind] += one.resident
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


class Gpu(NamedTuple):
    """A GPU of the machine; memory in bytes, by whoever uses it.

    Attributes:
        busy: Share of the last second in which it was at work; None: not known.
    """

    number: int
    name: str
    used: int
    size: int
    busy: float | None


def gpus(settings: Settings) -> list[Gpu]:
    """The GPUs of the machine; none if the service runs on a CPU."""
    return gpus_of(_nvml()) if device(settings) == "cuda" else []


def gpus_of(nvml: Any) -> list[Gpu]:
    """The GPUs that `nvml`, the module `pynvml`, knows; None: there are none."""
    found: list[Gpu] = []
    if nvml is None:
        return found
    with contextlib.suppress(nvml.NVMLError):
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            busy = None
            with contextlib.suppress(nvml.NVMLError):  # not known with MIG
                busy = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
            name = nvml.nvmlDeviceGetName(handle)
            found.append(Gpu(index, name, memory.used, memory.total, busy))
    return found


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
    used = GaugeMetricFamily(
        "visionloop_gpu_memory_used_bytes",
        "Memory of a GPU in use by anyone",
        labels=["gpu", "name"],
    )
    size = GaugeMetricFamily(
        "visionloop_gpu_memory_size_bytes", "Memory of a GPU", labels=["gpu", "name"]
    )
    busy = GaugeMetricFamily(
        "visionloop_gpu_utilisation_ratio",
        "Share of the last second in which a GPU was at work",
        labels=["gpu", "name"],
    )
    if nvml is None:
        return []
    for gpu in gpus_of(nvml):
        place = [str(gpu.number), gpu.name]
        used.add_metric(place, gpu.used)
        size.add_metric(place, gpu.size)
        if gpu.busy is not None:
            busy.add_metric(place, gpu.busy)
    return [used, size, busy]
