"""A rate that several gateway processes limit together."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from api.middleware import shared_window
from api.middleware.shared_window import SharedWindow


class Clock:
    """Stands for the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_processes_count_together_and_each_client_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(shared_window, "time", clock)
    one, other = (SharedWindow(tmp_path, 3, 2) for _ in range(2))
    assert [window.hit("a") for window in (one, other, one)] == [0, 0, 0]
    clock.now += 0.5
    assert one.hit("a") == pytest.approx(1.5)
    assert other.hit("a") == pytest.approx(1.5)  # what is refused does not count
    assert other.hit("b") == 0
    clock.now += 1.5
    assert [other.hit("a") for _ in range(4)] == [0, 0, 0, 2]


def test_a_file_that_cannot_be_used_is_told_and_limits_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    window = SharedWindow(tmp_path / "gone", 1, 1)
    with caplog.at_level(logging.ERROR):
        assert [window.hit("a") for _ in range(3)] == [0, 0, 0]
    assert "is not limited" in caplog.text
