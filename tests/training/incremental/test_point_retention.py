"""Key points of old poses that new images do not label are held by the old model."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from models_store.registry import Registry
from tests.support.trainer_job import RecordingJob, narrow_network, run
from tests.training.incremental.test_dense_memory import (
    STRIDE,
    OldModel,
    TaskLoss,
    batch,
    outputs,
)
from tests.training.modes.test_incremental import planned, shapes
from training.distillation.teacher import Outputs
from training.incremental.losses import DetectionRetentionLoss, PointRetentionLoss, Strength
from training.replay.merged_dataset import NEW, REPLAYED

ONE = torch.ones(())


def loss(values: int = 2, unit: float = 2.0) -> PointRetentionLoss:
    return PointRetentionLoss((2, values), torch.tensor([0.5, 0.5]), unit)


def test_points_that_have_not_moved_cost_nothing() -> None:
    points = torch.randn(2, 3, 6)
    weight = torch.ones(2, 3)
    value = loss(3)(points, points.clone(), torch.ones(2, 3), weight, ONE)
    assert value.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("unit", "area"), [(2.0, 4.0), (1.0, 4.0), (2.0, 100.0)])
def test_the_cost_grows_with_the_distance_relative_to_the_object(unit: float, area: float) -> None:
    old = torch.zeros(1, 1, 4)
    new = torch.tensor([[[0.3, 0.4, 0.0, 0.0]]])  # the first of two points moved by half a unit
    value = loss(2, unit)(new, old, torch.full((1, 1), area), torch.ones(1, 1), ONE)
    expected = (1 - math.exp(-((unit * 0.5) ** 2) / (2 * area))) / 2
    assert value.item() == pytest.approx(expected, rel=1e-4)


def test_a_point_that_the_old_model_does_not_see_may_move_but_stays_unseen() -> None:
    old = torch.tensor([[[0.0, 0.0, -20.0, 0.0, 0.0, -20.0]]])
    moved = old.clone()
    moved[..., 0] = 5.0
    area, weight = torch.ones(1, 1), torch.ones(1, 1)
    assert loss(3)(moved, old, area, weight, ONE).item() == pytest.approx(0, abs=1e-6)
    seen = old.clone()
    seen[..., 2] = 4.0
    assert loss(3)(seen, old, area, weight, ONE).item() > 1


def pose(moved: float = 0.0) -> dict[str, Any]:
    found = outputs(4)
    points = torch.zeros(2, 6, 4)
    points[:, 2::3] = 4.0
    points[:, 0, 0] += moved  # of the anchor where the old model is sure
    points[:, :2, 3] += moved  # where it sees nothing
    return found | {"kpts": points}


def test_points_are_held_in_new_images_where_the_old_model_sees_an_object() -> None:
    old: Any = OldModel(4)
    old.outputs = Outputs.of_head(pose())
    found = DetectionRetentionLoss(TaskLoss(), old, [STRIDE], Strength(), loss(3))
    costs = {}
    for name, file, moved in (("new", NEW, 0.5), ("same", NEW, 0.0), ("old", REPLAYED, 0.5)):
        files = batch(f"{file}1.jpg", f"{file}2.jpg")
        _, items = found(pose(moved), files)
        costs[name] = items["old_points"].item()
    assert costs["new"] > 0.01
    assert costs["same"] == costs["old"] == pytest.approx(0, abs=1e-6)
    off = DetectionRetentionLoss(TaskLoss(), old, [STRIDE], Strength(points=0), loss(3))
    assert "old_points" not in off(pose(0.5), batch(f"{NEW}1.jpg", f"{NEW}2.jpg"))[1]


def test_a_pose_training_has_the_loss(registry: Registry, job: RecordingJob) -> None:
    base = narrow_network(registry, "pose", ("arrow",))
    data = shapes("pose", 2, names={0: "dart"})
    run(planned(registry, "pose", base, data=data), job)
    assert any("old_points" in metrics for metrics in job.metrics), job.metrics[-1]
