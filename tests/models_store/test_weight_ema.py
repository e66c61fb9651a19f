from __future__ import annotations

import torch

from models_store.weight_ema import WeightEMA


def test_an_average_follows_closely_at_first_and_is_restored() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 0.0)
    average = WeightEMA(model, decay=0.99, warmup=10)
    torch.nn.init.constant_(model.weight, 1.0)
    average.update(model)
    assert average.model.state_dict()["weight"].item() > 0.9
    again = WeightEMA(model)
    again.load_state_dict(average.state_dict())
    assert again.updates == 1
    assert again.state_dict()["model"] == average.state_dict()["model"]
