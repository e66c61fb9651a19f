"""Sums of the counters of all processes, read from their files."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from serving.operations.counters import EDGES, read_counters
from tests.support.serving import ROOT

COUNTED = """
from serving import prometheus_patches
prometheus_patches.reserve_space()
from serving.telemetry import BATCH_SIZE, ERRORS, IMAGES, LATENCY, REQUESTS
for route, status in (("/infer", 200), ("/infer", 503), ("/models", 404)):
    REQUESTS.labels(route, "POST", status).inc()
    LATENCY.labels(route).observe(0.03)
LATENCY.labels("/infer").observe(100)
ERRORS.labels("MODEL_NOT_FOUND").inc()
IMAGES.labels("signs:1").inc(5)
for size in (2, 4):
    BATCH_SIZE.labels("detector").observe(size)
for i in range(int(__import__("sys").argv[1])):
    LATENCY.labels(f"/route/{i}").observe(0.1)
"""


def count(folder: Path, series: int = 0) -> None:
    """Have a process count some requests."""
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(folder), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", COUNTED, str(series)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)


def test_the_counts_of_two_processes_are_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    count(tmp_path)
    count(tmp_path)
    (tmp_path / "counter_1.db").write_bytes(b"")  # of a process that begins
    found = read_counters()
    assert found.images == {"signs:1": 10}
    assert (found.requests, found.predicting) == (6, 4)
    assert found.statuses == {"2xx": 2, "5xx": 2, "4xx": 2}
    assert found.errors == {"MODEL_NOT_FOUND": 2}
    assert (found.batches, found.batched) == (4, 12)
    assert found.latency[EDGES.index(0.05)] == 4
    assert found.latency[-1] == 2
    assert sum(found.latency) == 6


def test_a_thousand_series_are_read_in_little_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    count(tmp_path, series=1000)  # each has a dozen samples
    read_counters()
    best = min(_timed() for _ in range(3))
    assert best < 0.5, f"{best:.3f} s"


def _timed() -> float:
    began = time.perf_counter()
    read_counters()
    return time.perf_counter() - began


def test_without_files_those_of_this_process_count(monkeypatch: pytest.MonkeyPatch) -> None:
    from serving.telemetry import IMAGES, LATENCY, REQUESTS

    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    before = read_counters()
    REQUESTS.labels("/infer", "POST", 200).inc()
    IMAGES.labels("signs:1").inc(3)
    for seconds in (0.03, 0.03, 0.3):
        LATENCY.labels("/infer").observe(seconds)
    after = read_counters()
    assert after.images - before.images == {"signs:1": 3}
    assert after.predicting - before.predicting == 1
    counts = [b - a for a, b in zip(before.latency, after.latency, strict=True)]
    assert {edge: n for edge, n in zip(EDGES, counts, strict=True) if n} == {0.05: 2, 0.5: 1}
