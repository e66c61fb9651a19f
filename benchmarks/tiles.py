"""Measures how much tiles help in large images.

`python -m benchmarks.tiles [--weights FILE --data YAML]`

Small images with known objects are put side by side into large images, in which the objects are
relatively small. Recall and precision (at IoU 0.5) are measured without tiles and with `auto`, with
the runtime that serves annotation. The default model is the starter detector, with drawn street
scenes; other models and images are given as a detection checkpoint and a YOLO dataset.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import yaml

from inference.agreement import box_iou
from inference.images import Pixels
from inference.prediction import Float, InferenceItem, Prediction
from inference.runtime.model_runtime import ModelRuntime
from inference.tiles import AUTO, OFF
from models_store.export import export_onnx
from models_store.foreign.importer import convert_checkpoint
from settings import Settings
from shell import Parser
from synthetic.scenes import draw_scene
from synthetic.signs import CLASS_NAMES

STARTER = Path(__file__).parent.parent / "models_store/starter/traffic_signs_yolov8n"
CELL = 640, 480  # size in pixels to which each small image is scaled
SEED = 30_000_000  # training uses small seeds only

Scene = tuple[Pixels, list[tuple[str, Float]]]  # labels with boxes xyxy


def main() -> None:
    parser = Parser(description=(__doc__ or "").split("\n\n")[0])
    add = parser.add_argument
    add("--weights", type=Path, help="detection checkpoint (.pt); default: the starter detector")
    add(
        "--data",
        type=Path,
        help="data.yaml of a YOLO dataset; all .jpg in the images folder beside it are used; "
        "default: drawn street scenes",
    )
    add("--side", type=int, default=5, help="small images per row and per column (5)")
    add("--pictures", type=int, default=2, help="number of large images (2)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="visionloop-tiles-") as folder:
        model = Path(folder)
        if options.weights:
            convert_checkpoint(options.weights, model)
        else:
            shutil.copytree(STARTER, model, dirs_exist_ok=True)
            export_onnx(model)
        source = labelled(options.data) if options.data else drawn()
        large = [mosaic(source, options.side) for _ in range(options.pictures)]
        runtime = ModelRuntime(lambda _: model, Settings(device="cpu", max_pixels=10**8))
        sizes = {picture.shape[1::-1] for picture, _ in large}
        print(f"{len(large)} images of {sizes} pixels, {sum(len(t) for _, t in large)} objects")
        print("\n| tiles | recall | precision | boxes | seconds per image |")
        print("|---|--:|--:|--:|--:|")
        for name, tiles in (("off", OFF), ("auto", AUTO)):
            row(name, tiles, runtime, large)
        runtime.close()


def row(name: str, tiles: int, runtime: ModelRuntime, large: list[Scene]) -> None:
    hits = found = objects = 0
    seconds = 0.0
    for picture, truth in large:
        data = cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
        started = time.perf_counter()
        item = InferenceItem(data, "a:1", tiles=tiles)
        (result,) = asyncio.run(runtime.predict_batch([item]))
        seconds += time.perf_counter() - started
        assert result.prediction is not None, result.error
        hits += matched(result.prediction, truth)
        found += len(result.prediction)
        objects += len(truth)
    precision = hits / found if found else 1.0
    cells = f"{hits / objects:.2f} | {precision:.2f} | {found} | {seconds / len(large):.1f}"
    print(f"| {name} | {cells} |", flush=True)


def matched(prediction: Prediction, truth: list[tuple[str, Float]]) -> int:
    """The number of objects that a box of their class matches at IoU 0.5 or more.

    A box matches at most one object; boxes with a higher confidence come first.
    """
    left = list(truth)
    for cls, box in zip(prediction.class_ids, prediction.boxes, strict=True):
        same = [i for i, (label, _) in enumerate(left) if label == prediction.names[cls]]
        if same:
            overlaps = box_iou(box[None], np.stack([left[i][1] for i in same]))[0]
            if overlaps.max() >= 0.5:
                del left[same[int(overlaps.argmax())]]
    return len(truth) - len(left)


def mosaic(source: Iterator[Scene], side: int) -> Scene:
    """Put `side` × `side` scenes into one large scene."""
    width, height = CELL
    picture = np.zeros((side * height, side * width, 3), np.uint8)
    truth: list[tuple[str, Float]] = []
    for index in range(side * side):
        scene, objects = next(source)
        x, y = index % side * width, index // side * height
        scale = np.tile((width / scene.shape[1], height / scene.shape[0]), 2)
        picture[y : y + height, x : x + width] = cv2.resize(scene, CELL)
        corner = np.array((x, y, x, y))
        truth += [(label, (box * scale + corner).astype(np.float32)) for label, box in objects]
    return picture, truth


def drawn() -> Iterator[Scene]:
    index = 0
    while True:
        picture, boxes, ids = draw_scene(np.random.default_rng(SEED + index), *CELL)
        yield picture, [(CLASS_NAMES[i], box) for i, box in zip(ids, boxes, strict=True)]
        index += 1


def labelled(data: Path) -> Iterator[Scene]:
    """The images of a dataset with their labels; starts again after the last one."""
    names = yaml.safe_load(data.read_text())["names"]
    files = sorted((data.parent / "images").rglob("*.jpg"))
    while True:
        for file in files:
            picture = np.asarray(cv2.imread(str(file)))[..., ::-1]
            height, width = picture.shape[:2]
            labels = Path(str(file).replace("images", "labels")).with_suffix(".txt")
            objects = []
            for line in labels.read_text().splitlines() if labels.exists() else ():
                cls, x, y, w, h = map(float, line.split()[:5])
                box = np.array((x - w / 2, y - h / 2, x + w / 2, y + h / 2), np.float32)
                objects.append((names[int(cls)], box * np.tile((width, height), 2)))
            yield picture, objects


if __name__ == "__main__":
    main()
