"""Shows the results of runs as a Markdown table and as a bar chart."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path


def mean_and_spread(values: Sequence[float], scale: float = 100.0, digits: int = 1) -> str:
    """The mean and, for two or more values, the standard deviation, such as `91.2 ± 0.4`.

    Examples:
        >>> mean_and_spread([0.5])
        '50.0'
    """
    if not values:
        return "–"
    text = f"{scale * statistics.mean(values):.{digits}f}"
    if len(values) > 1:
        text += f" ± {scale * statistics.stdev(values):.{digits}f}"
    return text


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def write_bars(
    file: Path,
    title: str,
    groups: Mapping[str, Mapping[str, Sequence[float]]],
    unit: str,
    scale: float = 100.0,
) -> None:
    """Write a bar chart of the means over the seeds; error bars show the standard deviation.

    Args:
        file: The image file to write.
        title: The title of the chart.
        groups: Group (an arm) → series (a metric) → one value for each seed.
        unit: The label of the value axis.
        scale: Factor of all values.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    series = list(dict.fromkeys(name for group in groups.values() for name in group))
    figure, axes = pyplot.subplots(figsize=(1.5 + 1.3 * len(groups), 4.2), layout="constrained")
    width = 0.8 / max(1, len(series))
    for index, name in enumerate(series):
        places = [x + (index - (len(series) - 1) / 2) * width for x in range(len(groups))]
        values = [group.get(name, ()) for group in groups.values()]
        means = [scale * statistics.mean(some) if some else 0.0 for some in values]
        errors = [scale * statistics.stdev(some) if len(some) > 1 else 0.0 for some in values]
        bars = axes.bar(places, means, width * 0.94, yerr=errors, capsize=3, label=name)
        axes.bar_label(bars, fmt="%.1f", fontsize=8, padding=2)
    axes.set_xticks(range(len(groups)), list(groups))
    axes.set_ylabel(unit)
    axes.set_title(title)
    axes.margins(y=0.12)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
