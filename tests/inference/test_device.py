from __future__ import annotations

import pytest

from cores import cpu_count
from inference.device import Limits, cpu_sessions, device, limits
from settings import Settings


def test_cpu_can_be_asked_for() -> None:
    assert device(Settings(device="cpu")) == "cpu"


@pytest.mark.parametrize(("devices", "expected"), [(0, "cpu"), (2, "cuda")])
def test_auto_takes_a_gpu_that_is_there(devices: int, expected: str) -> None:
    assert device(Settings(device="auto"), devices) == expected


def test_a_gpu_that_is_not_there_stops_the_start() -> None:
    with pytest.raises(RuntimeError, match="VISIONLOOP_DEVICE"):
        device(Settings(device="cuda"), 0)


def test_limits_follow_the_device_and_the_settings() -> None:
    assert limits(Settings(device="cpu", sessions=2)) == Limits(slots=3, max_batch=2)
    assert limits(Settings(device="cpu", sessions=16)) == Limits(slots=10, max_batch=2)
    assert limits(Settings(device="cpu", sessions=1, max_batch=5)) == Limits(3, 5)
    assert limits(Settings(device="cuda"), 1) == Limits(slots=3, max_batch=32)
    assert limits(Settings(device="cuda", max_batch=8), 1).max_batch == 8


def test_sessions_default_to_the_cores() -> None:
    assert cpu_sessions(Settings()) == cpu_count() >= 1
    assert cpu_sessions(Settings(sessions=5)) == 5
