"""A network with a larger head says about old classes what it said before, to the logit."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from errors import ValidationFailed
from models_store.description import Task
from models_store.weights import build_model, describe, load_model
from tests.support.small_models import NAMES, make_model, small_description
from training.incremental.head_expansion import expand, imprint
from training.planning.class_union import ClassUnion
from training.start_weights import Start

MANY = (*NAMES, *(f"thing {i}" for i in range(60)))  # Ultralytics would make it 63 wide, not 32


def started(task: Task, tmp_path: Any) -> Start:
    description = make_model(tmp_path, task, onnx=False)
    model, _ = load_model(tmp_path)
    return Start(description.architecture, model, description.names)


def logits(model: Any, task: Task, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Class logits, and everything else that the network says."""
    with torch.inference_mode():
        output = model.eval()(images)[1]
    if task == "classify":
        return output, []
    rest = [output[key] for key in ("boxes", "mask_coefficient", "kpts") if key in output]
    return output["scores"].transpose(1, 2), rest


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """But for the order of a sum: kernels choose it by the number of outputs."""
    return bool(torch.allclose(one, other, rtol=0, atol=1e-5))


@pytest.mark.parametrize("names", [(*NAMES, "lamp"), MANY], ids=["one", "sixty"])
@pytest.mark.parametrize("task", ["detect", "segment", "pose", "classify"])
def test_old_logits_are_unchanged(task: Task, names: tuple[str, ...], tmp_path: Any) -> None:
    start = started(task, tmp_path)
    grown = expand(start, ClassUnion(names, len(NAMES)))
    images = torch.rand(2, 3, 64, 64)
    before, rest_before = logits(start.model, task, images)
    after, rest_after = logits(grown.model, task, images)
    assert after.shape[-1] == len(names)
    assert same(after[..., : len(NAMES)], before)
    assert all(map(same, rest_after, rest_before))
    if task != "classify":
        assert after[..., len(NAMES) :].sigmoid().mean() < 0.3  # nothing new is seen yet

    assert grown.model is not None
    description = describe(grown.model, 64)  # what is published after training
    assert description.names == names
    rebuilt = build_model(description)
    rebuilt.load_state_dict(grown.model.state_dict())
    assert same(logits(rebuilt, task, images)[0], after)


def trained_from(start: Start, task: Task, names: tuple[str, ...]) -> Any:
    """The network that a trainer starts with, of a data set with these classes."""
    from training.yolo.job_trainers import TRAINERS

    run: Any = SimpleNamespace(recipe=SimpleNamespace(task=task), start=start)
    run.job = SimpleNamespace(log=lambda _: None)
    trainer = TRAINERS[task].__new__(TRAINERS[task])
    trainer.run = run
    trainer.resume = False
    trainer.args = SimpleNamespace(task=task, pretrained=True, dropout=0.0)
    points = start.architecture.get("kpt_shape")
    trainer.data = {"names": dict(enumerate(names)), "nc": len(names), "channels": 3}
    trainer.data |= {"kpt_shape": points, "flip_idx": []}
    return trainer.get_model()


@pytest.mark.parametrize("task", ["detect", "segment", "pose", "classify"])
def test_the_trainer_starts_from_the_very_same_network(task: Task, tmp_path: Any) -> None:
    start = started(task, tmp_path)
    grown = expand(start, ClassUnion(MANY, len(NAMES)))
    model = trained_from(grown, task, MANY)
    images = torch.rand(2, 3, 64, 64)
    before, rest_before = logits(start.model, task, images)
    after, rest_after = logits(model, task, images)
    assert same(after[..., : len(NAMES)], before)
    assert all(map(same, rest_after, rest_before))


@pytest.mark.parametrize("task", ["detect", "segment", "pose", "classify"])
def test_rows_follow_their_names_however_alike(task: Task, tmp_path: Any) -> None:
    """Ultralytics takes `A` for `a`, and knows no `trafficlight` by `traffic light`."""
    start = started(task, tmp_path)
    assert start.model is not None
    spelled = ("A", "a", "traffic light")
    start.model.names = dict(enumerate(spelled))  # type: ignore[assignment]
    known = Start(start.architecture, start.model, spelled)
    model = trained_from(known, task, ("trafficlight", "new", "a", "A"))
    images = torch.rand(2, 3, 64, 64)
    before, _ = logits(start.model, task, images)
    after, _ = logits(model, task, images)
    assert same(after[..., [3, 2, 0]], before)


def test_both_heads_of_an_end_to_end_model_grow() -> None:
    from training.planning.base_models import architecture_yaml

    yaml = architecture_yaml("yolo26n-seg") | {"nc": 2, "scale": "n"}
    from models_store.weights import describe_yolo

    description = describe_yolo(yaml, imgsz=64, names=("a", "b"))
    model: Any = build_model(description)
    grown: Any = expand(
        Start(description.architecture, model, ("a", "b")), ClassUnion(("a", "b", "c"), 2)
    ).model
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        before, after = model(images)[1], grown(images)[1]
    for branch in ("one2many", "one2one"):
        assert after[branch]["scores"].shape[1] == 3
        assert same(after[branch]["scores"][:, :2], before[branch]["scores"])


def test_a_detector_starts_with_the_prior_of_rare_objects(tmp_path: Any) -> None:
    grown: Any = expand(started("detect", tmp_path), ClassUnion((*NAMES, "lamp"), 3)).model
    for branch, stride in zip(grown.model[-1].cv3, (8, 16), strict=True):
        assert branch[-1].bias[3].item() == pytest.approx(math.log(5 / 4 / (640 / stride) ** 2))


def test_rows_of_new_classes_point_to_their_pictures() -> None:
    linear = torch.nn.Linear(2, 4)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 5.0], [0.0, 0.0], [0.0, 0.0]]))
    means = torch.tensor([[0.0, 0.0], [0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    imprint(linear, means, torch.tensor([False, False, True, True]), first=2)
    expected = 4 / math.sqrt(2)  # as long as the old rows on average
    assert linear.weight[2].tolist() == pytest.approx([expected, -expected])
    assert linear.weight[:2].tolist() == [[3.0, 0.0], [0.0, 5.0]]
    middle = torch.tensor([1.5, 0.5])  # between the mean of all and the class
    assert linear(middle)[2].item() == pytest.approx(0.0, abs=1e-5)
    assert linear(torch.tensor([2.0, 0.0]))[2] > 0 > linear(torch.tensor([0.0, 2.0]))[2]


def test_a_network_without_weights_cannot_grow() -> None:
    with pytest.raises(ValidationFailed, match="without weights"):
        expand(Start(small_description("detect").architecture), ClassUnion(("a",), 0))
