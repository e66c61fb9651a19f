"""What `/infer` and its siblings answer."""

from __future__ import annotations

import base64
from typing import Any

from inference.prediction import ItemResult, Prediction


def prediction_of(result: ItemResult) -> Prediction:
    """What was found in one picture; raises the item's error where it has one."""
    if result.prediction is None:
        raise result.error or RuntimeError("A runner answered neither prediction nor error.")
    return result.prediction


def data_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def infer_answer(model_id: str, result: ItemResult) -> dict[str, Any]:
    """The answer for one picture; raises the item's error where it has one."""
    prediction = prediction_of(result)
    answer = {
        "model_id": model_id,
        "model_version": model_id.partition(":")[2],
        "image": {"width": prediction.width, "height": prediction.height},
        "predictions": prediction.to_json(),
        "inference_time": result.times.get("inference", 0.0),
    }
    if result.drawn is not None:
        answer["image_result"] = data_uri(result.drawn)
    return answer
