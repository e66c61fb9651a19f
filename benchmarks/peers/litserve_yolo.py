"""Serves `YOLO.predict` with LitServe's batching.

`python -m benchmarks.peers.litserve_yolo WEIGHTS.pt PORT`
"""

import sys
from typing import Any

import cv2
import litserve
import numpy as np
from fastapi import Request
from ultralytics import YOLO


class DetectAPI(litserve.LitAPI):
    def __init__(self, weights: str) -> None:
        super().__init__(max_batch_size=8, batch_timeout=0.01, api_path="/infer")
        self.weights = weights

    def setup(self, device: str) -> None:
        self.model = YOLO(self.weights)
        self.model.predict(np.zeros((640, 640, 3), np.uint8), verbose=False)

    # LitServe reads these annotations at run time: no `from __future__ import annotations` here.
    # `request` is the parsed form.
    def decode_request(self, request: Request, **kwargs: Any) -> Any:
        data = request["image"].file.read()
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)

    def predict(self, pictures: list[Any]) -> list[Any]:
        results: Any = self.model.predict(list(pictures), verbose=False)
        return results

    def encode_response(self, result: Any) -> dict[str, Any]:
        return {"predictions": result.summary()}


if __name__ == "__main__":
    server = litserve.LitServer(DetectAPI(sys.argv[1]), accelerator="cpu")
    server.run(
        host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning"
    )
