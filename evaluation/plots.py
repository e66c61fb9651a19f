"""The plots of an evaluation's report, as PNG files."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from evaluation.gate import metric_name

MOST_LINES = 12  # maximum number of classes whose curves have a colour and a label
MOST_CELLS = 20  # maximum number of classes with numbers in the cells of the confusion matrix
MOST_BARS = 40  # maximum number of classes in the bar chart
LONGEST = 24  # maximum number of characters of a class name
FONTS = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei")
BLUE, GREY = "#1f5fa8", "#b4bcc6"

Report = Mapping[str, Any]


def write_plots(report: Report, folder: Path) -> list[str]:
    """Draw the plots of a report into `folder`; returns their names without `.png`."""
    kinds: dict[str, Callable[[Report], Figure]] = {"confusion": confusion}
    if "reliability" in report["curves"]:
        kinds |= {"reliability": reliability, "classes": class_bars}
    else:
        for kind in report["curves"]:
            prefix = "" if kind == "box" else f"{kind}_"
            kinds[f"{prefix}precision_recall"] = _of_kind(precision_recall, kind)
            kinds[f"{prefix}f1_confidence"] = _of_kind(f1_confidence, kind)
        kinds["classes"] = class_bars
    known = set(font_manager.get_font_names())
    style: Any = {"font.family": [name for name in FONTS if name in known], "font.size": 10}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # characters missing from every font
        for name, make in kinds.items():
            make(report).savefig(folder / f"{name}.png", dpi=110)
    return list(kinds)


def confusion(report: Report) -> Figure:
    """The confusion matrix: rows are true classes and sum to 100 %, columns are predicted ones.

    With more than MOST_CELLS classes, only those that occur are shown.
    """
    labels, matrix = _busiest(report["confusion"])
    count = len(labels)
    side = float(np.clip(0.42 * count + 3, 5, 16))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the row")
    small = max(4.0, min(9.0, 260 / max(count, 1)))
    axes.set_xticks(range(count), labels, rotation=90 if count > 4 else 0, fontsize=small)
    axes.set_yticks(range(count), labels, fontsize=small)
    if count <= MOST_CELLS:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            ink = "white" if share[row, column] > 0.55 else "black"
            text = str(int(matrix[row, column]))
            axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=small)
    confidence = report["confusion"]["confidence"]
    at = f" at confidence {confidence:g}" if confidence is not None else ""
    axes.set(xlabel="predicted", ylabel="truth", title=f"Confusion matrix{at}")
    return figure


def precision_recall(report: Report, kind: str) -> Figure:
    """Precision over recall at IoU 0.5. The area under a curve is its average precision."""
    curves = report["curves"][kind]
    name = "mAP50" if kind == "box" else f"{kind}_mAP50"
    figure, axes = _frame(f"Precision and recall ({kind})", "recall", "precision")
    best = {row["name"]: row[name] for row in report["classes"] if row[name] is not None}
    _class_lines(axes, curves, "precision_at_recall", best)
    if curves["mean"]["precision_at_recall"]:
        label = f"all classes {report['figures'][name]:.3f} {name}"
        axes.plot(curves["x"], curves["mean"]["precision_at_recall"], BLUE, lw=3, label=label)
    return _with_legend(figure, axes)


def f1_confidence(report: Report, kind: str) -> Figure:
    """F1 over confidence, with the point of the reported F1 and the serving threshold."""
    curves = report["curves"][kind]
    figure, axes = _frame(f"F1 and confidence ({kind})", "confidence", "F1")
    _class_lines(axes, curves, "f1_score", {})
    if mean := curves["mean"]["f1_score"]:
        axes.plot(curves["x"], mean, BLUE, lw=3, label="all classes")
        best = report["at_best_f1" if kind == "box" else f"{kind}_at_best_f1"]
        at, f1 = best["confidence"], best["f1_score"]
        axes.plot(at, f1, "o", color=BLUE, label=f"F1 {f1:.3f} at confidence {at:.3f}")
    serving = report["thresholds"]["confidence"]
    axes.axvline(serving, color="black", ls="--", lw=1, label=f"serving threshold {serving:g}")
    return _with_legend(figure, axes)


def class_bars(report: Report) -> Figure:
    """Bars of the main metrics of each class, the weakest class at the top."""
    detection = "reliability" not in report["curves"]
    first = "mAP50_95" if detection else "f1_score"
    rows = [row for row in report["classes"] if row["instances"]]
    rows = sorted(rows, key=lambda row: row[first])[:MOST_BARS]
    figure = Figure(figsize=(8, max(2.5, 0.42 * len(rows) + 1.6)), layout="constrained")
    axes = figure.subplots()
    names = ("mAP50_95", "mAP50", "recall") if detection else ("f1_score", "precision", "recall")
    places = np.arange(len(rows))
    for i, (name, colour) in enumerate(zip(names, (BLUE, "#6fa8dc", GREY), strict=True)):
        values = [row[name] for row in rows]
        axes.barh(places + (i - 1) * 0.27, values, 0.25, color=colour, label=metric_name(name))
    labels = [f"{short_name(row['name'])} ({row['instances']})" for row in rows]
    axes.set_yticks(places, labels)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    more = f", the {MOST_BARS} weakest classes" if len(report["classes"]) > MOST_BARS else ""
    axes.set(xlim=(0, 1), title=f"Metrics per class (number of objects in brackets){more}")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def reliability(report: Report) -> Figure:
    """Reliability diagram: accuracy in each confidence bin, and the number of images in it."""
    found = report["curves"]["reliability"]
    edges = np.array(found["edges"])
    centres, width = (edges[:-1] + edges[1:]) / 2, edges[1] - edges[0]
    figure = Figure(figsize=(7, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    shares = [share if share is not None else 0.0 for share in found["accuracy"]]
    upper.bar(centres, shares, width * 0.92, color=BLUE)
    upper.plot((0, 1), (0, 1), color="black", ls="--", lw=1, label="perfectly calibrated")
    upper.set(ylim=(0, 1), ylabel="accuracy", title="Reliability")
    upper.legend(loc="upper left")
    lower.bar(centres, found["images"], width * 0.92, color=GREY)
    lower.set(xlim=(0, 1), xlabel="confidence of the best class", ylabel="images")
    return figure


def _of_kind(make: Callable[[Report, str], Figure], kind: str) -> Callable[[Report], Figure]:
    return lambda report: make(report, kind)


def _frame(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8.5, 5.2), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=x, ylabel=y, title=title)
    axes.grid(alpha=0.3)
    return figure, axes


def _class_lines(axes: Axes, curves: Mapping[str, Any], name: str, best: dict[str, float]) -> None:
    """Plot one line per class; with up to MOST_LINES classes, each has a label."""
    few = len(curves["classes"]) <= MOST_LINES
    for class_name, lines in curves["classes"].items():
        figure = f" {best[class_name]:.3f}" if class_name in best else ""
        label = f"{short_name(class_name)}{figure}" if few else None
        colour: dict[str, Any] = {} if few else {"color": GREY, "alpha": 0.6}
        axes.plot(curves["x"], lines[name], lw=1.2, label=label, **colour)


def _with_legend(figure: Figure, axes: Axes) -> Figure:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=9)
    return figure


def _busiest(found: Mapping[str, Any]) -> tuple[list[str], NDArray[np.float64]]:
    """Labels and counts of the classes that occur, and of the background.

    With up to MOST_CELLS classes all are kept.
    """
    labels, matrix = list(found["labels"]), np.array(found["matrix"], np.float64)
    background = len(matrix) - 1 if found["confidence"] is not None else -1
    busy = (matrix.sum(0) + matrix.sum(1)) > 0
    if len(labels) <= MOST_CELLS:
        busy[:] = True
    if background >= 0:
        busy[background] = True
    kept = np.flatnonzero(busy)
    return [short_name(labels[i]) for i in kept], matrix[np.ix_(kept, kept)]


def short_name(name: str) -> str:
    """A class name of at most LONGEST characters; the end of a longer one is left out."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
