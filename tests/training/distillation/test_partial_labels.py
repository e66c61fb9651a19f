"""Objects that one of two data sets has no labels for are not taken for background."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from dataset.dataset import Dataset
from dataset.inspection import check
from tests.support.shapes import write_shapes
from training.distillation.partial_labels import PartialLabelBCE
from training.planning.class_union import unite
from training.replay.merged_dataset import unite_data

NEW, OLD = "/x/new-000001.jpg", "/x/replayed-000001.jpg"


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def cross(target: float, said: float) -> float:
    return -target * math.log(said) - (1 - target) * math.log(1 - said)


def test_the_teacher_stands_in_where_a_data_set_has_no_labels() -> None:
    """Class 0 is labelled in both, 1 in new pictures, 2 in old ones, 3 in old ones and unknown."""
    said = torch.full((2, 1, 4), logit(0.4))
    labels = torch.tensor([[[1.0, 0, 0, 0]], [[0, 0, 1.0, 0]]])
    taught = torch.tensor([[[0.3, 0.9, 0.8]], [[0.3, 0.6, 0.1]]])
    targets = PartialLabelBCE(taught, known=[0, 1, 2], new=[2, 3], old=[1], files=[NEW, OLD])
    losses = targets(said, labels)
    scale = 2 / (2 + 0.8 + 0.6)  # the labels beside what the teacher adds to them
    expected = [
        [cross(1, 0.4), cross(0, 0.4), cross(0.8, 0.4), 0.0],
        [cross(0, 0.4), cross(0.6, 0.4), cross(1, 0.4), cross(0, 0.4)],
    ]
    for row, values in zip(losses[:, 0].tolist(), expected, strict=True):
        assert row == pytest.approx([scale * value for value in values], rel=1e-5)


def test_with_all_labels_it_is_the_plain_loss() -> None:
    said, labels = torch.randn(2, 3, 2), torch.rand(2, 3, 2)
    targets = PartialLabelBCE(torch.rand(2, 3, 1), known=[1], new=[], old=[], files=[NEW, OLD])
    plain = torch.nn.BCEWithLogitsLoss(reduction="none")
    assert torch.allclose(targets(said, labels), plain(said, labels), atol=1e-6)


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        (("circle", "square", "triangle"), ([], [])),
        (("Triangle", "circle", "square"), ([], [])),
        (("lamp", "Square", "circle"), ([3], [2])),
    ],
    ids=["the same", "in another order", "others"],
)
def test_names_decide_what_is_labelled(
    tmp_path: Path, theirs: tuple[str, ...], expected: tuple[list[int], list[int]]
) -> None:
    new, old = shapes(tmp_path / "new"), shapes(tmp_path / "old", theirs)
    union = unite(new.names, old.names, old.counts["train"])
    both = unite_data(union, new, old, old.scan().splits["train"])
    assert both.unlabelled_classes == expected
    assert new.unlabelled_classes == ([], [])


def shapes(folder: Path, names: tuple[str, ...] = ()) -> Dataset:
    path = write_shapes(folder, "detect", 6, 3, imgsz=48)
    text = path.read_text()
    for name, other in zip(("circle", "square", "triangle"), names, strict=False):
        text = text.replace(name, f"<{other}>")
    path.write_text(text.replace("<", "").replace(">", ""))
    return check(path, "detect", (folder,))
