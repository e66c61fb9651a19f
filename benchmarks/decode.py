"""Measures what decoding JPEG files at a DCT scale saves in time, and whether it costs accuracy.

    python -m benchmarks.decode --data coco/data.yaml --weights yolov8n.pt
    python -m benchmarks.decode            # the starter detector on drawn scenes

The photographs of a dataset's val split are enlarged to 12 megapixels (bicubic) and evaluated with
`VISIONLOOP_DECODE=exact` and `fast`, on the ONNX engine. Scenes are drawn at that size. The exit
code is 1 if the mean average precision falls by more than 0.2 points. The times are CPU times of
one thread, so that other programs change them little.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

from benchmarks.cpu import cpu
from shell import Parser

if TYPE_CHECKING:
    from dataset.dataset import Dataset
    from inference.engine import Engine
    from inference.images import Pixels
    from models_store.description import ModelDescription

ALLOWED = 0.002  # the greatest drop of a mean average precision
QUALITY = 92
SEED = 40_000_000  # training uses small seeds only
ORIENTATION = 0x0112
REPEATS = 5
SUBSAMPLING = {"4:2:0": 2, "4:4:4": 0}
MEANS = ("mAP50_95", "mask_mAP50_95", "pose_mAP50_95")


def main() -> int:
    parser = Parser(
        prog="python -m benchmarks.decode",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data", type=Path, help="data.yaml of a dataset; default: drawn street scenes")
    add("--weights", type=Path, help="an Ultralytics .pt; default: the starter detector")
    add("--images", type=int, default=200, help="most images to evaluate on (200)")
    add("--megapixels", type=float, default=12, help="size of the images in megapixels (12)")
    add("--imgsz", type=int, default=640, help="image size of --weights in pixels (640)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="visionloop-decode-") as scratch:
        os.environ |= {"VISIONLOOP_HOME": f"{scratch}/home", "BENTOML_HOME": f"{scratch}/bento"}
        return measure(options, Path(scratch))


def measure(options: argparse.Namespace, scratch: Path) -> int:
    from models_store import ultralytics_env

    ultralytics_env.prepare()
    from benchmarks.evaluation_equality import model_of
    from dataset.inspection import check
    from inference.onnx_engine import OnnxEngine
    from models_store.description import ModelDescription
    from settings import Settings

    cv2.setNumThreads(1)
    folder, _ = model_of(options, scratch)
    description = ModelDescription.load(folder)
    pixels = int(options.megapixels * 1e6)
    if options.data is None:
        data = drawn(scratch / "large", options.images, pixels)
    else:
        source = check(options.data, description.task, [options.data.resolve().parent])
        data = enlarged(source, scratch / "large", options.images, pixels)
    large = check(data, description.task, [scratch])
    engine = OnnxEngine(folder, description, Settings(device="cpu"))
    print(f"{cpu()}; load {os.getloadavg()[0]:.1f}")
    print(f"{description.task}, {len(large.splits['val'])} images of {options.megapixels:g} MP")
    times(large, description, engine)
    return accuracy(large, folder, description, engine, scratch)


def accuracy(
    dataset: Dataset, folder: Path, description: ModelDescription, engine: Engine, scratch: Path
) -> int:
    """Evaluate with both ways of decoding, print the means; returns the exit code."""
    from evaluation.evaluator import evaluate
    from evaluation.target import EvaluationTarget
    from settings import Settings

    found: dict[str, dict[str, float]] = {}
    for way in ("exact", "fast"):
        (output := scratch / way).mkdir()
        found[way] = evaluate(
            EvaluationTarget(folder, dataset),
            Settings(device="cpu", decode=way, max_pixels=10**8),
            output=output,
            progress=lambda *_: None,
            loaded=(engine, description),
        ).metrics
    print(f"\n| {'metric':14} | exact | fast | difference in points |\n|---|--:|--:|--:|")
    worst = 0.0
    for name in MEANS:
        if name in found["exact"]:
            exact, fast = found["exact"][name], found["fast"][name]
            worst = max(worst, exact - fast)
            print(f"| {name:14} | {exact:.4f} | {fast:.4f} | {100 * (fast - exact):+.2f} |")
    exact, fast = (found[way]["preprocess_time"] for way in ("exact", "fast"))
    print(f"\npreprocessing, median ms of an image: exact {exact:.1f}, fast {fast:.1f}")
    return int(worst > ALLOWED)


def times(dataset: Dataset, description: ModelDescription, engine: Engine) -> None:
    """Print the CPU time of decoding one of the images, by subsampling and orientation."""
    from inference.images import decode, decode_at_least
    from inference.preprocess import needed_size

    image = Image.fromarray(decode(dataset.splits["val"][0].read_bytes(), 10**8))
    needed = needed_size(description, "fast")
    print("\n| chroma | EXIF | MB | exact, ms | fast, ms | scale |\n|---|---|--:|--:|--:|--:|")
    for name, subsampling in SUBSAMPLING.items():
        for orientation in (1, 6):
            exif = Image.Exif()
            exif[ORIENTATION] = orientation
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=QUALITY, subsampling=subsampling, exif=exif)
            data = buffer.getvalue()
            exact = milliseconds(partial(decode, data, 10**8))
            fast = milliseconds(partial(decode_at_least, data, 10**8, needed))
            scale = decode_at_least(data, 10**8, needed).scale
            cells = f"{len(data) / 1e6:.1f} | {exact:.0f} | {fast:.0f} | 1/{scale}"
            print(f"| {name} | {'turned' if orientation != 1 else 'upright'} | {cells} |")


def milliseconds(call: Callable[[], Any]) -> float:
    """The median CPU time of a call in this thread."""
    found = []
    for _ in range(REPEATS):
        began = time.thread_time()
        call()
        found.append(time.thread_time() - began)
    return 1000 * float(np.median(found))


def drawn(folder: Path, count: int, pixels: int) -> Path:
    """A dataset of scenes of that many pixels, square ones a third more; returns its data.yaml."""
    from synthetic.scenes import write_detection_set

    longer = round((pixels * 4 / 3) ** 0.5 / 8) * 8
    # a dataset must have a train split; it is not used
    return write_detection_set(folder, count + 1, SEED, longer, lambda number: number > 0)


def enlarged(source: Dataset, folder: Path, count: int, pixels: int) -> Path:
    """Up to `count` images of the val split, scaled to that many pixels, as dataset.

    Labels are relative to the image, so they are copied.
    """
    from dataset.view import write_data_yaml
    from inference.images import decode

    images = source.splits["val"]
    count = min(count, len(images))
    chosen = [images[i * len(images) // count] for i in range(count)]
    for split, part in (("train", chosen[:1]), ("val", chosen)):
        for number, image in enumerate(part):
            name = f"{split}/{number:05d}"
            write_image(folder / f"images/{name}.jpg", decode(image.read_bytes(), 10**8), pixels)
            label = folder / f"labels/{name}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_bytes(source.labels[image].read_bytes() if image in source.labels else b"")
    file = folder / "data.yaml"
    write_data_yaml(file, folder, ("train", "val"), source.names, source.keypoints)
    return file


def write_image(path: Path, image: Pixels, pixels: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = image.shape[:2]
    factor = (pixels / (width * height)) ** 0.5
    size = round(width * factor / 8) * 8, round(height * factor / 8) * 8  # as cameras have it
    large = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
    Image.fromarray(np.asarray(large, np.uint8)).save(path, "JPEG", quality=QUALITY)


if __name__ == "__main__":
    sys.exit(main())
