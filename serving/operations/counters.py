"""The counters of all processes of the server, summed; read from the files of their metrics.

`/metrics` needs every series with its labels and help. Here a few sums are needed, every ten
seconds, so that the files are read directly, and each key is parsed once.
"""

from __future__ import annotations

import json
import os
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from prometheus_client import REGISTRY
from prometheus_client.mmap_dict import MmapedDict

from serving.telemetry import PREDICTING, SECONDS

EDGES = (*map(float, SECONDS), float("inf"))  # upper edges of the buckets of latencies
BUCKETS = {edge: bucket for bucket, edge in enumerate(EDGES)}


class Place(NamedTuple):
    """Where a sample counts.

    Attributes:
        name: A field of `Counters`.
        part: A key or an index in it.
        predicting: Whether it is of a route that predicts.
    """

    name: str
    part: str = ""
    predicting: bool = False


SUMS = {
    "visionloop_batch_size_bucket": Place("batches"),
    "visionloop_batch_size_sum": Place("batched"),
}
"""Samples that are added whatever their labels."""

_places: dict[str, tuple[Place | None]] = {}  # where the keys of the last reading count


@dataclass
class Counters:
    """Sums since the server's start.

    Attributes:
        images: Images predicted, by model; without the models that are not in use any more.
        requests, predicting: Requests; those of routes that predict.
        latency: Requests of routes that predict, by bucket of `EDGES`; not cumulative.
        batches, batched: Batches, and the images in them.
        errors: Error responses by code.
        statuses: Responses by class of status, such as `4xx`.
    """

    images: Counter[str] = field(default_factory=Counter)
    requests: float = 0.0
    predicting: float = 0.0
    latency: list[float] = field(default_factory=lambda: [0.0] * len(EDGES))
    batches: float = 0.0
    batched: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)

    def add(self, place: Place, value: float) -> None:
        """Add a sample to the sum at its place."""
        name, part, predicting = place
        if name == "requests":
            self.requests += value
            self.statuses[part] += value  # type: ignore[assignment]
            self.predicting += value * predicting
        elif name == "latency":
            self.latency[int(part)] += value
        elif name in ("errors", "images"):
            getattr(self, name)[part] += value
        else:
            setattr(self, name, getattr(self, name) + value)


def place_of(sample: str, labels: Mapping[str, str]) -> Place | None:
    """Where a sample counts; None: nowhere."""
    if sample == "visionloop_requests_total":
        return Place("requests", f"{labels['status'][:1]}xx", labels["route"] in PREDICTING)
    if sample == "visionloop_request_seconds_bucket" and labels["route"] in PREDICTING:
        bucket = BUCKETS.get(float(labels["le"]))
        return None if bucket is None else Place("latency", str(bucket))
    if sample == "visionloop_images_total":
        return Place("images", labels["model"])
    if sample == "visionloop_errors_total":
        return Place("errors", labels["code"])
    return SUMS.get(sample)


def read_counters() -> Counters:
    """The counters of all processes of the server. Reads files: call it in a thread."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    found = Counters()
    for place, value in _of_files(Path(folder)) if folder else _of_this_process():
        if place is not None and value:
            found.add(place, value)
    return found


def _of_files(folder: Path) -> Iterator[tuple[Place | None, float]]:
    places: dict[str, tuple[Place | None]] = {}
    for file in [*folder.glob("counter_*.db"), *folder.glob("histogram_*.db")]:
        # It is just being made, or was cut off.
        with suppress(OSError, RuntimeError, ValueError, struct.error):
            values: Iterable[tuple[str, float, float, int]]
            values = MmapedDict.read_all_values_from_file(str(file))
            for key, value, *_ in values:
                places[key] = _places.get(key) or (_place_of_key(key),)
                yield places[key][0], value
    _places.clear()  # keys that were removed are forgotten
    _places.update(places)


def _place_of_key(key: str) -> Place | None:
    _, name, labels, _ = json.loads(key)
    return place_of(name, labels)


def _of_this_process() -> Iterator[tuple[Place | None, float]]:
    """Without files; here the buckets are cumulative."""
    for metric in REGISTRY.collect():
        below: dict[tuple[tuple[str, str], ...], float] = {}
        for sample in metric.samples:
            value = sample.value
            if sample.name.endswith("_bucket"):
                others = tuple(pair for pair in sample.labels.items() if pair[0] != "le")
                value, below[others] = value - below.get(others, 0.0), value
            yield place_of(sample.name, sample.labels), value
