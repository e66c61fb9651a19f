"""What a detector's old model says in the loss: for which pictures, where, and how much."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.seeds import derived
from training.distillation.losses import BoxDistillation
from training.distillation.teacher import Outputs
from training.incremental.losses import DetectionRetentionLoss, Strength
from training.replay.merged_dataset import NEW, REPLAYED

SIDE, STRIDE = 16, 8  # a picture of two by two anchors


def outputs(bins: int, masks: bool = False, seed: int = 0) -> dict[str, Any]:
    """Of a head with two old classes, for two pictures: sure of class 1 on the first anchor."""
    made = torch.Generator().manual_seed(derived(seed))
    scores = torch.full((2, 2, 4), -4.0)
    scores[:, 1, 0] = 3.0
    boxes = torch.randn(2, 4 * bins, 4, generator=made).abs() / 2
    found: dict[str, Any] = {"scores": scores, "boxes": boxes, "feats": [torch.zeros(2, 3, 2, 2)]}
    if masks:
        found["mask_coefficient"] = torch.randn(2, 3, 4, generator=made)
        found["proto"] = torch.randn(2, 3, 4, 4, generator=made)
    return found


class OldModel:
    def __init__(self, bins: int, masks: bool = False) -> None:
        self.outputs = Outputs.of_head(outputs(bins, masks))

    def __call__(self, images: Tensor) -> Outputs:
        return self.outputs


class TaskLoss:
    """Stands for Ultralytics' criterion; the caller gives it its `bce`."""

    def __init__(self) -> None:
        self.bce: Any = None

    def __call__(self, preds: Any, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        return torch.tensor([1.0, 2.0]), {"box_loss": torch.tensor(1.0)}


def batch(*files: str, label: tuple[int, list[float]] | None = None) -> dict[str, Any]:
    where, box = label or (0, [])
    return {
        "img": torch.zeros(2, 3, SIDE, SIDE),
        "im_file": list(files),
        "bboxes": torch.tensor([box]) if label else torch.zeros(0, 4),
        "batch_idx": torch.tensor([float(where)]) if label else torch.zeros(0),
    }


def memory(
    bins: int = 4, masks: bool = False, unlabelled: tuple[int, ...] = (), **strength: float
) -> Any:
    old: Any = OldModel(bins, masks)
    how = Strength(**strength)  # type: ignore[arg-type]
    return DetectionRetentionLoss(TaskLoss(), old, [STRIDE], how, unlabelled=unlabelled)


def test_the_old_model_answers_for_new_pictures_only() -> None:
    found = memory()
    found(outputs(4), batch(f"{NEW}1.jpg", f"{REPLAYED}1.jpg"))
    targets = found.task_loss.bce
    assert targets.taught[0, 0, 1].item() == pytest.approx(1 / (1 + 2.718281828**-3))
    assert not targets.taught[1].any()  # an old picture has labels of its old objects
    assert targets.replayed.tolist() == [False, True]


def test_the_old_model_answers_for_classes_that_old_data_do_not_label() -> None:
    """Of three steps, the data of the first label nothing of what the second has taught."""
    found, said = memory(unlabelled=(1,)), outputs(4, seed=1)
    found.teacher.outputs.scores[:, 0] = 3.0  # the old model is sure of both classes
    _, items = found(said, batch(f"{NEW}1.jpg", f"{REPLAYED}1.jpg"))
    taught = found.task_loss.bce.taught
    assert taught[0].all()
    assert taught[1, :, 1].all()
    assert not taught[1, :, 0].any()
    assert items["old_box"] > memory()(said, batch(f"{NEW}1.jpg", f"{REPLAYED}1.jpg"))[1]["old_box"]


def test_a_label_in_old_data_comes_before_the_old_model() -> None:
    found = memory(bins=1, unlabelled=(1,))
    found.teacher.outputs.boxes[1, 0] = 0.5
    old = batch(f"{NEW}1.jpg", f"{REPLAYED}1.jpg", label=(1, [0.25, 0.25, 0.5, 0.5]))
    found(outputs(1), old)
    assert not found.task_loss.bce.taught[1, 0].any()
    assert found.task_loss.bce.taught[1, 1:, 1].all()


def test_where_a_label_is_the_old_model_is_not_asked() -> None:
    found = memory(bins=1)
    found.teacher.outputs.boxes[0, 0] = 0.5  # half a stride to each side: the first cell
    new = batch(f"{NEW}1.jpg", f"{NEW}2.jpg", label=(0, [0.25, 0.25, 0.5, 0.5]))
    found(outputs(1), new)
    assert not found.task_loss.bce.taught[0, 0].any()
    assert found.task_loss.bce.taught[1, 0].any()  # the label is of the other picture


def test_boxes_follow_the_old_ones_where_it_is_sure() -> None:
    found, said = memory(box=2.0), outputs(4, seed=1)
    loss, items = found(said, batch(f"{NEW}1.jpg", f"{NEW}2.jpg"))
    sure = torch.zeros(2, 4)
    sure[:, 0] = torch.tensor(3.0).sigmoid()
    taught, new = found.teacher.outputs.boxes, Outputs.of_head(said).boxes
    assert new is not None
    expected = 2.0 * BoxDistillation(1.0)(new, taught, sure, sure.sum())
    assert expected > 0
    assert items["old_box"].item() == pytest.approx(expected.item())
    assert loss.tolist() == pytest.approx([1.0, 2.0, 2 * expected.item()])  # times the pictures
    assert items["box_loss"] == 1.0


def test_a_head_without_bins_follows_the_distances() -> None:
    found, said = memory(bins=1), outputs(1)
    assert found(said, batch(f"{NEW}1.jpg", f"{NEW}2.jpg"))[1]["old_box"] == 0
    said["boxes"][:, 0, 0] += 0.8  # one of four sides of the anchor that it is sure of
    said["boxes"][:, :, 3] += 9.0  # it is not sure of this one
    _, items = found(said, batch(f"{NEW}1.jpg", f"{NEW}2.jpg"))
    sure = 2 * torch.tensor(3.0).sigmoid().item()
    assert items["old_box"].item() == pytest.approx(0.2 * sure / max(1.0, sure))


def test_masks_are_held_too() -> None:
    found = memory(masks=True)
    pictures = batch(f"{NEW}1.jpg", f"{NEW}2.jpg")
    assert found(outputs(4, masks=True), pictures)[1]["old_mask"].item() == pytest.approx(
        0, abs=1e-6
    )
    assert found(outputs(4, masks=True, seed=1), pictures)[1]["old_mask"] > 0.01
    assert "old_mask" not in memory()(outputs(4), pictures)[1]


def test_another_criterion_is_no_silent_forgetting() -> None:
    old: Any = OldModel(4)
    with pytest.raises(TypeError, match="has no `bce`"):
        DetectionRetentionLoss(object(), old, [STRIDE], Strength())
