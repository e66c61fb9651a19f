"""Serves `YOLO.predict` with BentoML's adaptive batching.

The environment variable WEIGHTS is the path of the `.pt`.
"""

import os
from pathlib import Path
from typing import Any

import bentoml
import cv2


@bentoml.service(http={"host": "127.0.0.1"}, traffic={"timeout": 120})
class Batchable:
    def __init__(self) -> None:
        from ultralytics import YOLO

        self.model = YOLO(os.environ["WEIGHTS"])

    @bentoml.api(batchable=True, max_batch_size=8, max_latency_ms=60_000)
    def infer(self, image: list[Path]) -> list[dict[str, Any]]:
        images = [cv2.imread(str(path)) for path in image]
        results: Any = self.model.predict(images, verbose=False)
        return [{"predictions": result.summary()} for result in results]
