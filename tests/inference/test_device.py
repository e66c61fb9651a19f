from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from cores import cpu_count
from inference.device import Limits, check_engine, cpu_sessions, device, limits
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


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_engine_of_the_cpu_is_run_there_though_there_is_a_gpu(engine: Any) -> None:
    assert device(Settings(engine=engine), 2) == "cpu"


@pytest.mark.parametrize("engine", ["torch", "tensorrt"])
def test_an_engine_of_the_gpu_without_one_stops_the_start(engine: Any) -> None:
    assert device(Settings(engine=engine), 1) == "cuda"
    with pytest.raises(RuntimeError, match=f"VISIONLOOP_ENGINE is '{engine}', but no CUDA device"):
        device(Settings(engine=engine), 0)


def test_a_forced_engine_whose_package_is_missing_stops_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_engine(Settings(engine="auto"))
    check_engine(Settings(engine="onnxruntime"))
    check_engine(Settings(engine="openvino"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="openvino is not installed"):
        check_engine(Settings(engine="openvino"))


@pytest.mark.parametrize(
    ("engine", "given", "needed"), [("openvino", "cuda", "cpu"), ("torch", "cpu", "cuda")]
)
def test_an_engine_and_a_device_that_exclude_each_other_are_refused(
    engine: Any, given: Any, needed: str
) -> None:
    told = f"VISIONLOOP_ENGINE={engine} needs VISIONLOOP_DEVICE {needed} or auto, not {given}"
    with pytest.raises(ValidationError, match=told):
        Settings(engine=engine, device=given)
