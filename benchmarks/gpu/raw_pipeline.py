"""Measures the GPU engine without a server, and what half precision costs in accuracy.

`python -m benchmarks.gpu.raw_pipeline MODEL_ID FOLDER_OF_JPEGS SECONDS DEVICE` prints JSON.
DEVICE is `cuda`, or `cpu`: the same code runs on the CPU, in single precision.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from evaluation.matching import pair
from formats.geometry import box_iou
from inference.device import GPU_SLOTS
from inference.engine import DeviceEngine, Engine, load_engine
from inference.images import decode_at_least
from inference.postprocess import Thresholds
from inference.predict import predict
from inference.prediction import Float, InferenceItem, Prediction
from inference.preprocess import Letterbox, needed_size, prepare
from inference.runtime.model_runtime import ModelRuntime
from inference.torch_engine import TorchEngine
from models_store.description import ModelDescription
from models_store.store import locate
from settings import get_settings

Device = Literal["cpu", "cuda"]
SAME = 0.5  # lowest IoU of two boxes of one object


def main(model_id: str, folder: Path, seconds: float, device: Device) -> None:
    images = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
    batch = get_settings().max_batch or (32 if device == "cuda" else 4)
    engine, description = load(model_id, device, batch)
    found = {
        "device": torch.cuda.get_device_name() if device == "cuda" else None,
        "engine": engine.backend,
        "batch": batch,
        "decodes": isinstance(engine, DeviceEngine) and engine.decodes,
        "network": network_rate(engine, description, images, batch, seconds),
        "raw": raw_rate(model_id, engine, description, images, batch, seconds),
        "half": half_accuracy(model_id, images, device),
    }
    print(json.dumps(found))


def load(model_id: str, device: Device, batch: int) -> tuple[Engine, ModelDescription]:
    """The engine that serves on a GPU, or PyTorch's with its graphs' stand-in on a CPU."""
    folder, settings = locate(model_id), get_settings()
    if device == "cuda":
        return load_engine(folder, settings)
    engine = TorchEngine(folder, "cpu", False, batch, graphs=True)
    return engine, ModelDescription.load(folder)


def network_rate(
    engine: Engine,
    description: ModelDescription,
    images: Sequence[bytes],
    batch: int,
    seconds: float,
) -> float:
    """Images per second from prepared images of one shape to detections."""
    image = decoded(images[0], description)
    place = Letterbox.of(description, engine.letterbox, image.width, image.height)
    prepared = prepare(image.pixels, description, place, image.scale)
    wanted = Thresholds.of(description)

    def run() -> None:
        assert isinstance(engine, DeviceEngine)
        engine.detect([prepared] * batch, [place] * batch, [wanted] * batch)

    return batch * loops(run, GPU_SLOTS, seconds)


def loops(work: Callable[[], None], threads: int, seconds: float) -> float:
    """Calls per second of some threads that call `work` again and again."""

    def rate(duration: float) -> float:
        done = [0] * threads
        start = time.perf_counter()

        def loop(number: int) -> None:
            while time.perf_counter() - start < duration:
                work()
                done[number] += 1

        running = [threading.Thread(target=loop, args=(i,)) for i in range(threads)]
        for each in running:
            each.start()
        for each in running:
            each.join()
        return sum(done) / (time.perf_counter() - start)

    rate(min(5.0, seconds))  # warm-up: graphs are recorded
    return rate(seconds)


def raw_rate(
    model_id: str,
    engine: Engine,
    description: ModelDescription,
    images: Sequence[bytes],
    batch: int,
    seconds: float,
) -> float:
    """Images per second from JPEG bytes to predictions, in batches as the gateway sends them."""

    def loaded(*_: Any) -> tuple[Engine, ModelDescription]:
        return engine, description

    async def measure() -> float:
        settings = get_settings()
        runtime = ModelRuntime(locate, settings.model_copy(update={"max_batch": batch}), loaded)
        turn = 0

        async def loop(until: float) -> int:
            nonlocal turn
            done = 0
            while time.perf_counter() < until:
                turn += batch
                files = [images[(turn + i) % len(images)] for i in range(batch)]
                results = await runtime.predict_batch([InferenceItem(f, model_id) for f in files])
                if (error := next((r.error for r in results if r.error), None)) is not None:
                    raise error
                done += batch
            return done

        try:
            for duration in (min(5.0, seconds), seconds):
                start = time.perf_counter()
                done = await asyncio.gather(*(loop(start + duration) for _ in range(GPU_SLOTS)))
                rate = sum(done) / (time.perf_counter() - start)
        finally:
            runtime.close()
        return rate

    return asyncio.run(measure())


def decoded(data: bytes, description: ModelDescription) -> Any:
    settings = get_settings()
    return decode_at_least(data, settings.max_pixels, needed_size(description, settings.decode))


def half_accuracy(model_id: str, images: Sequence[bytes], device: Device) -> dict[str, float]:
    """How the detections in half precision differ from those in single precision."""
    folder = locate(model_id)
    description = ModelDescription.load(folder)
    pictures = [decoded(data, description) for data in images]
    single, half = (
        [predict(engine, description, [picture])[0] for picture in pictures]
        for engine in (TorchEngine(folder, device, half=is_half) for is_half in (False, True))
    )
    pairs = [pair for one, other in zip(single, half, strict=True) for pair in matched(one, other)]
    total = sum(map(len, single)) + sum(map(len, half))
    boxes = [np.abs(a - b).max() for a, b, _, _ in pairs] or [0.0]
    scores = [abs(a - b) for _, _, a, b in pairs] or [0.0]
    return {
        "detections": sum(map(len, single)),
        "matched": 2 * len(pairs) / total if total else 1.0,
        "pixels_p99": float(np.percentile(boxes, 99)),
        "pixels_max": float(max(boxes)),
        "score_max": float(max(scores)),
    }


def matched(one: Prediction, other: Prediction) -> list[tuple[Float, Float, float, float]]:
    """The boxes and scores of the objects that both found, one to one."""
    iou = box_iou(one.boxes, other.boxes)
    iou[one.class_ids[:, None] != other.class_ids[None]] = 0
    return [
        (one.boxes[i], other.boxes[j], float(one.scores[i]), float(other.scores[j]))
        for i, j in enumerate(pair(iou, SAME))
        if j >= 0
    ]


if __name__ == "__main__":
    name, path, duration, where = sys.argv[1:]
    main(name, Path(path), float(duration), "cuda" if where == "cuda" else "cpu")
