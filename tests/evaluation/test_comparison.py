"""Two evaluations side by side, from arrays made by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from errors import Conflict
from evaluation import comparison
from evaluation.store import PREDICTIONS, REPORT
from models_store.subprocesses import run_module
from tests.support.made_reports import report

IMAGES = ("a.jpg", "b.jpg", "c.jpg", "d.jpg")


def detections(
    names: tuple[str, ...], right: Mapping[int, float], false: Mapping[int, float] = {}
) -> dict[str, Any]:
    """One object of class 0 in each image; which images have a right and which a false detection,
    with its score."""
    found = [*right.items(), *false.items()]
    count = len(IMAGES)
    return {
        "images": np.array(IMAGES),
        "class_names": np.array(names),
        "image": np.array([image for image, _ in found], np.int64),
        "conf": np.array([score for _, score in found], np.float32),
        "pred": np.zeros(len(found), np.int64),
        "tp": np.array([[i < len(right)] * 10 for i in range(len(found))], bool).reshape(-1, 10),
        "target": np.zeros(count, np.int64),
        "target_image": np.arange(count),
        "right": np.array([int(i in right) for i in range(count)]),
        "false": np.array([int(i in false) for i in range(count)]),
        "missed": np.array([int(i not in right) for i in range(count)]),
    }


def classes(true: list[int], pred: list[int]) -> dict[str, Any]:
    return {
        "images": np.array(IMAGES),
        "class_names": np.array(["stop", "yield"]),
        "true": np.array(true),
        "pred": np.array(pred),
        "top5": np.ones(len(true), bool),
        "conf": np.ones(len(true), np.float32),
    }


def saved(folder: Path, made: dict[str, Any], arrays: dict[str, Any]) -> Path:
    folder.mkdir()
    (folder / REPORT).write_text(json.dumps(made))
    np.savez_compressed(folder / PREDICTIONS, **arrays)
    return folder


def test_images_that_changed_are_named_the_greatest_change_first() -> None:
    before = detections(("stop",), {0: 0.9, 1: 0.9}, {2: 0.5})
    after = detections(("stop",), {1: 0.9, 2: 0.9})
    assert comparison.changed_images(before, after) == {
        "total": 4,
        "fixed": 1,
        "broken": 1,
        "unchanged": 2,
        "fixed_images": [{"image": "c.jpg", "a": 2, "b": 0}],
        "broken_images": [{"image": "a.jpg", "a": 0, "b": 1}],
    }


def test_of_a_classifier_a_changed_image_is_one_that_is_right_now_or_no_more() -> None:
    found = comparison.changed_images(
        classes([0, 0, 1, 1], [0, 1, 0, 1]), classes([0, 0, 1, 1], [0, 0, 0, 0])
    )
    assert [row["image"] for row in found["fixed_images"]] == ["b.jpg"]
    assert [row["image"] for row in found["broken_images"]] == ["d.jpg"]


def test_the_difference_is_that_of_the_figures_and_lies_in_its_interval() -> None:
    before = detections(("stop",), {0: 0.9, 1: 0.8}, {2: 0.7})
    after = detections(("stop",), {0: 0.9, 1: 0.8, 2: 0.7, 3: 0.6})
    found = comparison.intervals(before, after)
    assert set(found) == {"mAP50", "mAP50_95"}
    assert found["mAP50"].difference == pytest.approx(1 - 0.5, abs=0.02)
    assert found["mAP50"].low <= found["mAP50"].difference <= found["mAP50"].high


def test_masks_have_intervals_of_their_own() -> None:
    one = detections(("stop",), {0: 0.9})
    one["tp_mask"] = ~one["tp"]
    assert set(comparison.intervals(one, one)) == {
        "mAP50",
        "mAP50_95",
        "mask_mAP50",
        "mask_mAP50_95",
    }


def test_classes_are_joined_by_name_whatever_their_ids_and_spelling() -> None:
    before = detections(("stop",), {0: 0.9, 1: 0.9})
    shifted = detections(("tram", "Stop "), {0: 0.9, 1: 0.9})
    shifted |= {"pred": shifted["pred"] + 1, "target": shifted["target"] + 1}
    assert comparison.intervals(before, shifted)["mAP50"].difference == 0
    a, b = report("m:a", {"stop": 0.5}), report("m:b", {"Stop ": 0.75, "tram": 1.0})
    rows = comparison.compare_reports(a, b)["classes"]
    assert [(row["name"], row["delta"].get("mAP50")) for row in rows] == [
        ("Stop ", 0.25),
        ("tram", None),
    ]


def test_figures_and_speed_stand_side_by_side() -> None:
    found = comparison.compare_reports(
        report("m:a", {"stop": 0.5}),
        report("m:b", {"stop": 0.25}, speed={"inference": 2.0}, imgsz=128),
    )
    assert found["figures"]["mAP50"] == {"a": 0.5, "b": 0.25, "delta": -0.25}
    assert found["speed"] == {"inference": {"a": 5.0, "b": 2.0, "delta": -3.0}}
    assert (found["a"]["model_id"], found["b"]["model_id"]) == ("m:a", "m:b")
    assert found["notes"] == [comparison.SPEEDS, "The image sizes differ: 64 and 128."]


def test_a_comparison_tells_that_images_were_decoded_differently() -> None:
    of_the_version_before = report("m:a", {"stop": 0.5})
    now = [report("m:b", {"stop": 0.5}, decode=way) for way in ("exact", "fast")]
    notes = [comparison.compare_reports(of_the_version_before, b)["notes"] for b in now]
    assert notes[0] == [comparison.SPEEDS]
    assert notes[1] == [comparison.SPEEDS, "VISIONLOOP_DECODE differs: exact and fast."]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"dataset": {"fingerprint": "g", "split": "val"}}, "different data"),
        ({"dataset": {"fingerprint": "f", "split": "test"}}, "different data"),
        ({"model": {"id": "m:b", "type": "pose"}}, "m:b a pose model"),
        ({"letterbox": "square"}, "padded to a rectangle for the first one and to a square"),
    ],
)
def test_what_is_not_alike_is_not_compared(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Conflict, match=sentence):
        comparison.compare_reports(report("m:a", {"s": 1}), report("m:b", {"s": 1}, **change))


def test_whole_folders_are_compared_by_a_child_process(tmp_path: Path) -> None:
    one = saved(tmp_path / "1", report("m:a", {"stop": 0.5}), detections(("stop",), {0: 0.9}))
    other = saved(tmp_path / "2", report("m:b", {"stop": 0.7}), detections(("stop",), {1: 0.9}))
    child = run_module("evaluation.comparison", [one, other, tmp_path / "found.json"], 60)
    assert child.returncode == 0, child.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["images"]["fixed_images"] == [{"image": "b.jpg", "a": 1, "b": 0}]
    assert found["intervals"]["mAP50"].keys() == {
        "difference",
        "low",
        "high",
        "level",
        "resamples",
    }
    moved = detections(("stop",), {0: 0.9}) | {"images": np.array(IMAGES[::-1])}
    with pytest.raises(Conflict, match="different images"):
        comparison.compare_evaluations(
            one, saved(tmp_path / "3", report("m:c", {"stop": 1}), moved)
        )


def test_a_comparison_needs_no_torch() -> None:
    child = run_module("tests.support.imported_without_torch", ["evaluation.comparison"], 60)
    assert (child.returncode, child.stdout.strip()) == (0, "[]"), child.stderr


def test_spellings_that_are_classes_of_their_own_stay_apart() -> None:
    """A reader of letters knows `A` and `a`; `Stop` and `stop` of two models are one class."""
    before = report("letters:1", {"A": 0.9, "a": 0.1, "Stop": 0.5})
    after = report("letters:2", {"a": 0.9, "A": 0.1, "stop": 0.6})
    rows = comparison.compare_reports(before, after)["classes"]
    assert {row["name"]: row["delta"]["mAP50"] for row in rows} == pytest.approx(
        {"a": 0.8, "A": -0.8, "stop": 0.1}
    )
    right = {0: 0.9, 1: 0.9, 2: 0.9, 3: 0.9}
    one, other = detections(("A", "a"), right), detections(("a", "A"), right)
    assert comparison.intervals(one, other)["mAP50"].difference == 0.0
    mixed = {"target": np.array([0, 0, 1, 1]), "pred": np.array([0, 0, 1, 1])}
    worse = mixed | {"pred": np.array([0, 0, 0, 0])}
    assert comparison.intervals(one | mixed, one | worse)["mAP50"].difference < 0
