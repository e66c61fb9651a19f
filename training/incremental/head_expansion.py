"""Expands the head of a network by new classes; the outputs of old classes do not change.

Only the layer that computes the class scores is widened. Its old rows are copied; hidden layers
keep their width (which Ultralytics would derive from the number of classes). New rows start with
low scores: in a detector at the prior of rare objects (Lin et al. 2017, section 4.1), in a
classifier imprinted from the mean features of their images (Qi et al. 2018).
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from errors import ValidationFailed
from training.planning.class_union import ClassUnion
from training.start_weights import CLASS_BRANCHES, Start

RARE = 5 / 640**2  # Ultralytics' prior: objects of all classes per pixel of an image


def expand(start: Start, union: ClassUnion) -> Start:
    """The start weights with a head for all classes of the union.

    Logits of the old classes, boxes, masks and key points are unchanged for every input.

    Raises:
        ValidationFailed: The weights are missing, or the type of head cannot be expanded.
    """
    if start.model is None:
        raise ValidationFailed(
            "base_model_path is a network without weights. Give a trained model."
        )
    model: Any = copy.deepcopy(start.model)
    count = len(union.names)
    wider = replace(start, model=model, names=union.names)
    if hasattr(model, "classifier"):  # MobileNet
        model.classifier[-1] = _wider_linear(model.classifier[-1], count)
        return wider
    head = model.model[-1]
    if hasattr(head, "linear"):
        head.linear = _wider_linear(head.linear, count)
    elif getattr(head, "cv3", None) is not None:
        _widen_detector(head, count)
        model.nc = count
    else:
        raise ValidationFailed(
            f"Classes cannot be added to a {type(head).__name__} head; use YOLOv8, YOLO11 or "
            "YOLO26 models."
        )
    model.yaml = {**model.yaml, "nc": count}
    model.names = dict(enumerate(union.names))
    return replace(wider, architecture={**start.architecture, "nc": count})


def imprint(linear: nn.Linear, means: Tensor, seen: Tensor, first: int) -> None:
    """Initialise the rows of new classes from the mean features of their images (Qi et al. 2018).

    The weights of a row point from the mean of all new classes to the mean of its own class. Their
    norm is the mean norm of the old rows. The bias sets the logit to 0 half way between both
    means. A single new class has no such difference: its weights point to its own mean, where the
    logit is 0.

    Args:
        linear: The last layer; its rows from `first` on are set.
        means: Mean inputs of the last layer for images of each class (classes, in_features).
        seen: Whether the mean of each class is known (classes,).
        first: Id of the first new class.
    """
    new = [cls for cls in range(first, linear.out_features) if seen[cls]]
    middle = means[new].mean(0)
    length = linear.weight[:first].norm(dim=1).mean()
    only_one = linear.out_features - first == 1
    with torch.no_grad():
        for cls in new:
            mean = means[cls]
            direction = mean if only_one else mean - middle
            row = length * direction / direction.norm().clamp(min=1e-6)
            linear.weight[cls] = row
            linear.bias[cls] = -(row @ (mean if only_one else (mean + middle) / 2))


def _wider_linear(old: nn.Linear, count: int) -> nn.Linear:
    new = nn.Linear(old.in_features, count)
    with torch.no_grad():
        new.weight[: old.out_features] = old.weight
        new.bias[: old.out_features] = old.bias
        new.weight[old.out_features :] *= 0.1
        new.bias[old.out_features :] = old.bias.min()
    return new.to(old.weight.device)


def _widen_detector(head: Any, count: int) -> None:
    strides = [float(stride) for stride in head.stride]
    for name in CLASS_BRANCHES:
        for branch, stride in zip(getattr(head, name, None) or (), strides, strict=False):
            branch[-1] = _wider_conv(branch[-1], count, math.log(RARE / count * stride**2))
    semantic = getattr(getattr(head, "proto", None), "semseg", None)
    if semantic is not None:  # YOLO26: a semantic map that only its training loss uses
        semantic[-1] = _wider_conv(semantic[-1], count, 0.0)
    head.no += count - head.nc
    head.nc = count


def _wider_conv(old: nn.Conv2d, count: int, prior: float) -> nn.Conv2d:
    """A 1×1 convolution with more output channels; `prior` is the initial logit of new ones."""
    new = nn.Conv2d(old.in_channels, count, 1).to(old.weight.device)
    assert new.bias is not None
    assert old.bias is not None
    with torch.no_grad():
        new.bias.fill_(prior)
        new.weight[: old.out_channels] = old.weight
        new.bias[: old.out_channels] = old.bias
    return new
