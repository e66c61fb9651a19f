from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.samples import Sample

from serving.prometheus_patches import BucketsFirstCollector, observe_counts
from tests.support.serving import ROOT

VALUES = (0.05, 0.2, 0.2, 0.9, 1.0)
OBSERVE = f"""
from prometheus_client import Histogram
h = Histogram("x", "x", ["side"], buckets=(0.1, 0.5, 1.0), registry=None)
for side in "ab":
    for value in {VALUES}:
        h.labels(side).observe(value)
"""


def test_many_values_at_once_count_as_one_by_one() -> None:
    registry = CollectorRegistry()
    buckets = (0.1, 0.5, 1.0)
    one = Histogram("one", "x", buckets=buckets, registry=registry)
    many = Histogram("many", "x", buckets=buckets, registry=registry)
    for value in VALUES:
        one.observe(value)
    observe_counts(many, [1, 2, 2], sum(VALUES))
    for name in ("bucket", "count", "sum"):
        for bound in ("0.1", "0.5", "1.0", "+Inf") if name == "bucket" else (None,):
            labels = {"le": bound} if bound else {}
            assert registry.get_sample_value(f"many_{name}", labels) == registry.get_sample_value(
                f"one_{name}", labels
            )


def test_the_newest_process_says_whether_a_server_leads(tmp_path: Path) -> None:
    """A leader that died leaves its file; the process that follows it says what is true now."""
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    def process(does: str) -> None:
        code = f"from serving.telemetry import LEADER; {does}"
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)

    def leads() -> float:
        collector = BucketsFirstCollector(CollectorRegistry(), str(tmp_path))
        found = {metric.name: metric.samples for metric in collector.collect()}
        (sample,) = found["visionloop_leader"]
        return sample.value

    process("LEADER.set(True)")
    process("pass")  # a gateway, which has nothing to say
    assert leads() == 1.0
    process("LEADER.set(False)")
    assert leads() == 0.0


def test_buckets_come_before_count_and_sum(tmp_path: Path) -> None:
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", OBSERVE], cwd=ROOT, env=environment, check=True)

    def samples(collector: type[MultiProcessCollector]) -> list[Sample]:
        (metric,) = collector(CollectorRegistry(), str(tmp_path)).collect()
        return list(metric.samples)

    found = samples(BucketsFirstCollector)
    names = [sample.name.removeprefix("x_") for sample in found]
    assert names == 2 * [*4 * ["bucket"], "count", "sum"]
    assert [sample.labels["side"] for sample in found] == 6 * ["a"] + 6 * ["b"]
    assert sorted(found, key=str) == sorted(samples(MultiProcessCollector), key=str)
