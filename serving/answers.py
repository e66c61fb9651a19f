"""Response bodies of the prediction routes."""

from __future__ import annotations

import base64
from typing import Any

from inference.prediction import ItemResult, Prediction


def prediction_of(result: ItemResult) -> Prediction:
    """The prediction for one image; raises the item's error if there is one."""
    if result.prediction is None:
        raise result.error or RuntimeError("A runner returned neither a prediction nor an error.")
    return result.prediction


def data_uri(jpeg: bytes) -> str:
    """A JPEG as a `data:` URI."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def infer_answer(model_id: str, result: ItemResult) -> dict[str, Any]:
    """The response for one image; raises the item's error if there is one."""
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
