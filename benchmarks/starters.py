"""Measures how good the starter models are, on drawn images and on real images.

    python -m benchmarks.starters
    python -m benchmarks.starters --gtsrb gtsrb/val --roadsigns roadsigns --split val

The drawn images come from seeds that were not used for training. The real images are not part of
the project: GTSRB as class folders with names such as `14_stop`, and street photographs in YOLO's
layout with a `data.yaml` that has a class `stop`.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from inference.images import DecodedImage
from inference.predict import predict
from inference.prediction import Prediction
from inference.render import draw
from inference.torch_engine import TorchEngine
from models_store.description import ModelDescription
from shell import Parser
from synthetic.scenes import draw_scene, draw_sign_crop
from synthetic.signs import CLASS_NAMES
from synthetic.train_starters import FOLDERS

SEED = 20_000_000  # training uses small seeds only
GTSRB_NAMES = {
    "no_vehicles": "no vehicles",
    "right_of_way_next_crossing": "right of way at next crossing",
}  # names that do not just have underscores instead of spaces

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


class Model:
    """A starter model with the preprocessing and postprocessing of the server, on PyTorch."""

    def __init__(self, folder: Path) -> None:
        self.description = ModelDescription.load(folder)
        self._engine = TorchEngine(folder, "cpu", half=False)

    def predict(self, image: Pixels, confidence: float | None = None) -> Prediction:
        """Predicts one RGB image (H, W, 3)."""
        return predict(
            self._engine, self.description, [DecodedImage.full(image)], confidence=confidence
        )[0]


def read(path: Path) -> Pixels:
    """An image file as RGB."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise SystemExit(f"Cannot read {path}.")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def overlaps(a: Floats, b: Floats) -> Floats:
    """IoU of every box of `a` (n, 4) with every box of `b` (m, 4), both as xyxy: (n, m)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (a, b)]
    return np.asarray(shared / (areas[0][:, None] + areas[1][None] - shared + 1e-9), np.float32)


def hits(predicted: Floats, actual: Floats, iou: float) -> NDArray[np.bool_]:
    """Which predictions find an object that no better prediction has found: (n,).

    `predicted` must be sorted by confidence, the highest first.
    """
    found = np.zeros(len(predicted), bool)
    taken = np.zeros(len(actual), bool)
    table = overlaps(predicted, actual)
    for i in range(len(predicted)):
        free = np.where(taken, 0, table[i]) if len(actual) else np.zeros(1)
        best = int(free.argmax())
        if free[best] >= iou:
            found[i] = taken[best] = True
    return found


def classify(
    model: Model, pictures: Iterable[tuple[Pixels, int]]
) -> tuple[float, dict[int, float], Counter[tuple[int, int]]]:
    """Top-1 accuracy of a classifier, overall and per class, and its mistakes.

    The mistakes are counted as (actual class id, predicted class id).
    """
    right: Counter[int] = Counter()
    total: Counter[int] = Counter()
    mistakes: Counter[tuple[int, int]] = Counter()
    for image, actual in pictures:
        predicted = int(model.predict(image).class_ids[0])
        total[actual] += 1
        right[actual] += predicted == actual
        if predicted != actual:
            mistakes[actual, predicted] += 1
    per_class = {class_id: right[class_id] / total[class_id] for class_id in sorted(total)}
    return right.total() / total.total(), per_class, mistakes


def drawn_crops(count: int) -> Iterator[tuple[Pixels, int]]:
    """Drawn close-ups of signs that were not used for training, with their class ids."""
    for i in range(count):
        class_id = i % len(CLASS_NAMES)
        yield draw_sign_crop(np.random.default_rng((SEED, i)), class_id, 64), class_id


def gtsrb_crops(folder: Path) -> Iterator[tuple[Pixels, int]]:
    """The images of GTSRB whose classes the starter models have, with their class ids."""
    for place in sorted(folder.iterdir()):
        key = place.name.split("_", 1)[1]
        name = GTSRB_NAMES.get(key, key.replace("_", " "))
        if name in CLASS_NAMES:
            for path in sorted(place.glob("*.*")):
                yield read(path), CLASS_NAMES.index(name)


def mean_average_precision(model: Model, count: int, size: int) -> tuple[float, float]:
    """mAP50 and mAP50-95 of a detector on drawn scenes, with Ultralytics' average precision."""
    from models_store import ultralytics_env

    ultralytics_env.prepare()
    from ultralytics.utils.metrics import ap_per_class

    levels = np.linspace(0.5, 0.95, 10)
    correct, scores, predicted, actual = [], [], [], []
    for i in range(count):
        rng = np.random.default_rng((SEED, 1, i))
        image, boxes, class_ids = draw_scene(rng, size, size * 3 // 4)
        found = model.predict(image, confidence=0.001)
        table = np.zeros((len(found), len(levels)), bool)
        for class_id in np.unique(found.class_ids):
            rows = found.class_ids == class_id
            for j, level in enumerate(levels):
                table[rows, j] = hits(found.boxes[rows], boxes[class_ids == class_id], level)
        correct.append(table)
        scores.append(found.scores)
        predicted.append(found.class_ids)
        actual.append(class_ids)
    parts = (correct, scores, predicted, actual)
    tp, conf, pred_cls, target_cls = (np.concatenate(part) for part in parts)
    precision = ap_per_class(tp, conf, pred_cls, target_cls)[5]
    return float(precision[:, 0].mean()), float(precision.mean())


def stop_signs(model: Model, folder: Path, split: str) -> tuple[Floats, NDArray[np.bool_], int]:
    """Detect stop signs in photographs.

    Returns:
        The scores of all predictions (n,), which of them are correct at IoU 0.5 (n,), and the
        number of stop signs in the photographs.
    """
    names = yaml.safe_load((folder / "data.yaml").read_text())["names"]
    pairs = names.items() if isinstance(names, dict) else enumerate(names)
    wanted = next(int(i) for i, name in pairs if name == "stop")
    stop = CLASS_NAMES.index("stop")
    scores, right, signs = [], [], 0
    for path in sorted((folder / "images" / split).iterdir()):
        image = read(path)
        height, width = image.shape[:2]
        lines = (folder / "labels" / split / f"{path.stem}.txt").read_text().splitlines()
        rows = np.array([line.split() for line in lines if line.strip()], np.float32).reshape(-1, 5)
        rows = rows[rows[:, 0] == wanted, 1:] * np.array([width, height, width, height], np.float32)
        boxes = np.concatenate([rows[:, :2] - rows[:, 2:] / 2, rows[:, :2] + rows[:, 2:] / 2], 1)
        found = model.predict(image, confidence=0.01)
        mine = found.class_ids == stop
        scores.append(found.scores[mine])
        right.append(hits(found.boxes[mine], boxes, 0.5))
        signs += len(boxes)
    return np.concatenate(scores), np.concatenate(right), signs


def street_pictures(model: Model, seed: int, path: Path) -> None:
    """Write a drawn street scene of 960 x 600 pixels, and a copy with the detector's boxes."""
    image, _, _ = draw_scene(np.random.default_rng((SEED, 2, seed)), 960, 600)
    cv2.imwrite(str(path), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    path.with_stem(path.stem + "_boxes").write_bytes(draw(image, model.predict(image)))


def main() -> None:
    """Print the measurements that docs/explanation/starter-models.md quotes."""
    parser = Parser(prog="python -m benchmarks.starters", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add(
        "--models",
        type=Path,
        default=Path("models_store/starter"),
        help="folder of the starter models (models_store/starter)",
    )
    add("--gtsrb", type=Path, help="folder of GTSRB images, with one folder per class")
    add("--roadsigns", type=Path, help="folder of street photographs, with a data.yaml")
    add("--split", default="val", help="split of --roadsigns to measure on (val)")
    add("--crops", type=int, default=1700, help="number of drawn close-ups (1700); 0: none")
    add("--scenes", type=int, default=200, help="number of drawn street scenes (200); 0: none")
    add("--picture", type=Path, help="write a drawn street scene (.jpg), and a copy with boxes")
    add("--picture-seed", type=int, default=0, help="seed of the scene of --picture (0)")
    args = parser.parse_args()

    if (args.models / FOLDERS["classifier"]).exists():
        model = Model(args.models / FOLDERS["classifier"])
        if args.crops:
            accuracy, _, _ = classify(model, drawn_crops(args.crops))
            print(f"classifier, {args.crops} drawn close-ups: top-1 {accuracy:.3f}")
        if args.gtsrb:
            accuracy, per_class, mistakes = classify(model, gtsrb_crops(args.gtsrb))
            print(f"classifier, {args.gtsrb.name} of GTSRB: top-1 {accuracy:.3f}")
            for class_id, share in per_class.items():
                print(f"  {CLASS_NAMES[class_id]:30} {share:.2f}")
            for (actual, predicted), n in mistakes.most_common(15):
                print(f"  {n:3} x {CLASS_NAMES[actual]} classified as {CLASS_NAMES[predicted]}")
    if (args.models / FOLDERS["detector"]).exists():
        model = Model(args.models / FOLDERS["detector"])
        if args.picture:
            street_pictures(model, args.picture_seed, args.picture)
        if args.scenes:
            map50, map50_95 = mean_average_precision(model, args.scenes, 640)
            print(
                f"detector, {args.scenes} drawn scenes: mAP50 {map50:.3f}, mAP50-95 {map50_95:.3f}"
            )
        if args.roadsigns:
            scores, right, signs = stop_signs(model, args.roadsigns, args.split)
            kept = right[scores > 0.25]
            print(
                f"detector, {signs} stop signs in {args.split}: precision "
                f"{kept.mean() if len(kept) else 0:.3f}, recall {kept.sum() / signs:.3f} "
                f"at confidence 0.25, IoU 0.5"
            )
            order = np.argsort(-scores, kind="stable")
            found = right[order].cumsum()
            f1 = 2 * found / (np.arange(1, len(found) + 1) + signs)
            if len(f1):
                best = int(f1.argmax())
                print(f"  best F1 {f1[best]:.3f} at confidence {scores[order][best]:.2f}")


if __name__ == "__main__":
    main()
