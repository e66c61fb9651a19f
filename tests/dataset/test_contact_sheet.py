"""The contact sheet marks what the report lists as refused."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.contact_sheet import REFUSED, draw
from dataset.dataset import Dataset
from dataset.inspection import inspect
from dataset.report import report
from tests.support.data_sets import Shapes, line

WRONG = {
    "class out of range": "7 .5 .5 .2 .2",
    "words": "circle .5 .5 .2 .2",
    "no area": "0 .5 .5 0 0",
    "outside": "0 5 5 .2 .2",
    "too few": "0 .5 .5",
    "angle": "0 .5 .5 .2 .2 45",
}


def marks(folder: Path, count: int = 24) -> int:
    """How many frames the sheet has."""
    sheet = np.asarray(Image.open(io.BytesIO(draw(looked(folder), "train", count))))
    edge = (sheet == REFUSED).all(axis=2)
    frame = 200 + 4  # a thumbnail and its frame
    runs = np.lib.stride_tricks.sliding_window_view(edge, frame, axis=1).all(axis=2)
    starts = runs & ~np.pad(runs, ((1, 0), (0, 0)))[:-1]
    return int(starts.sum()) // 2  # upper and lower edge


def looked(folder: Path) -> Dataset:
    return inspect(folder, "detect", [folder.resolve()])


@pytest.mark.parametrize("what", WRONG)
def test_an_image_with_a_refused_line_has_a_frame_and_stands_in_the_report(
    shapes: Shapes, what: str
) -> None:
    folder = shapes()
    assert marks(folder) == 0
    line(folder, WRONG[what], name="0003.txt")
    assert marks(folder) == 1
    said = report(looked(folder))
    number = len((folder / "labels/train/0003.txt").read_text().splitlines())
    assert said["refused_images"] == 1
    assert said["refused_lines"] == [{"image": "images/train/0003.jpg", "lines": [number]}]


def test_refused_ones_are_on_a_small_sheet_too(shapes: Shapes) -> None:
    folder = shapes("detect", 40, 3)
    for name in ("0017.txt", "0031.txt"):
        line(folder, WRONG["words"], name=name)
    assert marks(folder, 6) == 2
    assert marks(folder, 2) == 1


def test_what_is_only_changed_has_no_frame(shapes: Shapes) -> None:
    folder = shapes()
    line(folder, "0 .5 .5 .2 .2 .9")
    line(folder, "0 .98 .5 .1 .1")
    assert marks(folder) == 0
    assert report(looked(folder))["refused_images"] == 0
