"""Serves `YOLO.predict` with FastAPI, without batching.

`python -m benchmarks.peers.fastapi_yolo WEIGHTS.pt PORT [fp16]`
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import cv2
import numpy as np
import uvicorn
from fastapi import FastAPI, File
from ultralytics import YOLO


def build(weights: str, half: bool) -> FastAPI:
    model = YOLO(weights)
    if half:  # Ultralytics stays with single precision on a CPU
        model.overrides["quantize"] = "fp16"
    model.predict(np.zeros((640, 640, 3), np.uint8), verbose=False)
    app = FastAPI()

    @app.get("/health")
    async def health() -> str:
        return "ok"

    @app.post("/infer")
    def infer(image: Annotated[bytes, File()]) -> dict[str, Any]:
        picture = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
        results: Any = model.predict(picture, verbose=False)
        return {"predictions": results[0].summary()}

    return app


if __name__ == "__main__":
    app = build(sys.argv[1], half="fp16" in sys.argv[3:])
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
