from __future__ import annotations

from benchmarks.audit import report


def test_what_is_known_and_what_nobody_answered_for() -> None:
    found, unchecked = report(
        [
            {"name": "good", "version": "1.0", "vulns": []},
            {"name": "bad", "version": "1.1", "vulns": [{"id": "X-1", "fix_versions": ["1.2"]}]},
            {"name": "worse", "version": "2", "vulns": [{"id": "X-2", "fix_versions": []}]},
            {"name": "away", "skip_reason": "Not found on PyPI: away (3)"},
        ]
    )
    assert found == ["bad 1.1: X-1; mended in 1.2", "worse 2: X-2; mended in no version yet"]
    assert unchecked == ["Not found on PyPI: 1 packages", "away"]
