"""Workarounds for prometheus_client 0.26.

This module is separate from `bentoml_patches`, because prometheus_client decides at import whether
it stores values in memory or in files: import it only after `PROMETHEUS_MULTIPROC_DIR` is set.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from prometheus_client import Histogram, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.samples import Sample


class BucketsFirstCollector(MultiProcessCollector):
    """Orders the samples of a histogram as OpenMetrics requires: buckets before count and sum.

    prometheus_client returns the sum first (related: prometheus/client_python#1147).
    """

    def collect(self) -> Iterable[Metric]:
        for metric in super().collect():
            if metric.type == "histogram":
                metric.samples.sort(key=_position)
            yield metric


def _position(sample: Sample) -> tuple[list[tuple[str, str]], bool, float, str]:
    others = sorted((k, v) for k, v in sample.labels.items() if k != "le")
    bound = float(sample.labels.get("le", "inf"))
    return others, not sample.name.endswith("_bucket"), bound, sample.name


def observe_counts(series: Histogram, counts: Sequence[int], total: float) -> None:
    """Observe many values at once.

    prometheus_client can only observe one value per call (prometheus/client_python#733, #911:
    declined).

    Args:
        series: A histogram with its labels set.
        counts: The number of values in each bucket, the lowest bucket first.
        total: The sum of the values.
    """
    inside: Any = series
    for bucket, count in zip(inside._buckets, counts, strict=False):  # the last is +Inf
        bucket.inc(count)
    inside._sum.inc(total)
