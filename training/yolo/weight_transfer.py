"""Transfer of start weights into a new YOLO network; class rows are matched by class name."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from training.start_weights import CLASS_BRANCHES, Start, keep_rows


def transfer_class_rows(model: Any, start: Start, names: tuple[str, ...]) -> None:
    """Copy the rows of a detection head's class branches for classes of the same name.

    Ultralytics copies them too (8.4.190, `_remap_cls_by_names`), but ignores case: two classes `A`
    and `a` both get the row of the same class.
    """
    known: Any = start.model
    for branch in CLASS_BRANCHES:
        layers, others = (getattr(of.model[-1], branch, None) or () for of in (model, known))
        for layer, other in zip(layers, others, strict=False):
            keep_rows(layer[-1], other[-1], names, start.names)


def load_classifier(model: Any, start: Start, names: tuple[str, ...]) -> None:
    """Load a classifier's start weights, with the rows of the last layer matched by class name.

    Ultralytics copies the last layer by position.
    """
    head = model.model[-1].linear
    fresh = copy.deepcopy(head.state_dict())
    model.load(start.model, verbose=False)
    head.load_state_dict(fresh)
    known: Any = start.model
    keep_rows(head, known.model[-1].linear, names, start.names)


def copy_norm_eps(source: nn.Module, model: nn.Module) -> None:
    """Copy the epsilon of batch normalisation from `source`, if all its layers have the same."""
    values = {m.eps for m in source.modules() if isinstance(m, nn.BatchNorm2d)}
    if len(values) == 1:
        eps = values.pop()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = eps
