"""What a job says of its data set, and what it refuses once the pictures were looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataset import image_scan
from errors import DatasetInvalid
from settings import get_settings
from tests.support.data_sets import Shapes, checked, line
from tests.support.shapes import write_shapes
from tests.support.trainer_job import RecordingJob
from training import prepare
from training.prepare import scan_images


def test_problems_stand_in_the_log_briefly(
    shapes: Shapes, job: RecordingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shapes()
    line(folder, "circle .5 .5 .1 .1")
    (folder / "images/train/0001.jpg").write_bytes(b"x")
    monkeypatch.setattr(prepare, "MAX_PROBLEMS", 1)
    scan_images(checked(folder), job)
    left_out, problem, more = job.lines
    assert left_out.startswith("Ignored: images/train/0001.jpg: ")
    assert problem.startswith("Dataset: ")
    assert "1 more kinds of problems" in more
    assert len(problem) < 320


def test_progress_of_a_scan_is_logged_and_it_can_be_cancelled(
    shapes: Shapes, job: RecordingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "LOG_INTERVAL", 0.0)
    monkeypatch.setattr(image_scan, "_AT_A_TIME", 4)
    monkeypatch.setattr(image_scan, "KEEP", 0.0)
    folder = shapes()
    scan_images(checked(folder), job)
    assert job.lines == [f"Scanned {done} of 9 images." for done in (4, 8, 9)]

    other = shapes("detect", 8, 4)
    job.lines.clear()
    job.stop_when = lambda job: KeyboardInterrupt() if job.lines else None
    with pytest.raises(KeyboardInterrupt):
        scan_images(checked(other), job)
    kept = list((get_settings().home / "cache" / "pictures").glob("*.json"))
    assert kept, "scan results are not lost"


@pytest.mark.parametrize("task", ["detect", "classify"])
def test_a_split_without_a_readable_image_is_refused(
    tmp_path: Path, job: RecordingJob, task: str
) -> None:
    write_shapes(tmp_path / "data", task, 6, 3, 48)  # type: ignore[arg-type]
    for path in tmp_path.rglob("*.jpg"):
        if "val" in path.parts:
            path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DatasetInvalid, match="No image of val can be read"):
        scan_images(checked(tmp_path / "data", task), job)  # type: ignore[arg-type]


def test_a_class_without_readable_images_is_refused(tmp_path: Path, job: RecordingJob) -> None:
    write_shapes(tmp_path / "data", "classify", 9, 3, 48)
    for path in (tmp_path / "data" / "train" / "circle").iterdir():
        path.write_bytes(b"damaged")
    with pytest.raises(DatasetInvalid, match="readable image to train on: circle"):
        scan_images(checked(tmp_path / "data", "classify"), job)
