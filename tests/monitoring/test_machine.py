from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from monitoring.machine import _container_memory, gpu_gauges, machine_gauges, resident_by_kind
from settings import Settings
from source_tree import VERSION


def values(metrics: list[Metric]) -> dict[str, list[tuple[dict[str, str], float]]]:
    return {m.name: [(dict(s.labels), s.value) for s in m.samples] for m in metrics}


class Fixed(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self.metrics = metrics

    def collect(self) -> list[Metric]:
        return self.metrics


def test_versions_disks_and_memory_are_told_on_a_cpu(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, device="cpu", disk_reserve=2**20)
    found = values(machine_gauges(settings))
    ((labels, value),) = found["visionloop_build_info"]
    assert (labels["version"], labels["device"], value) == (VERSION, "cpu", 1)
    assert labels["bentoml"].startswith("1.")
    free = {labels["folder"]: value for labels, value in found["visionloop_disk_free_bytes"]}
    size = {labels["folder"]: value for labels, value in found["visionloop_disk_size_bytes"]}
    assert 0 < free["VISIONLOOP_HOME"] < size["VISIONLOOP_HOME"]
    assert found["visionloop_disk_reserve_bytes"] == [({}, 2**20)]
    assert all(value > 0 for _, value in found["visionloop_memory_resident_bytes"])
    assert not [name for name in found if "gpu" in name]


def test_the_exposition_takes_them(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    registry.register(Fixed(machine_gauges(Settings(home=tmp_path, device="cpu"))))
    assert b"visionloop_disk_free_bytes{" in generate_latest(registry)


class Process:
    """A process of this size with this command line."""

    def __init__(self, pid: int, *line: str, rss: int = 1) -> None:
        self.pid, self.line, self.rss = pid, list(line), rss

    def cmdline(self) -> list[str]:
        return self.line

    def memory_info(self) -> Any:
        if not self.rss:
            raise psutil.NoSuchProcess(self.pid)
        return SimpleNamespace(rss=self.rss)


def test_memory_is_summed_by_kind_of_process() -> None:
    processes: list[Any] = [
        Process(os.getppid(), "python", "-m", "bentoml", "serve", rss=5),
        Process(-1, "python", "x", "--service-name", "Detector", rss=10),
        Process(-2, "python", "-m", "worker", "0" * 32, rss=100),
        Process(-3, "python", "-c", "from multiprocessing…", rss=1000),
        Process(-4, "python", "-m", "worker", "1" * 32, rss=0),  # has just ended
    ]
    assert resident_by_kind(iter(processes)) == {"supervisor": 5, "Detector": 10, "job": 1100}


def test_a_containers_limit_is_told_only_if_there_is_one(tmp_path: Path) -> None:
    assert _container_memory(tmp_path) == []
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert _container_memory(tmp_path) == []
    (tmp_path / "memory.max").write_text("4096\n")
    assert {name: value for name, ((_, value),) in values(_container_memory(tmp_path)).items()} == {
        "visionloop_container_memory_limit_bytes": 4096,
        "visionloop_container_memory_used_bytes": 1000,
    }


def test_the_limit_of_an_old_control_group_is_told_too(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("1000\n")
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert _container_memory(tmp_path) == []
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("4096\n")
    assert len(_container_memory(tmp_path)) == 2


class Nvml:
    """NVIDIA's library, of a machine with two GPUs, the second in MIG mode."""

    class NVMLError(Exception):
        pass

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        return f"GPU {handle}"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(used=100 + handle, total=1000)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        if handle:
            raise self.NVMLError
        return SimpleNamespace(gpu=50)


def test_every_gpu_is_told_with_what_is_known_of_it() -> None:
    found = values(gpu_gauges(Nvml()))
    one, two = {"gpu": "0", "name": "GPU 0"}, {"gpu": "1", "name": "GPU 1"}
    assert found["visionloop_gpu_memory_used_bytes"] == [(one, 100), (two, 101)]
    assert found["visionloop_gpu_memory_size_bytes"] == [(one, 1000), (two, 1000)]
    assert found["visionloop_gpu_utilisation_ratio"] == [(one, 0.5)]
    assert gpu_gauges(None) == []
