from __future__ import annotations

import time

from benchmarks.stress.traffic import DROPPED, OK, OTHER, REFUSED, Call, Span, coco, exported_box
from tests.support.correction_app import packed


def test_a_span_tells_failures_and_how_long_they_lasted() -> None:
    now = time.monotonic()
    outcomes = [OK, REFUSED, OK, OTHER, DROPPED, OK]
    span = Span([Call("/infer", now + i, now + i + 0.5, o, o) for i, o in enumerate(outcomes)])
    assert [span.count(outcome) for outcome in (OK, REFUSED, OTHER, DROPPED)] == [3, 1, 1, 1]
    assert span.outage() == 3
    assert span.slowest() == 0.5
    assert span.details() == {"/infer: other": 1, "/infer: dropped": 1}
    assert Span([]).outage() == Span([]).slowest() == 0


def test_the_box_of_an_export_is_found_again() -> None:
    assert exported_box(packed({"annotations.json": coco([1, 2, 20, 20])})) == [1, 2, 20, 20]
    assert exported_box(packed({"annotations.json": {}})) is None
