"""The measurement of engines: in turn, on an idle machine, by the median."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import timing
from engines.timing import OthersLoad, Times, is_idle, measure, shapes
from inference.prediction import Float
from tests.support.small_models import small_description


class Counted:
    """An engine that notes what runs."""

    backend, batched, letterbox = "counted", False, "rect"

    def __init__(self, name: str, log: list[tuple[str, tuple[int, ...], bool]]) -> None:
        self.name, self.log = name, log

    def run(self, pixels: Any, wide: bool = False, halt: Any = None) -> tuple[Float, ...]:
        self.log.append((self.name, pixels.shape[1:3], wide))
        return (np.zeros((1, 4), np.float32),)


def test_every_round_runs_every_engine_at_every_shape_in_both_ways() -> None:
    log: list[tuple[str, tuple[int, ...], bool]] = []
    engines: dict[str, Any] = {name: Counted(name, log) for name in ("a", "b")}
    description = small_description("detect", 128)
    times = measure(engines, description, lambda: None, lambda: 0.0, rounds=3)
    keys = {
        f"{size} {way}" for size in ("128x128", "96x128") for way in ("one thread", "all threads")
    }
    assert times.milliseconds.keys() == {"a", "b"}
    assert times.milliseconds["a"].keys() == keys == times.milliseconds["b"].keys()
    runs = [name for name, *_ in log]
    assert runs.count("a") == runs.count("b")
    first = [runs[len(runs) - 3 * 24 :][round * 24] for round in range(3)]
    assert first == ["a", "b", "a"]  # the order changes: none has the warm caches always
    assert (times.load, times.discarded) == (0.0, 0)


def test_a_round_in_which_others_used_the_cpu_is_measured_again() -> None:
    log: list[tuple[str, tuple[int, ...], bool]] = []
    waits = []
    loads = iter([0.0, 9e9, 0.0, 0.01, 0.0, 0.02])
    times = measure(
        {"a": Counted("a", log)},  # type: ignore[dict-item]
        small_description("detect", 64),
        lambda: waits.append(1),
        lambda: next(loads),
        rounds=2,
    )
    assert (times.discarded, times.load) == (1, 0.02)
    assert len(waits) == 3


def test_a_wait_that_fails_ends_the_measurement() -> None:
    def never() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        measure(
            {"a": Counted("a", [])},  # type: ignore[dict-item]
            small_description("detect", 64),
            never,
            lambda: 0.0,
        )


@pytest.mark.parametrize(
    ("imgsz", "rect", "expected"),
    [
        (640, True, [(640, 640), (480, 640)]),
        (320, True, [(320, 320), (256, 320)]),
        (640, False, [(640, 640)]),
    ],
)
def test_the_shapes_are_the_square_and_a_photo(
    imgsz: int, rect: bool, expected: list[tuple[int, int]]
) -> None:
    assert shapes(small_description("detect", imgsz), rect) == expected


def test_a_classifier_has_one_shape() -> None:
    assert shapes(small_description("classify", 64), True) == [(64, 64)]


def test_relative_time_is_the_geometric_mean() -> None:
    times = Times({"a": {"x": 10.0, "y": 40.0}, "b": {"x": 20.0, "y": 20.0}})
    assert times.relative("a", "b") == pytest.approx(1.0)
    assert times.relative("a", "a") == 1.0


def test_the_load_of_others_is_that_of_the_machine_without_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = tmp_path / "stat"
    clock: Iterator[float] = iter([100.0, 110.0])
    own: Iterator[float] = iter([1.0, 6.0])
    monkeypatch.setattr(timing.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(timing.time, "process_time", lambda: next(own))
    monkeypatch.setattr(timing, "TICKS", 100)
    stat.write_text("cpu  100 0 100 5000 50 0 0 0 0 0\ncpu0 1 2\n")
    load = OthersLoad(stat, tmp_path)
    stat.write_text("cpu  600 100 700 5900 90 50 50 0 0 0\n")
    assert load() == pytest.approx((1300 / 100 - 5) / 10)


def test_in_a_container_with_a_quota_only_its_own_processes_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = tmp_path / "stat"
    clock: Iterator[float] = iter([100.0, 110.0])
    own: Iterator[float] = iter([1.0, 6.0])
    monkeypatch.setattr(timing.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(timing.time, "process_time", lambda: next(own))
    stat.write_text("cpu  100 0 100 5000 50 0 0 0 0 0\n")
    (tmp_path / "cpu.max").write_text("200000 100000\n")
    (tmp_path / "cpu.stat").write_text("usage_usec 3000000\nuser_usec 1\n")
    load = OthersLoad(stat, tmp_path)
    stat.write_text("cpu  90000 0 100 5000 50 0 0 0 0 0\n")  # what others do on the machine
    (tmp_path / "cpu.stat").write_text("usage_usec 9000000\nuser_usec 1\n")
    assert load() == pytest.approx(((9 - 3) - (6 - 1)) / 10)


def test_a_machine_that_does_not_tell_its_load_counts_as_idle(tmp_path: Path) -> None:
    load = OthersLoad(tmp_path / "none", tmp_path)
    assert load() == 0.0
    assert is_idle(load())
