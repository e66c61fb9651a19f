"""The choice of an engine: which is allowed, which is fastest, and what is stored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engines import trial as module
from engines.timing import Times
from engines.trial import Trial, TrialData, choose, compared
from errors import Conflict
from inference.cpu.engine_choice import (
    CpuEngine,
    EngineTrial,
    choice_folder,
    damaged_file,
    read_choice,
)
from inference.engine import load_engine
from models_store.description import record
from settings import Settings
from tests.support.data_sets import checked
from tests.support.shapes import write_shapes
from tests.support.small_models import make_model


def tried(**times: float | None) -> dict[CpuEngine, EngineTrial]:
    """Trials with these relative times; None: not usable."""
    found: dict[CpuEngine, EngineTrial] = {}
    names: tuple[CpuEngine, ...] = ("onnxruntime", "openvino", "int8")
    for name in names:
        time = times.get(name)
        found[name] = EngineTrial(
            engine=name, usable=time is not None, note="", relative_time=time or 0.01
        )
    return found


@pytest.mark.parametrize(
    ("times", "present", "expected", "reason"),
    [
        ({"onnxruntime": 1.0}, "onnxruntime", "onnxruntime", "takes the shortest time."),
        ({"onnxruntime": 1.0, "openvino": 0.95}, "onnxruntime", "onnxruntime", "a gain of 10%"),
        ({"onnxruntime": 1.0, "openvino": 0.89}, "onnxruntime", "openvino", "takes 0.89 of"),
        ({"onnxruntime": 1.0, "openvino": 1.05}, "openvino", "openvino", "a gain of 10%"),
        ({"onnxruntime": 1.0, "openvino": 1.2}, "openvino", "onnxruntime", "takes 0.83 of"),
        ({"onnxruntime": 1.0, "openvino": 0.9, "int8": 0.5}, "openvino", "int8", "OpenVINO int8"),
        ({"onnxruntime": 1.0, "openvino": 0.8, "int8": 0.75}, "onnxruntime", "openvino", "0.94 of"),
        ({"onnxruntime": 1.0, "openvino": 0.8, "int8": 0.75}, "int8", "int8", "shortest time"),
        ({"onnxruntime": 1.0, "openvino": 0.8, "int8": 0.7}, "onnxruntime", "int8", "0.70"),
        (
            {"onnxruntime": 1.0, "openvino": 0.92, "int8": 0.89},
            "onnxruntime",
            "onnxruntime",
            "needed for a change. OpenVINO int8 takes 0.97 of the time of OpenVINO fp32: too small",
        ),
        (
            {"onnxruntime": 1.0, "int8": 0.95},
            "onnxruntime",
            "onnxruntime",
            "the shortest time in fp32. OpenVINO int8 takes 0.95",
        ),
        ({"onnxruntime": 1.0, "int8": 1.3}, "onnxruntime", "onnxruntime", "the next takes 1.30"),
        ({"onnxruntime": 1.0, "openvino": None}, "int8", "onnxruntime", "takes the shortest time."),
    ],
)
def test_the_fastest_serves_if_the_gain_is_worth_a_change(
    times: dict[str, Any], present: CpuEngine, expected: str, reason: str
) -> None:
    engine, told = choose(tried(**times), present)
    assert engine == expected
    assert reason in told


def report(value: float, classes: dict[str, float], kind: str = "detection") -> dict[str, Any]:
    metric = "accuracy" if kind == "classification" else "mAP50_95"
    return {
        "model": {"id": "m:1", "name": "m", "version": "1", "type": kind},
        "dataset": {"name": "d", "fingerprint": "f", "split": "val", "images": 9},
        "engine": "x",
        "figures": {metric: value, "f1_score": 0.5},
        "classes": [
            {"name": name, "instances": 7, metric: found, "f1_score": 0.5}
            for name, found in classes.items()
        ],
        "speed": {"preprocess": 1.0, "inference": 1.0, "postprocess": 1.0},
        "thresholds": {},
        "notes": [],
        "imgsz": 64,
        "created_at": "2026-11-30T12:00:00+00:00",
    }


@pytest.mark.parametrize(
    ("value", "classes", "usable", "told"),
    [
        (0.800, {"a": 0.8, "b": 0.8}, True, "mAP50-95 went from 0.800 to 0.800"),
        (0.795, {"a": 0.8, "b": 0.76}, True, "'b' regressed most"),
        (0.794, {"a": 0.8, "b": 0.8}, False, "at least -0.005 is required"),
        (0.800, {"a": 0.9, "b": 0.74}, False, "'b' regressed from 0.800 to 0.740"),
        (0.810, {"a": 0.85, "b": 0.8}, True, "went from 0.800 to 0.810"),
    ],
)
def test_int8_may_serve_if_neither_the_metric_nor_a_class_loses_too_much(
    value: float, classes: dict[str, float], usable: bool, told: str
) -> None:
    exact = report(0.8, {"a": 0.8, "b": 0.8})
    found = compared(exact, report(value, classes), Settings())
    assert found.usable is usable
    assert told in found.note
    assert found.metrics["mAP50_95"] == value
    assert found.fp32_metrics["mAP50_95"] == 0.8
    worst = min(classes, key=lambda name: classes[name])
    assert found.worst_class_drop == pytest.approx(0.8 - classes[worst])


def test_int8_does_not_serve_if_nothing_shows_what_it_costs() -> None:
    exact, measured = report(0.0, {"a": 0.0}), report(0.0, {"a": 0.0})
    for one in (exact, measured):
        one["classes"][0]["instances"] = 0
    found = compared(exact, measured, Settings())
    assert not found.usable
    assert found.note == "val has no object: nothing shows what int8 costs."
    assert (found.worst_class, found.worst_class_drop) == (None, None)


def test_how_much_int8_may_lose_is_a_setting() -> None:
    exact, measured = report(0.8, {"a": 0.8}), report(0.77, {"a": 0.77})
    assert not compared(exact, measured, Settings()).usable
    assert compared(exact, measured, Settings(int8_max_drop=3.1)).usable
    strict = Settings(int8_max_drop=3.1, gate_max_class_drop=0.01)
    assert not compared(exact, measured, strict).usable


def test_a_classifier_is_judged_by_its_accuracy() -> None:
    exact = report(0.9, {"a": 0.9}, "classification")
    found = compared(exact, report(0.89, {"a": 0.89}, "classification"), Settings())
    assert not found.usable
    assert "accuracy went from 0.900 to 0.890" in found.note


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "shapes" / "1"
    make_model(folder, "detect", 64)
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", device="cpu", int8_max_drop=100, gate_max_class_drop=1)


def trial_of(model: Path, settings: Settings, data: TrialData | str, log: list[str]) -> Trial:
    scratch = settings.home / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    return Trial(
        folder=model,
        model_id="shapes:1",
        settings=settings,
        scratch=scratch,
        data=data,
        log=log.append,
        progress=lambda share: None,
        idle=lambda: None,
        load=lambda: 0.0,
    )


def fast(engine: CpuEngine) -> Callable[..., Times]:
    """A measurement in which one engine is twice as fast as the others."""

    def measure(engines: dict[str, Any], *_: Any) -> Times:
        return Times({name: {"x": 5.0 if name == engine else 10.0} for name in engines})

    return measure


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "int8"])
def test_a_trial_stores_what_then_serves(
    engine: CpuEngine,
    model: Path,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_shapes(tmp_path / "data", "detect", 6, 3, imgsz=64)
    dataset = checked(tmp_path / "data")
    images = list(dataset.scan().splits["train"])
    monkeypatch.setattr(module, "measure", fast(engine))
    log: list[str] = []
    data = TrialData(dataset, "drawn shapes", "val", images)
    choice = trial_of(model, settings, data, log).run()
    assert choice.engine == engine
    assert read_choice(model, settings) == choice
    assert (choice.dataset, choice.split, choice.calibration_images) == ("drawn shapes", "val", 6)
    assert damaged_file(choice, choice_folder(model, settings)) is None
    assert set(choice.files) == {"int8.xml", "int8.bin"}
    found = choice.trial("int8")
    assert found is not None
    assert found.usable
    assert found.metrics.keys() == found.fp32_metrics.keys() >= {"mAP50_95", "f1_score"}
    expected = {
        "onnxruntime": "onnxruntime-cpu",
        "openvino": "openvino-cpu-fp32",
        "int8": "openvino-cpu-int8",
    }
    assert load_engine(model, settings)[0].backend == expected[engine]
    assert any("Evaluating int8 on 3 images of val" in line for line in log)
    assert choice.reason in log


def test_a_trial_of_an_onnx_file_that_is_replaced_meanwhile_is_not_stored(
    model: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(engines: dict[str, Any], *_: Any) -> Times:
        record(model, "onnx", {"sha256": "of another export"})
        return fast("openvino")(engines)

    monkeypatch.setattr(module, "measure", measure)
    with pytest.raises(Conflict, match="shapes:1 was made again while its engines were tried"):
        trial_of(model, settings, "none", []).run()
    assert not choice_folder(model, settings).exists()


def test_the_times_of_a_trial_are_measured(model: Path, settings: Settings) -> None:
    choice = trial_of(model, settings, "There is no data.", []).run()
    assert choice.dataset is None
    for name in ("onnxruntime", "openvino"):
        found = choice.trial(name)
        assert found is not None
        assert found.milliseconds.keys() == {"64x64 one thread", "64x64 all threads"}
        assert min(found.milliseconds.values()) > 0
    int8 = choice.trial("int8")
    assert int8 is not None
    assert (int8.usable, int8.note, int8.milliseconds) == (False, "There is no data.", {})
    assert choice.files == {}


@pytest.mark.slow
def test_int8_that_loses_too_much_is_neither_kept_nor_measured(
    model: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shapes(tmp_path / "data", "detect", 6, 3, imgsz=64)
    dataset = checked(tmp_path / "data")
    data = TrialData(dataset, "drawn", "val", list(dataset.scan().splits["train"]))
    refused = iter(
        EngineTrial(engine="int8", usable=False, note=note, metrics={"mAP50_95": value})
        for note, value in (("worse", 0.2), ("the best", 0.4), ("worst", 0.1))
    )
    monkeypatch.setattr(module, "compared", lambda *_: next(refused))
    choice = trial_of(model, settings, data, []).run()
    int8 = choice.trial("int8")
    assert int8 is not None
    assert (int8.usable, int8.milliseconds, int8.note) == (False, {}, "the best")
    assert next(refused, None) is None
    assert [path.name for path in choice_folder(model, settings).iterdir()] == ["choice.json"]


def test_ranges_are_taken_another_way_if_int8_loses_too_much(
    model: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shapes(tmp_path / "data", "detect", 6, 3, imgsz=64)
    dataset = checked(tmp_path / "data")
    data = TrialData(dataset, "drawn", "val", list(dataset.scan().splits["train"]))
    trials = iter(
        EngineTrial(engine="int8", usable=usable, note="", metrics={"mAP50_95": 0.3})
        for usable in (False, True)
    )
    monkeypatch.setattr(module, "compared", lambda *_: next(trials))
    choice = trial_of(model, settings, data, []).run()
    assert next(trials, None) is None
    int8 = choice.trial("int8")
    assert int8 is not None
    assert int8.milliseconds


def test_what_a_missing_package_leaves_is_tried(
    model: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "installed", lambda package: False)
    choice = trial_of(model, settings, "none", []).run()
    openvino = choice.trial("openvino")
    assert openvino is not None
    assert openvino.note == "OpenVINO is not installed: pip install openvino."
    assert choice.engine == "onnxruntime"
