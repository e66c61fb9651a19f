"""The series of metrics that belong to one model: kept while it is used, and then removed.

Each version has more than a hundred of them, about 0.2 MiB in a gateway process. They are shown
until the version is deleted or has not been used for a day. That is the same in all gateway
processes, so that a sum over them does not fall; each removes its own some minutes later. A model
that is used again begins at zero, as after a start of the server, which `rate` and `increase` allow
for.
"""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from prometheus_client import Counter, Gauge, Histogram, Metric
from prometheus_client.mmap_dict import MmapedDict

from serving.prometheus_patches import remove_series

SHOWN = 24 * 3600.0  # seconds for which the series of an unused model are shown
HIDDEN = 300.0  # seconds after which series that are not shown are removed
MARK = 60.0  # seconds between two notes that a model is used
LABEL = "model"

LAST_USE = Gauge(
    "visionloop_model_last_use_timestamp_seconds",
    "When a model was last used for a request or as a shadow, to a minute",
    ["model"],
    multiprocess_mode="max",
)
[NAME] = (metric.name for metric in LAST_USE.describe())

_marked: dict[str, float] = {}  # by model with series in this process: its last use

M = TypeVar("M", Counter, Histogram)


def of_model(metric: M, model: str, *labels: str) -> M:
    """The series of a model that is being used; `labels` are those after `model`."""
    now = time.time()
    if now - _marked.get(model, 0.0) > MARK:
        _marked[model] = now
        LAST_USE.labels(model).set(now)
    return metric.labels(model, *labels)


def shown(metrics: Iterable[Metric], stored: Collection[str]) -> Iterator[Metric]:
    """The metrics without the samples of models that are not shown; `stored`: the models' ids."""
    found = list(metrics)
    past = time.time() - SHOWN
    used: set[str | None] = {
        sample.labels[LABEL]
        for metric in found
        if metric.name == NAME
        for sample in metric.samples
        if sample.value > past and sample.labels[LABEL] in stored
    }
    used.add(None)  # samples without such a label
    for metric in found:
        metric.samples = [one for one in metric.samples if one.labels.get(LABEL) in used]
        yield metric


def remove_unused(
    metrics: Iterable[Counter | Histogram], stored: Collection[str], now: float | None = None
) -> set[str]:
    """Remove the series of this process that are no longer shown; returns their models.

    Reads and writes files: call it in a thread.

    Args:
        metrics: Those with a label `model`.
        stored: The ids of the models in the registry.
        now: Seconds since 1970.
    """
    now = time.time() if now is None else now
    others = _last_use_of_all()
    gone = set()
    for model, marked in list(_marked.items()):
        kept = HIDDEN if model not in stored else SHOWN + HIDDEN
        if now - max(marked, others.get(model, 0.0)) > kept:
            gone.add(model)
    if gone:
        for model in gone:
            del _marked[model]
        remove_series([LAST_USE, *metrics], LABEL, gone)
    return gone


def _last_use_of_all() -> Mapping[str, float]:
    """When each model was last used, in any process of the server."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    found: dict[str, float] = {}
    for file in Path(folder).glob("gauge_max_*.db") if folder else ():
        # It is just being made, or was cut off.
        with suppress(OSError, RuntimeError, ValueError, struct.error):
            for key, value, *_ in MmapedDict.read_all_values_from_file(str(file)):
                _, name, labels, _ = json.loads(key)
                if name == NAME:
                    found[labels[LABEL]] = max(value, found.get(labels[LABEL], 0.0))
    return found
