"""Workarounds for prometheus_client 0.26.

This module is separate from `bentoml_patches`, because prometheus_client decides at import whether
it stores values in memory or in files: import it only after `PROMETHEUS_MULTIPROC_DIR` is set.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import mmap
import os
import struct
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from prometheus_client import Histogram, Metric, values
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.samples import Sample
from prometheus_client.values import ValueClass

log = logging.getLogger("visionloop")

INITIAL_SIZE = 1 << 16  # bytes of a file of metrics; it is doubled when it is full
HEADER = 8  # bytes; the first four are the number of bytes in use


class ReservedDict(MmapedDict):
    """A file of metrics whose space on the disk is reserved before it is mapped.

    prometheus_client sets the size of the file only. The first write to a page for which the disk
    has no room then ends the process with SIGBUS. Here a value that the file has no room for stays
    in the memory of this process; /metrics, which reads the files, does not show it.

    Attributes:
        unstored: Value and timestamp of the keys that are not in the file.
    """

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        self.unstored: dict[str, tuple[float, float]] = {}
        self._reported = False
        if not read_mode:
            try:
                _reserve(filename, INITIAL_SIZE)
            except OSError as error:
                self._report(filename, error)
                self._use_memory()
                return
        super().__init__(filename, read_mode)

    def _use_memory(self) -> None:
        """Hold no file: every key is unstored."""
        self._f: Any = None
        self._m: Any = None
        self._positions: dict[str, int] = {}
        self._used = self._capacity = HEADER

    def _init_value(self, key: str) -> None:
        """Add a key. The caller holds the lock of all values."""
        text = key.encode()
        size = struct.calcsize(f"i{len(text) + 8}sdd")  # at most, with its padding
        if self._f is None:
            self.unstored[key] = (0.0, 0.0)
            return
        while self._used + size > self._capacity:
            try:
                _reserve(self._fname, 2 * self._capacity)
            except OSError as error:
                self._report(self._fname, error)
                self.unstored[key] = (0.0, 0.0)
                return
            self._capacity *= 2
            self._m = mmap.mmap(self._f.fileno(), self._capacity)
        super()._init_value(key)

    def read_value(self, key: str) -> tuple[float, float]:
        if key not in self._positions and key not in self.unstored:
            self._init_value(key)
        return self.unstored[key] if key in self.unstored else super().read_value(key)

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        if key not in self._positions and key not in self.unstored:
            self._init_value(key)
        if key in self.unstored:
            self.unstored[key] = (value, timestamp)
        else:
            super().write_value(key, value, timestamp)

    def close(self) -> None:
        if self._f is not None:
            super().close()

    def _report(self, filename: str, error: OSError) -> None:
        if not self._reported:
            self._reported = True
            log.error(
                "There is no room for the metrics of this process: %s: %s. New series are missing "
                "in /metrics until it is started again.",
                error.strerror,
                os.path.dirname(filename),
            )

    def remove(self, keys: Collection[str]) -> None:
        """Remove keys: a file without them takes the place of this one.

        Readers find the one or the other. If the disk has no room for two files, all keys stay. The
        caller holds the lock of all values.
        """
        for key in keys:
            self.unstored.pop(key, None)
        if self._f is None or not any(key in self._positions for key in keys):
            return
        path = f"{self._fname}.less"  # the collector reads *.db
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        less = ReservedDict(path)
        for key, value, timestamp in self.read_all_values():
            if key not in keys:
                less.write_value(key, value, timestamp)
        if less.unstored or less._f is None:
            less.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        os.replace(path, self._fname)
        self._m.close()
        self._f.close()
        self._f, self._m = less._f, less._m
        self._positions, self._used, self._capacity = less._positions, less._used, less._capacity


def remove_series(
    metrics: Iterable[MetricWrapperBase], label: str, values: Collection[str]
) -> None:
    """Remove the series of this process whose `label` has one of the values.

    prometheus_client 0.26 removes them from memory only, and not where the values are in files: the
    keys stay in the file, and in its list of all values, which it keeps for a fork.
    """
    for metric in metrics:
        inside: Any = metric
        place = inside._labelnames.index(label)
        with inside._lock:
            for labels in [one for one in inside._metrics if one[place] in values]:
                del inside._metrics[labels]
    if not ValueClass._multiprocess:
        return
    patched: Any = ValueClass
    inside = inspect.getclosurevars(patched.__init__).nonlocals
    with inside["lock"]:
        gone = [value for value in inside["values"] if _label(value, label) in values]
        inside["values"][:] = [
            value for value in inside["values"] if _label(value, label) not in values
        ]
        keys: dict[int, tuple[ReservedDict, set[str]]] = {}
        for value in gone:
            keys.setdefault(id(value._file), (value._file, set()))[1].add(value._key)
        for file, removed in keys.values():
            file.remove(removed)


def _label(value: Any, label: str) -> str | None:
    _, _, _, names, found, *_ = value._params
    return dict(zip(names, found, strict=True)).get(label)


def reserve_space() -> None:
    """Have all metrics that are created from now on use `ReservedDict`."""
    patched: Any = values
    patched.MmapedDict = ReservedDict


def _reserve(filename: str, size: int) -> None:
    """Make a file at least `size` bytes long, all of them on the disk.

    A new file appears with its full size, because `MultiProcessCollector` cannot read an empty one.

    Raises:
        OSError: There is no room; the file is as before.
    """
    new = not os.path.exists(filename)
    path = f"{filename}.new" if new else filename  # the collector reads *.db
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        before = os.fstat(descriptor).st_size
        try:
            if before < size and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, before, size - before)
            elif before < size:  # macOS
                _write_zeros(descriptor, before, size)
            if new:
                os.replace(path, filename)
        except OSError:
            os.ftruncate(descriptor, before)
            if new:
                os.unlink(path)
            raise
    finally:
        os.close(descriptor)


def _write_zeros(descriptor: int, start: int, end: int) -> None:
    while start < end:
        start += os.pwrite(descriptor, bytes(min(INITIAL_SIZE, end - start)), start)


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
