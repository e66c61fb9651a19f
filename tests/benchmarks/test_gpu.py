from __future__ import annotations

import sys

import numpy as np
import pytest

from benchmarks.gpu import bench
from benchmarks.gpu.bench import Row
from benchmarks.gpu.raw_pipeline import matched
from inference.prediction import Prediction

HALF = {
    "detections": 40,
    "matched": 0.975,
    "pixels_p99": 0.31,
    "pixels_max": 0.5,
    "score_max": 0.004,
}
RAW = {
    "device": "NVIDIA X",
    "engine": "pytorch-cuda-fp16",
    "batch": 32,
    "decodes": True,
    "network": 3000.0,
    "raw": 2000.0,
    "half": HALF,
}
ROWS = [
    Row("VisionLoop, 1 gateway", 16, 600.0, 25.0, 40.0),
    Row("VisionLoop, 4 gateways", 64, 1900.0, 30.0, 50.0),
    Row("FastAPI + YOLO.predict", 16, 190.0, 80.0, 120.0),
]


def prediction(*found: tuple[int, float, tuple[float, ...]]) -> Prediction:
    return Prediction(
        "detect",
        ("a", "b"),
        100,
        100,
        np.array([row[0] for row in found], np.int64),
        np.array([row[1] for row in found], np.float32),
        np.array([row[2] for row in found], np.float32).reshape(-1, 4),
    )


def test_the_table_names_both_devices_and_the_ratios_of_the_best(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bench.report(RAW, ROWS)
    told = capsys.readouterr().out
    for words in (
        "NVIDIA X; ",
        "JPEGs decoded on the device",
        "| VisionLoop, 4 gateways | 64 | 1900.0 | 30.0 | 50.0 |",
        "best of ours: VisionLoop, 4 gateways, concurrency 64",
        "without a server: 0.95 (aim 0.9)",
        "each at its best: 10.00 (aim 5)",
        "97.5 % found by both",
    ):
        assert words in told


def test_figures_of_a_cpu_are_not_held_against_the_aims_of_a_gpu(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bench.report(RAW | {"device": None, "decodes": False}, ROWS)
    told = capsys.readouterr().out
    assert "aim" not in told
    assert "say nothing about a GPU" in told


def test_without_a_gpu_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "cuda_devices", lambda: 0)
    monkeypatch.setattr(sys, "argv", ["benchmarks.gpu"])
    with pytest.raises(SystemExit, match="--cpu"):
        bench.main()


def test_objects_are_matched_by_class_and_place_one_to_one() -> None:
    one = prediction((0, 0.9, (0, 0, 10, 10)), (1, 0.8, (50, 50, 60, 60)))
    other = prediction(
        (0, 0.8, (0, 0, 10, 9)), (0, 0.7, (0, 0, 10, 10)), (0, 0.6, (50, 50, 60, 60))
    )
    (pair,) = matched(one, other)
    assert pair[2:] == pytest.approx((0.9, 0.8))
    assert matched(prediction(), other) == []
    assert matched(one, prediction()) == []
