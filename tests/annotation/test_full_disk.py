"""Uploads and corrections on a disk that fills up at any point of the write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from annotation.history import newest
from tests.support.correction_app import (
    FRAMES,
    Files,
    coco,
    correct,
    drawn,
    labels,
    packed,
    state,
    street,
)
from tests.support.full_disk import fill, small_disk
from tests.support.training_app import Service

STEP = 8 * 1024  # bytes more that are free in each try


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The home of `service`, on a disk of its own, without a reserve."""
    monkeypatch.setenv("VISIONLOOP_DISK_RESERVE", "0")
    with small_disk(tmp_path / "home", 16) as disk:
        yield disk


def until_it_fits(
    disk: Path, request: Callable[[], httpx.Response], unchanged: Callable[[], Any]
) -> int:
    """Repeat a request with ever more room until it succeeds. Returns how often it failed."""
    before = unchanged()
    for tries in range(200):
        filler = fill(disk, leave=tries * STEP)
        try:
            answer = request()
        finally:
            filler.unlink()
        if answer.status_code == 201:
            return tries
        assert answer.status_code == 507, answer.text
        assert answer.json()["code"] == "INSUFFICIENT_STORAGE"
        assert unchanged() == before
    raise AssertionError("It never fitted.")


def files(disk: Path) -> list[str]:
    """Everything in the home but the database and locks."""
    found = (path.relative_to(disk) for path in disk.rglob("*"))
    kept = (str(p) for p in found if not p.name.startswith("visionloop.db") and p.suffix != ".lock")
    return sorted(path for path in kept if path not in ("uploads", "datasets", "jobs"))


def test_an_upload_is_there_as_a_whole_or_not_at_all(disk: Path, service: Service) -> None:
    sent = {"file": ("set.zip", packed(street(FRAMES)))}

    def post() -> httpx.Response:
        answer: httpx.Response = service.call(service.app, "POST", "/api/datasets", files=sent)
        return answer

    assert until_it_fits(disk, post, lambda: files(disk)) > 1
    (card,) = service.gateway.datasets.list()
    assert card["splits"]["train"]["usable"] == 2


def test_a_correction_is_there_as_a_whole_or_not_at_all(
    disk: Path, service: Service, frames: str
) -> None:
    changed = coco({"frame_1.png": ["dog"], "frame_2.png": ["dog", "car"], "new.png": ["car"]})
    sent: Files = {"annotations.json": changed, "new.png": drawn(77)}

    def visible() -> Any:
        datasets = service.gateway.datasets
        return (
            newest(datasets, frames),
            labels(service, frames),
            datasets.get(frames),
            state(service, frames)[2],
            [p for p in files(disk) if "revisions/" in p],
        )

    def post() -> httpx.Response:
        return correct(service, frames, sent, confirm="true")

    assert until_it_fits(disk, post, visible) > 1
    assert newest(service.gateway.datasets, frames) == 1
    assert labels(service, frames) == {
        "frame_1.png": ["dog"],
        "frame_2.png": ["car", "dog"],
        "frame_3.png": ["dog"],
        "new.png": ["car"],
    }
