"""What is read from a teacher, and which teachers fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from errors import ValidationFailed
from models_store.description import Task
from models_store.weights import build_model, describe_mobilenet, load_model
from tests.support.small_models import small_description, write_model
from training.distillation.teacher import (
    Captured,
    Outputs,
    Teacher,
    check_fit,
    has_same_bins,
    relative_boxes,
)
from training.planning.class_union import shared_classes
from training.start_weights import Start


def teacher_for(tmp_path: Path, task: Task) -> Teacher:
    write_model(tmp_path / task, small_description(task), seed=1)
    model, description = load_model(tmp_path / task)
    how = description.preprocessing
    return Teacher(Start(description.architecture, model, description.names, how), task)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (("a", "b"), ("a", "b"), ([0, 1], [0, 1])),
        (("a", "b"), ("b", "x", "a"), ([0, 1], [2, 0])),
        (("Stop ", "new"), (" sTOP",), ([0], [0])),
        (("A", "a"), ("A", "a"), ([0, 1], [0, 1])),
        (("Stop", "STOP", "new"), ("stop", "new"), ([2], [1])),  # which of both?
    ],
)
def test_names_join_the_classes(
    ours: tuple[str, ...], theirs: tuple[str, ...], expected: tuple[list[int], list[int]]
) -> None:
    assert shared_classes(ours, theirs) == expected


def test_a_teacher_that_knows_none_of_the_classes_is_told() -> None:
    with pytest.raises(ValidationFailed, match=r"it has 'cat', 'dog', .* dataset has 'stop'"):
        shared_classes(("stop",), ("cat", "dog", "cow", "hen"))


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_outputs_are_those_that_the_network_decodes(tmp_path: Path, task: Task) -> None:
    teacher = teacher_for(tmp_path, task)
    images = torch.rand(2, 3, 64, 64)
    found = teacher(images)
    answer = teacher.model(images)[0]
    decoded = (answer[0] if task == "segment" else answer).transpose(1, 2)
    assert torch.allclose(found.scores.sigmoid(), decoded[..., 4:7], atol=1e-6)
    boxes = relative_boxes(found, [8, 16], (64, 64)) * 64
    centre, size = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    assert torch.allclose(torch.cat([centre, size], -1), decoded[..., :4], atol=1e-3)
    assert [f.shape[2:] for f in found.features] == [(8, 8), (4, 4)]
    if task == "segment":
        assert found.masks is not None
        assert torch.allclose(found.masks[0], decoded[..., 7:], atol=1e-5)
        assert found.masks[1].shape[:2] == (2, 32)


def test_places_in_large_pictures_are_exact_in_half_precision() -> None:
    """Above 128, bfloat16 knows no halves: anchors would be off by half a cell."""
    cells, stride = 200, 8
    features = (torch.zeros(1, 1, 1, cells, dtype=torch.bfloat16),)
    distances = torch.ones(1, cells, 4, 1, dtype=torch.bfloat16)
    outputs = Outputs(torch.zeros(1, cells, 1), features, distances)
    boxes = relative_boxes(outputs, [stride], (stride, cells * stride))
    centres = (boxes[0, :, 0] + boxes[0, :, 2]) / 2 * cells
    assert torch.allclose(centres, torch.arange(cells) + 0.5, atol=1e-3)


def test_of_two_branches_the_served_one_is_taken() -> None:
    one: dict[str, Any] = {"boxes": torch.rand(1, 4, 6), "scores": torch.rand(1, 2, 6), "feats": []}
    raw = {"one2many": one, "one2one": {}}
    assert Outputs.of_head(raw).scores.equal(one["scores"].transpose(1, 2))
    boxes = Outputs.of_head((None, raw)).boxes
    assert boxes is not None
    assert boxes.shape == (1, 6, 4, 1)


def test_a_classifiers_features_are_what_its_head_gets(tmp_path: Path) -> None:
    teacher = teacher_for(tmp_path, "classify")
    images = torch.rand(2, 3, 64, 64)
    found = teacher(images)
    assert torch.allclose(found.scores.softmax(1), teacher.model(images)[0], atol=1e-6)
    assert len(found.features) == 1
    head = teacher.model.model[-1]
    assert torch.allclose(head(found.features[0].clone())[1], found.scores, atol=1e-5)
    assert not head._forward_pre_hooks


def test_a_mobilenet_teaches_pictures_in_its_own_normalisation() -> None:
    description = describe_mobilenet(3, 64, names=("a", "b", "c"), width=0.25)
    model = build_model(description)
    teacher = Teacher(
        Start(description.architecture, model, description.names, description.preprocessing),
        "classify",
    )
    images = torch.rand(2, 3, 64, 64)
    how = description.preprocessing
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (how.mean, how.std))
    found = teacher(images)
    assert torch.allclose(found.scores, model((images - mean) / std), atol=1e-5)
    assert found.features[0].shape == (2, 1280, 2, 2)


def test_a_teacher_never_learns(tmp_path: Path) -> None:
    teacher = teacher_for(tmp_path, "detect")
    assert not teacher.model.training
    found = teacher(torch.rand(1, 3, 64, 64, requires_grad=True))
    assert not found.scores.requires_grad
    assert not any(p.requires_grad for p in teacher.model.parameters())
    with pytest.raises(ValidationFailed, match="has no weights"):
        Teacher(Start({}), "detect")


def test_heads_must_look_at_the_same_places(tmp_path: Path) -> None:
    teacher = teacher_for(tmp_path, "detect")
    student = build_model(small_description("detect"))
    check_fit(student, teacher)
    assert has_same_bins(student, teacher)
    teacher.model.model[-1].stride = torch.tensor([8.0, 16.0, 32.0])
    with pytest.raises(
        ValidationFailed, match=r"strides \[8, 16, 32\], the student's head \[8, 16\]"
    ):
        check_fit(student, teacher)
    teacher.model.model[-1].reg_max = 1
    assert not has_same_bins(student, teacher)


def test_a_capture_lasts_for_one_run() -> None:
    layer, captured = torch.nn.Identity(), Captured()
    captured.next_input(layer)
    captured.next_input(layer)  # a run that never came, as after an error
    layer(torch.ones(1))
    layer(torch.zeros(1))
    assert captured.features[0].item() == 1
    assert not layer._forward_pre_hooks
