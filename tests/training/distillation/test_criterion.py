"""What the teacher adds to a student's loss, against sums by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from training.distillation.criterion import ClassifierCriterion, DetectionCriterion, Tuning
from training.distillation.teacher import Outputs
from training.planning.options import DistillationOptions
from training.replay.merged_dataset import REPLAYED

SURE, EVEN = math.log(3), 0.0  # logits of 0.75 and 0.5
APART = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)  # KL of (0.75, 0.25) from (0.5, 0.5)
QUIET = {"temperature": 1.0, "reg_weight": 0.0, "feat_weight": 0.0, "mask_weight": 0.0}
OLD, NEW = f"/view/{REPLAYED}a.jpg", "/view/new-a.jpg"


class Teacher:
    """Says the same of every picture; its head has two bins."""

    def __init__(self, outputs: Outputs) -> None:
        self.outputs = outputs
        self.model = SimpleNamespace(model=[SimpleNamespace(reg_max=2)])

    def __call__(self, images: Tensor) -> Outputs:
        return self.outputs


def context(teacher: Outputs, tuning: Tuning | None = None, **options: Any) -> Any:
    return SimpleNamespace(
        tuning=tuning or Tuning(),
        options=DistillationOptions.model_validate(QUIET | options),
        classes=([0, 1], [0, 1]),
        teacher=Teacher(teacher),
        features=None,
        unlabelled=([], []),
        log=print,
    )


def task_loss(preds: Any, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    return torch.tensor(1.0), {}


def of_pictures(files: tuple[str, ...] = (NEW,), **given: Any) -> tuple[ClassifierCriterion, float]:
    """A classifier that is undecided about pictures that the teacher is sure of; its loss."""
    count = len(files)
    made = context(Outputs(torch.tensor([[SURE, EVEN]] * count)), **given)
    criterion = ClassifierCriterion(made, None, task_loss)
    batch = {"img": torch.zeros(count, 3, 8, 8), "cls": torch.zeros(count), "im_file": files}
    loss, shown = criterion(torch.zeros(count, 2), batch)
    assert float(loss) == pytest.approx(1 + sum(float(v) for v in shown.values()))
    return criterion, float(loss) - 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, 0.5 * APART),
        ({"cls_weight": 3.0}, 1.5 * APART),
        ({"tuning": Tuning(picture=2.0)}, 2 * APART),
        ({"cls_weight": 0.0}, 0.0),
    ],
)
def test_a_classifier_pays_for_what_it_says_otherwise(
    given: dict[str, Any], expected: float
) -> None:
    assert of_pictures(**given)[1] == pytest.approx(expected, abs=1e-6)


def test_old_pictures_count_as_often_as_asked() -> None:
    given = {"old_data": "/old", "replay_distill_boost": 3.0}
    assert of_pictures((NEW, OLD), **given)[1] == pytest.approx(APART, abs=1e-6)
    assert of_pictures((NEW, NEW), **given)[1] == pytest.approx(0.5 * APART, abs=1e-6)


@pytest.mark.parametrize(("last", "strengths"), [(1.0, (1, 1, 1)), (0.2, (1, 0.6, 0.2))])
def test_the_strength_falls_along_a_cosine_to_what_is_left(
    last: float, strengths: tuple[float, ...]
) -> None:
    criterion, full = of_pictures(tuning=Tuning(last=last))
    batch = {"img": torch.zeros(1, 3, 8, 8), "cls": torch.zeros(1), "im_file": (NEW,)}
    for progress, strength in zip((0.0, 0.5, 1.0), strengths, strict=True):
        criterion.progress = progress
        loss, _ = criterion(torch.zeros(1, 2), batch)
        assert float(loss) - 1 == pytest.approx(strength * full, abs=1e-6)


@pytest.fixture
def dense(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, float]]:
    """The terms of a detector with one anchor, of one picture, as they are shown."""

    def terms(sides: float = 0.0, **given: Any) -> dict[str, float]:
        bins = torch.tensor([sides, 0.0]).expand(1, 1, 4, 2)
        even = torch.zeros(1, 1, 4, 2)
        made = context(Outputs(torch.tensor([[[SURE, -40.0]]]), boxes=even), **given)
        student: Any = SimpleNamespace(
            model=[SimpleNamespace(reg_max=2, stride=torch.tensor([8.0]))]
        )
        said = Outputs(torch.tensor([[[EVEN, -40.0]]]), boxes=bins)
        monkeypatch.setattr(Outputs, "of_head", lambda raw: said)
        criterion = DetectionCriterion(made, student, lambda *_: (torch.ones(3), {}))
        loss, shown = criterion(None, {"img": torch.zeros(1, 3, 8, 8), "im_file": (NEW,)})
        assert loss.shape == (4,)
        assert float(loss[-1]) == pytest.approx(sum(float(v) for v in shown.values()))
        return {name: float(value) for name, value in shown.items()}

    return terms


def test_a_detector_pays_by_the_teachers_confidence(dense: Callable[..., dict[str, float]]) -> None:
    assert dense() == pytest.approx({"distill_cls": 0.5 * 0.75 * APART})
    assert dense(cls_weight=4.0) == pytest.approx({"distill_cls": 2 * 0.75 * APART})
    assert dense(tuning=Tuning(cls=1.0)) == pytest.approx({"distill_cls": 0.75 * APART})


def test_a_detector_pays_for_sides_that_lie_elsewhere(
    dense: Callable[..., dict[str, float]],
) -> None:
    there = dense(reg_weight=2.0)["distill_box"]
    beside, far = (dense(sides, reg_weight=2.0)["distill_box"] for sides in (1.0, 3.0))
    assert there == pytest.approx(0, abs=1e-6)
    assert 0 < beside < far
    assert dense(1.0, reg_weight=6.0)["distill_box"] == pytest.approx(3 * beside)
