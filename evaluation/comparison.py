"""Comparison of two evaluations on the same images.

`python -m evaluation.comparison FOLDER_A FOLDER_B FILE` compares two evaluation folders and writes
the result to FILE as JSON. The gateway runs it as a child process, because the bootstrap takes
seconds.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset.class_matching import paired
from errors import Conflict
from evaluation.bootstrap import Interval, Matches, map_intervals, share_intervals
from evaluation.letterbox import PADDED, letterbox_of
from evaluation.store import PREDICTIONS, report_in
from files import atomic_write
from shell import Parser

LISTED = 200  # maximum number of images in each of the lists of fixed and of broken images
NICE = 10  # added to the niceness of the child process
SERVED = ("confidence", "iou")
TIMES = ("preprocess", "inference", "postprocess")
COUNTS = ("class_id", "images", "instances")
SPEEDS = "The speeds were measured at different times; the load of the service may have differed."
KINDS = {"tp": "", "tp_mask": "mask_", "tp_pose": "pose_"}

Arrays = Mapping[str, NDArray[Any]]


def compare_reports(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of two reports and their differences, second minus first, without intervals.

    Classes are matched by name, as in an evaluation. `instances` of a class is the number of its
    objects in the split; of a classifier, of its images.

    Args:
        a: Report of the first model.
        b: Report of the second model.

    Raises:
        Conflict: The reports are of different data or splits, of different types of models, or
            measured with different letterboxes.
    """
    for key in ("fingerprint", "split"):
        if a["dataset"][key] != b["dataset"][key]:
            raise Conflict(
                f"{a['model']['id']} and {b['model']['id']} were evaluated on different data. "
                "Evaluate both on the same split of one dataset."
            )
    if a["model"]["type"] != b["model"]["type"]:
        raise Conflict(
            f"{a['model']['id']} is a {a['model']['type']} model, {b['model']['id']} a "
            f"{b['model']['type']} model: they cannot be compared. Choose two models of one type."
        )
    letterboxes = letterbox_of(a), letterbox_of(b)
    if letterboxes[0] != letterboxes[1]:
        raise Conflict(
            f"The evaluations of {a['model']['id']} and {b['model']['id']} cannot be compared: the "
            f"images were padded {PADDED[letterboxes[0]]} for the first one and "
            f"{PADDED[letterboxes[1]]} for the second one. Evaluate both again."
        )
    return {
        "a": _head(a),
        "b": _head(b),
        "dataset": dict(b["dataset"]),
        "figures": _beside(a["figures"], b["figures"]),
        "classes": _classes(a, b),
        "speed": _beside(a["speed"], b["speed"], TIMES),
        "notes": _notes(a, b),
    }


def compare_evaluations(folder_a: Path, folder_b: Path) -> dict[str, Any]:
    """The result of `compare_reports`, the changed images and the confidence intervals.

    Args:
        folder_a: Evaluation folder of the first model, with report.json and predictions.npz.
        folder_b: Evaluation folder of the second model.

    Raises:
        Conflict: As in `compare_reports`, or the evaluations list different images.
        OSError: A file cannot be read, for example because it was deleted.
    """
    a, b = report_in(folder_a), report_in(folder_b)
    compared = compare_reports(a, b)
    with (
        np.load(folder_a / PREDICTIONS, allow_pickle=False) as first,
        np.load(folder_b / PREDICTIONS, allow_pickle=False) as second,
    ):
        one, other = dict(first), dict(second)
    if one["images"].tolist() != other["images"].tolist():
        raise Conflict("The two evaluations list different images; evaluate both again.")
    began = time.perf_counter()
    compared["images"] = changed_images(one, other)
    found = intervals(one, other)
    compared["intervals"] = {name: interval.to_json() for name, interval in found.items()}
    compared["seconds"] = round(time.perf_counter() - began, 2)
    return compared


def changed_images(a: Arrays, b: Arrays) -> dict[str, Any]:
    """Images with fewer errors of the second model (fixed) or more (broken), largest change first.

    An error is a missed object, a false detection or a wrong class.
    """
    before, after = _mistakes(a), _mistakes(b)
    gain = before - after
    order = np.argsort(-np.abs(gain), kind="stable")

    def listed(which: NDArray[np.bool_]) -> list[dict[str, Any]]:
        some = [int(i) for i in order if which[i]][:LISTED]
        return [
            {"image": str(b["images"][i]), "a": int(before[i]), "b": int(after[i])} for i in some
        ]

    return {
        "total": len(gain),
        "fixed": int((gain > 0).sum()),
        "broken": int((gain < 0).sum()),
        "unchanged": int((gain == 0).sum()),
        "fixed_images": listed(gain > 0),
        "broken_images": listed(gain < 0),
    }


