"""An exponential moving average of a network's weights (Polyak averaging)."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import nn


class WeightEMA:
    """A copy of a network whose weights and floating-point buffers are averaged.

    The decay of update n is `decay` · (1 − exp(−n / `warmup`)): the first updates follow the
    network closely, later ones average over about 1 / (1 − `decay`) updates.

    Attributes:
        model: The averaged network, in eval mode.
        updates: Number of updates so far.
    """

    def __init__(self, model: nn.Module, decay: float = 0.998, warmup: float = 300.0) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.warmup = warmup  # updates
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Update the average with the weights of `model`; call it after each optimiser step."""
        self.updates += 1
        decay = self.decay * (1 - math.exp(-self.updates / self.warmup))
        ours = self.model.state_dict()
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                ours[name].lerp_(value, 1 - decay)
            else:
                ours[name].copy_(value)

    def state_dict(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.updates = int(state["updates"])
