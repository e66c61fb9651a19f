"""The series of a model's metrics end some time after it was deleted, or used the last time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.serving import ROOT

STORY = """
import inspect, json, sys, time
from pathlib import Path
import numpy as np
from collections import Counter
from prometheus_client import values
from serving import prometheus_patches
prometheus_patches.reserve_space()
from inference.agreement import Agreement
from monitoring.prediction_counts import PredictionCounts
from serving import telemetry
from serving.gateways import model_series
from serving.operations import counters

now = time.time

def use(model):
    telemetry.record(model, {"preprocess": 1.0, "inference": 2.0, "postprocess": 0.5})
    counts = PredictionCounts(np.ones(3, np.int64), 3, 0, np.ones(20, np.int64))
    telemetry.record_live(model, ["a", "b", "c"], counts)
    telemetry.of_model(telemetry.SHADOW_SEEN, model).inc()
    seen = Counter(a=1)
    telemetry.record_shadow(model, Agreement(seen, seen, seen), True, 1.0, 1.0)

def sizes():
    files = values.ValueClass._multiprocess
    kept = inspect.getclosurevars(values.ValueClass.__init__).nonlocals["values"] if files else []
    counters.read_counters()
    return {
        "children": sum(len(metric._metrics) for metric in telemetry.OF_MODELS),
        "values": len(kept),
        "keys": len(counters._places),
        "marked": len(model_series._marked),
    }

def shown(stored):
    text = telemetry.exposition("", (), stored)[0].decode()
    lines = [line for line in text.splitlines() if "model=" in line]
    return {line.split('model="')[1].split('"')[0]: 1 for line in lines}

def images():
    return dict(counters.read_counters().images)
"""


def story(folder: Path | None, code: str) -> Any:
    """What a process with metrics prints, as JSON; `folder`: where it stores them."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("PROMETHEUS_MULTIPROC_DIR", None)
    if folder is not None:
        environment["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    command = [sys.executable, "-W", "error", "-c", STORY + code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


VERSIONS = """
use("signs:0")
first = sizes()
for version in range(1, 21):
    use(f"signs:{version}")
    deleted = f"signs:{version - 1}"
    later = now() + 2 * version * model_series.HIDDEN
    model_series._marked[f"signs:{version}"] = later  # used until then
    assert model_series.remove_unused(telemetry.OF_MODELS, {f"signs:{version}"}, later) == {deleted}
telemetry.record("signs:20", {})
print(json.dumps([first, sizes(), shown({"signs:20"}), images()]))
"""


@pytest.mark.parametrize("files", [True, False])
def test_twenty_versions_leave_the_series_of_one(tmp_path: Path, files: bool) -> None:
    first, last, shown, images = story(tmp_path if files else None, VERSIONS)
    assert first["children"] > 10
    assert last == first
    assert list(shown) == ["signs:20"]
    assert images == {"signs:20": 2}  # it goes on counting


SHOWN = """
day, hidden = model_series.SHOWN, model_series.HIDDEN
for model in ("served:1", "deleted:1", "old:1"):
    use(model)
model_series.LAST_USE.labels("old:1").set(now() - day - 60)
stored = {"served:1", "old:1"}
before = list(shown(stored))
soon = model_series.remove_unused(telemetry.OF_MODELS, stored, now() + hidden - 60)
later = model_series.remove_unused(telemetry.OF_MODELS, stored, now() + hidden + 60)
model_series._marked.pop("served:1")  # so that its use is noted
use("served:1")
last = model_series.remove_unused(telemetry.OF_MODELS, {"served:1"}, now() + day)
print(json.dumps([before, list(soon), list(later), list(last)]))
"""


def test_a_series_is_hidden_first_and_removed_later(tmp_path: Path) -> None:
    before, soon, later, last = story(tmp_path, SHOWN)
    assert before == ["served:1"]  # neither the deleted nor the unused model
    assert (soon, later) == ([], ["deleted:1"])
    assert last == ["old:1"]


OTHER = """
use("signs:1")
print(json.dumps(images()))
"""
UNUSED_HERE = """
use("signs:1")
model_series._marked["signs:1"] = now() - 2 * model_series.SHOWN
gone = model_series.remove_unused(telemetry.OF_MODELS, {"signs:1"})
print(json.dumps([list(gone), list(shown({"signs:1"})), images()]))
"""


def test_what_another_process_uses_is_not_removed_from_the_sum(tmp_path: Path) -> None:
    """Otherwise the sum over the processes fell, which `rate` takes for a restart."""
    assert story(tmp_path, OTHER) == {"signs:1": 1}
    assert story(tmp_path, UNUSED_HERE) == [[], ["signs:1"], {"signs:1": 2}]


FULL = """
use("signs:1"); use("signs:2")
from serving.prometheus_patches import ReservedDict
reserve = prometheus_patches._reserve
def full(path, size):
    raise OSError(28, "No space left on device")
prometheus_patches._reserve = full
gone = model_series.remove_unused(telemetry.OF_MODELS, {"signs:2"}, now() + model_series.HIDDEN + 1)
prometheus_patches._reserve = reserve
telemetry.record("signs:2", {})
print(json.dumps([sorted(gone), images()["signs:2"]]))
"""


def test_on_a_full_disk_the_file_stays_as_it_is(tmp_path: Path) -> None:
    gone, images = story(tmp_path, FULL)
    assert "signs:1" in gone
    assert images == 2
    assert not list(tmp_path.glob("*.less"))


def test_every_metric_with_a_label_of_models_is_among_them() -> None:
    from prometheus_client import Counter, Histogram

    from serving import telemetry

    metrics = [m for m in vars(telemetry).values() if isinstance(m, Counter | Histogram)]
    assert {m for m in metrics if "model" in m._labelnames} == set(telemetry.OF_MODELS)