def intervals(a: Arrays, b: Arrays) -> dict[str, Interval]:
    """Intervals by metric name: accuracies of classifiers, mAP of other models."""
    images = len(b["images"])
    if "tp" not in b:
        shares = {"accuracy": (_mistakes(a) == 0, _mistakes(b) == 0)}
        return share_intervals(shares | {"accuracy_top5": (a["top5"], b["top5"])}, images)
    found: dict[str, Interval] = {}
    first, second = (arrays["class_names"].tolist() for arrays in (a, b))
    same = paired(first, second)
    ids = {name: i for i, name in enumerate(dict.fromkeys(first))}
    others = {name: ids.get(same.get(name, ""), len(ids) + i) for i, name in enumerate(second)}
    for key, prefix in KINDS.items():
        if key in a and key in b:
            both = map_intervals(_matches(a, key, ids), _matches(b, key, others), images)
            found |= {f"{prefix}{name}": interval for name, interval in both.items()}
    return found


def _mistakes(arrays: Arrays) -> NDArray[np.int64]:
    """(images,) number of errors in each image."""
    if "tp" in arrays:
        return np.asarray(arrays["false"] + arrays["missed"], np.int64)
    return (arrays["true"] != arrays["pred"]).astype(np.int64)


def _matches(arrays: Arrays, kind: str, names: Mapping[str, int]) -> Matches:
    """The `Matches` of one model.

    Args:
        arrays: Content of predictions.npz.
        kind: Key of the true positives in `arrays`: one of KINDS.
        names: Class name to an id that both models share.
    """
    ids = np.array([names[name] for name in arrays["class_names"].tolist()], np.int64)
    return Matches(
        image=arrays["image"],
        confidence=arrays["conf"],
        class_id=ids[arrays["pred"]],
        tp=arrays[kind],
        target_image=arrays["target_image"],
        target_class=ids[arrays["target"]],
    )


def _head(report: Mapping[str, Any]) -> dict[str, Any]:
    thresholds = {"thresholds": report["thresholds"], "imgsz": report["imgsz"]}
    thresholds |= {"letterbox": letterbox_of(report)}
    times = {"engine": report["engine"], "created_at": report["created_at"]}
    return {"model_id": report["model"]["id"]} | thresholds | times


def _beside(
    a: Mapping[str, Any], b: Mapping[str, Any], names: tuple[str, ...] | None = None
) -> dict[str, dict[str, float]]:
    shared = [name for name in names or a if _is_number(a.get(name)) and _is_number(b.get(name))]
    return {
        name: {"a": a[name], "b": b[name], "delta": round(b[name] - a[name], 6)} for name in shared
    }


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _classes(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each class, in the second report's order.

    The row of a class that only one report has contains that report's metrics only.
    """
    first = {entry["name"]: entry for entry in a["classes"]}
    second = {entry["name"]: entry for entry in b["classes"]}
    same = paired(list(first), list(second))
    pairs = [(first.get(same.get(name, ""), {}), entry) for name, entry in second.items()]
    only = first.keys() - same.values()
    pairs += [(entry, {}) for name, entry in first.items() if name in only]
    rows = []
    for one, other in pairs:
        known = other or one
        mine, theirs = _figures(one), _figures(other)
        rows.append(
            {
                "name": known["name"],
                "images": known.get("images"),
                "instances": known.get("instances", 0),
                "a": mine,
                "b": theirs,
                "delta": {k: round(theirs[k] - mine[k], 6) for k in mine.keys() & theirs.keys()},
            }
        )
    return rows


def _figures(entry: Mapping[str, Any]) -> dict[str, float]:
    return {k: v for k, v in entry.items() if k not in COUNTS and _is_number(v)}


def _notes(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Remarks on conditions that differ between the two evaluations."""
    notes = [SPEEDS]
    if a["engine"] != b["engine"]:
        notes.append(f"The engines differ: {a['engine']} and {b['engine']}.")
    ways = [report.get("decode", "exact") for report in (a, b)]  # without: an older version's
    if ways[0] != ways[1]:
        notes.append(f"VISIONLOOP_DECODE differs: {ways[0]} and {ways[1]}.")
    if a["imgsz"] != b["imgsz"]:
        notes.append(f"The image sizes differ: {a['imgsz']} and {b['imgsz']}.")
    served = [[report["thresholds"].get(key) for key in SERVED] for report in (a, b)]
    if served[0] != served[1]:
        notes.append(
            f"The serving thresholds (confidence, IoU) differ: {served[0]} and {served[1]}. "
            "Accuracy and the changed images depend on them."
        )
    return notes


def main() -> int:
    parser = Parser(prog="python -m evaluation.comparison", description=__doc__)
    parser.add_argument("a", type=Path)
    parser.add_argument("b", type=Path)
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    os.nice(NICE)  # the service has priority
    content = json.dumps(compare_evaluations(options.a, options.b), ensure_ascii=False)
    atomic_write(options.file, content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
