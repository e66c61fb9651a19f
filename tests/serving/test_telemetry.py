"""Our series keep Prometheus' rules of naming, which `promtool check metrics` asks for.

https://prometheus.io/docs/practices/naming
"""

from __future__ import annotations

import re

import httpx
import pytest
from prometheus_client import Counter, Histogram, Metric
from prometheus_client.parser import text_string_to_metric_families as parse

from serving import telemetry
from tests.support.patience import PATIENCE
from tests.support.serving import Server

OURS = "visionloop_"
KINDS = ("counter", "gauge", "histogram", "summary")  # not to be said in a name
OTHER_UNITS = (
    "milliseconds", "microseconds", "minutes", "hours", "days", "ms",
    "kilobytes", "megabytes", "bits", "percent",
)  # fmt: skip
RESERVED = ("_count", "_sum", "_bucket", "_info", "_created")


def faults(name: str, kind: str, text: str, labels: set[str]) -> list[str]:
    """What promtool, and the guide behind it, would say."""
    bare = name.removesuffix("_total")
    words = bare.split("_")
    found = []
    if not re.fullmatch(r"visionloop(_[a-z0-9]+)+", name):
        found.append("not snake case with our prefix")
    if (kind == "counter") != name.endswith("_total"):
        found.append("'_total' is for counters, and for all of them")
    if bare.endswith(RESERVED) and name != "visionloop_build_info":  # Prometheus' own convention
        found.append("ends like a part of a histogram")
    found += [f"says its type: {word}" for word in words if word in KINDS]
    found += [f"not a base unit: {word}" for word in words if word in OTHER_UNITS]
    if not text.strip():
        found.append("no help")
    found += [f"label {n!r}" for n in labels if not re.fullmatch(r"[a-z][a-z_]*", n)]
    return found


def ours(families: list[Metric]) -> list[tuple[str, str, str, set[str]]]:
    rows = []
    for family in families:
        if family.name.startswith(OURS):
            labels = {name for sample in family.samples for name in sample.labels}
            total = "_total" if family.type == "counter" else ""
            rows.append((family.name + total, family.type, family.documentation, labels))
    return rows


@pytest.mark.parametrize(
    ("name", "kind", "text", "labels"),
    [
        ("visionloop_jobs_total", "gauge", "x", set()),
        ("visionloop_jobs", "counter", "x", set()),
        ("visionloop_wait_milliseconds", "histogram", "x", set()),
        ("visionloop_size_histogram", "histogram", "x", set()),
        ("visionloop_waiting_count", "gauge", "x", set()),
        ("visionloop_fooBar", "gauge", "x", set()),
        ("visionloop_jobs", "gauge", "", set()),
        ("visionloop_jobs", "gauge", "x", {"jobKind"}),
    ],
)
def test_a_bad_name_is_found(name: str, kind: str, text: str, labels: set[str]) -> None:
    assert faults(name, kind, text, labels)


def test_every_series_of_a_process_is_well_named() -> None:
    metrics = [m for m in vars(telemetry).values() if isinstance(m, Counter | Histogram)]
    assert len(metrics) > 10
    described = ours([family for metric in metrics for family in metric.describe()])
    for metric, (name, kind, text, _) in zip(metrics, described, strict=True):
        assert faults(name, kind, text, set(metric._labelnames)) == [], name
        if kind == "histogram":
            assert name.endswith(("_seconds", "_ratio", "_size")), name


def test_every_series_of_a_server_is_well_named(server: Server) -> None:
    headers = {"Accept": "text/plain;version=0.0.4"}
    text = httpx.get(f"{server.url}/metrics", headers=headers, timeout=PATIENCE).text
    found = ours(list(parse(text)))
    assert len(found) > 8
    assert [(row[0], faults(*row)) for row in found if faults(*row)] == []
    assert "Multiprocess metric" not in text
