"""The plot of a forgetting report: each class before and after."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from evaluation.gate import metric_name
from evaluation.plots import short_name

if TYPE_CHECKING:
    from training.incremental.forgetting import Forgetting

MOST = 40  # maximum number of classes: the old classes that regressed most, and new classes
BEFORE, AFTER, NEW = "#b4bcc6", "#1f5fa8", "#2e9e5b"


def write_plot(found: Forgetting, file: Path) -> None:
    """Draw the report as a PNG."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"font.size": 10}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # characters missing from the fonts
        draw(found).savefig(file, dpi=110)


def draw(found: Forgetting) -> Figure:
    """A bar chart: old classes with bars before and after, then new classes, then the means."""
    rows = list(found.classes)
    if left := len(rows) - MOST:
        if left > 0:
            rows.sort(key=lambda row: (row["kind"] == "old", row["after"] - (row["before"] or 0)))
            rows = rows[:MOST]
        rows.sort(key=lambda row: row["kind"] == "new")
    labels = [short_name(str(row["name"])) for row in rows]
    before = [row["before"] for row in rows]
    after = [row["after"] for row in rows]
    kinds = [row["kind"] for row in rows]
    for kind in ("old", "new"):
        if (mean := found.mean(kind, "after")) is not None:
            labels.append(f"mean of {kind} classes")
            before.append(found.mean(kind, "before"))
            after.append(mean)
            kinds.append(kind)
    places = np.arange(len(labels))
    figure = Figure(figsize=(8.5, max(3.0, 0.42 * len(labels) + 1.4)), layout="constrained")
    axes = figure.subplots()
    olds = [i for i, kind in enumerate(kinds) if kind == "old"]
    news = [i for i, kind in enumerate(kinds) if kind == "new"]
    if olds:
        earlier = [before[i] or 0.0 for i in olds]
        later = [after[i] for i in olds]
        axes.barh(places[olds] - 0.2, earlier, 0.38, color=BEFORE, label="old class, before")
        bars = axes.barh(places[olds] + 0.2, later, 0.38, color=AFTER, label="old class, after")
        axes.bar_label(bars, [f"{b - a:+.3f}" for a, b in zip(earlier, later, strict=True)],
                       padding=3, fontsize=8)  # fmt: skip
    if news:
        later = [after[i] for i in news]
        bars = axes.barh(places[news], later, 0.5, color=NEW, label="new class")
        axes.bar_label(bars, fmt="%.3f", padding=3, fontsize=8)
    axes.set_yticks(places, labels)
    axes.margins(y=0.02)
    axes.invert_yaxis()
    metric = metric_name(found.metric)
    axes.set(xlim=(0, 1.1), xlabel=metric, title="Metric of each class before and after training")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure
