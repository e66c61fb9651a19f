"""Measures the engine without a server: the upper limit of the serving throughput.

One thread per core processes images in a loop, from JPEG bytes to boxes.
`python -m benchmarks.peers.raw_engine MODEL_ID FOLDER_OF_JPEGS SECONDS` prints images per second.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import cv2

from inference.device import cpu_sessions
from inference.engine import load_engine
from inference.images import decode_at_least
from inference.predict import predict
from inference.preprocess import needed_size
from models_store.store import locate
from settings import get_settings


def main(model_id: str, images: Path, seconds: float) -> None:
    cv2.setNumThreads(1)
    settings = get_settings()
    engine, description = load_engine(locate(model_id), settings)
    pictures = [path.read_bytes() for path in sorted(images.glob("*.jpg"))]
    needed = needed_size(description, settings.decode)
    threads = cpu_sessions(settings)
    done = [0] * threads

    def loop(number: int, until: float) -> None:
        while time.perf_counter() < until:
            picture = pictures[(done[number] * threads + number) % len(pictures)]
            image = decode_at_least(picture, settings.max_pixels, needed)
            predict(engine, description, [image])
            done[number] += 1

    def rate(duration: float) -> float:
        done[:] = [0] * threads
        start = time.perf_counter()
        loops = [threading.Thread(target=loop, args=(i, start + duration)) for i in range(threads)]
        for each in loops:
            each.start()
        for each in loops:
            each.join()
        return sum(done) / (time.perf_counter() - start)

    rate(min(3.0, seconds))  # warm-up
    print(f"{rate(seconds):.3f}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))
