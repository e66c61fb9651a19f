"""Drawn images of traffic signs: close-ups for classification, street scenes for detection.

Everything is a function of a `numpy.random.Generator`, so a seed gives the same image.

    python -m synthetic.scenes --kind detect --out signs --images 200 --seed 1
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from shell import Parser
from synthetic.backgrounds import foliage, street, surface
from synthetic.camera import STREET, VIDEO, Camera
from synthetic.distractors import draw_distractor, draw_pole
from synthetic.signs import CLASS_NAMES, draw_face

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

# Right-of-way signs are the most common on streets, so they are more frequent in scenes, too.
_COMMON = {"stop": 3.0, "yield": 2.0, "priority road": 1.5, "no entry": 1.5}
_FREQUENCY = np.array([_COMMON.get(name, 1.0) for name in CLASS_NAMES])
_FREQUENCY /= _FREQUENCY.sum()


def _view(rng: Generator, x: float, y: float, diameter: float, turn: float) -> Floats:
    """Corners (4, 2) of a sign in the image after a random rotation in 3D with perspective."""
    yaw, pitch = rng.normal(0, 0.32), rng.normal(0, 0.16)
    roll = np.radians(rng.normal(0, turn))
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], np.float64)
    flat = np.stack([corners[:, 0] * np.cos(yaw), corners[:, 1] * np.cos(pitch)], 1)
    depth = 1 + 0.22 * (corners[:, 0] * np.sin(yaw) + corners[:, 1] * np.sin(pitch))
    flat /= depth[:, None]
    spin = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    return ((flat @ spin.T) * diameter / 2 + (x, y)).astype(np.float32)


def _weather(rng: Generator, face: Pixels) -> None:
    """Dirt, stickers, shadow, gloss and the light on the sign itself, in place."""
    size = face.shape[0]
    colour = face[..., :3].astype(np.float32)
    if rng.random() < 0.15:
        side = max(3, int(size * rng.uniform(0.06, 0.2)))
        x, y = rng.integers(0, size - side, 2)
        colour[y : y + side, x : x + side] = rng.uniform(0, 255, 3)
    if rng.random() < 0.15:
        blot = cv2.resize(
            rng.random((6, 6), np.float32), (size, size), interpolation=cv2.INTER_CUBIC
        )
        dirt = np.clip((blot - rng.uniform(0.4, 0.8)) * 3, 0, rng.uniform(0.3, 0.9))[..., None]
        tint = (235, 238, 245) if rng.random() < 0.3 else (70, 60, 50)  # snow or mud
        colour += (np.array(tint, np.float32) - colour) * dirt
    ys, xs = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    ramp = np.cos(angle) * xs + np.sin(angle) * ys
    if rng.random() < 0.3:
        edge = np.clip((ramp - rng.normal(0, 0.25)) * rng.uniform(4, 30), 0, 1)
        colour *= (1 - edge * rng.uniform(0.2, 0.7))[..., None]
    if rng.random() < 0.15:
        colour += (np.clip(ramp + 0.3, 0, 1) * rng.uniform(40, 200))[..., None]
    # Signs are often darker than their background (backlight), and sometimes brighter.
    light = rng.uniform(0.2, 0.7) if rng.random() < 0.25 else rng.uniform(0.65, 1.12)
    face[..., :3] = np.clip(colour * light, 0, 255).astype(np.uint8)


def place_sign(
    rng: Generator,
    image: Pixels,
    class_id: int,
    centre: tuple[float, float],
    diameter: float,
    turn: float = 5.0,
) -> tuple[Floats, float] | None:
    """Draws one sign onto the image, in place.

    Args:
        rng: Source of all variation.
        image: RGB, uint8, (H, W, 3).
        class_id: Index into `CLASS_NAMES`.
        centre: (x, y) of the sign in pixels; may be near or beyond the border.
        diameter: Diameter of the sign in frontal view, in pixels.
        turn: Standard deviation of the rotation in the image plane, in degrees.

    Returns:
        The box xyxy of the part inside the image, in pixels, and the share of the sign that is
        inside; None if that is less than a third, or if the part is too small.
    """
    height, width = image.shape[:2]
    side = int(np.clip(diameter * 1.6, 24, 320))
    face = draw_face(rng, class_id, max(96, side))
    if side < 96:
        face = np.asarray(cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
    _weather(rng, face)
    corners = _view(rng, *centre, diameter, turn)
    low, high = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int)
    x0, y0 = max(0, int(low[0])), max(0, int(low[1]))
    x1, y1 = min(width, int(high[0])), min(height, int(high[1]))
    if x1 - x0 < 4 or y1 - y0 < 4:
        return None
    source = np.array([(0, 0), (side, 0), (side, side), (0, side)], np.float32)
    origin = np.array([x0 + 0.5, y0 + 0.5], np.float32)  # OpenCV maps the centres of pixels
    matrix = cv2.getPerspectiveTransform(source - np.float32(0.5), corners - origin)
    size = (x1 - x0, y1 - y0)
    colour = cv2.warpPerspective(
        np.ascontiguousarray(face[..., :3]), matrix, size, borderMode=cv2.BORDER_REPLICATE
    )
    alpha = cv2.warpPerspective(np.ascontiguousarray(face[..., 3]), matrix, size)
    covered = float((face[..., 3] > 127).mean()) * float(cv2.contourArea(corners))
    inside = float((alpha > 127).sum()) / max(covered, 1.0)
    if inside < 1 / 3:
        return None
    x, y, w, h = cv2.boundingRect((alpha > 127).astype(np.uint8))
    if w < 4 or h < 4:
        return None
    weight = alpha[..., None].astype(np.float32) / 255
    region = image[y0:y1, x0:x1]
    region[:] = (region * (1 - weight) + colour * weight).astype(np.uint8)
    return np.array([x0 + x, y0 + y, x0 + x + w, y0 + y + h], np.float32), min(inside, 1.0)


def _cover(rng: Generator, image: Pixels, box: Floats) -> None:
    """Puts something in front of a part of a sign: a pole, a branch, leaves; in place."""
    x0, y0, x1, y1 = (float(v) for v in box)
    w, h = x1 - x0, y1 - y0
    kind = rng.random()
    if kind < 0.35:
        draw_pole(rng, image, rng.uniform(x0, x1), y0 - h, w * rng.uniform(0.04, 0.16), y1 + h)
    elif kind < 0.75:
        shade = rng.uniform(10, 120, 3) * (0.8, 1.0, 0.6)
        for _ in range(int(rng.integers(1, 5))):
            ends = rng.uniform(-0.4, 1.4, (3, 2)) * (w, h) + (x0, y0)
            thick = max(1, int(w * rng.uniform(0.01, 0.06)))
            cv2.polylines(image, [ends.astype(np.int32)], False, shade.tolist(), thick, cv2.LINE_AA)
    else:
        height, width = image.shape[:2]
        cx, cy = rng.choice((x0, x1)), rng.choice((y0, y1))
        r = rng.uniform(0.2, 0.45) * max(w, h)
        left, top = max(0, int(cx - r)), max(0, int(cy - r))
        right, foot = min(width, int(cx + r)), min(height, int(cy + r))
        if right - left > 3 and foot - top > 3:
            leaves = foliage(rng, right - left, foot - top)
            keep = rng.random((foot - top, right - left)) < 0.9
            image[top:foot, left:right][keep] = leaves[keep]


def draw_sign_crop(rng: Generator, class_id: int, size: int, camera: Camera = VIDEO) -> Pixels:
    """Draws a close-up of one sign, as cut from a car's video: small, often dark and blurred.

    Args:
        rng: Source of all variation.
        class_id: Index into `CLASS_NAMES`.
        size: Side of the result in pixels; the sign is drawn at 16 to 160 px and resized.
        camera: The simulated camera.

    Returns:
        RGB, uint8, (size, size, 3).
    """
    native = int(np.clip(np.exp(rng.normal(np.log(46), 0.55)), 16, 160))
    image = surface(rng, native, native)
    diameter = native * rng.uniform(0.52, 0.94)
    x, y = native * (0.5 + rng.normal(0, 0.035, 2))
    if rng.random() < 0.5:
        draw_pole(rng, image, x, y - native * rng.choice((0, 1)), native * 0.08, native)
    if rng.random() < 0.2:
        other = int(rng.integers(len(CLASS_NAMES)))
        place_sign(rng, image, other, (x, y + diameter * rng.choice((-1.03, 1.03))), diameter)
    if rng.random() < 0.15:
        draw_distractor(rng, image, native // 2)
    placed = place_sign(rng, image, class_id, (x, y), diameter, turn=4.5)
    if placed is not None and rng.random() < 0.07:
        _cover(rng, image, placed[0])
    image = camera.photograph(rng, image)
    ways = (cv2.INTER_LINEAR, cv2.INTER_AREA)
    return np.asarray(
        cv2.resize(image, (size, size), interpolation=ways[rng.integers(2)]), np.uint8
    )


def draw_scene(rng: Generator, width: int, height: int) -> tuple[Pixels, Floats, NDArray[np.int64]]:
    """Draws a street scene with 0 to about 12 signs, and with distractors.

    Args:
        rng: Source of all variation.
        width: Width in pixels.
        height: Height in pixels.

    Returns:
        image: RGB, uint8, (height, width, 3).
        boxes: xyxy in pixels, inside the image, float32, (n, 4).
        class_ids: Indices into `CLASS_NAMES`, int64, (n,).
    """
    short = min(width, height)
    image = street(rng, width, height) if rng.random() < 0.6 else surface(rng, width, height)
    for _ in range(int(rng.integers(0, 8))):
        draw_distractor(rng, image, int(short * np.exp(rng.uniform(np.log(0.04), np.log(0.4)))))
    boxes: list[Floats] = []
    class_ids: list[int] = []
    posts = 0 if rng.random() < 0.06 else int(rng.integers(1, 8))
    if posts and rng.random() < 0.2:
        posts, span = 1, (0.4, 0.95)  # one sign that fills much of the image
    else:
        span = (max(0.045, 11 / short), 0.4)
    for _ in range(posts):
        diameter = short * float(np.exp(rng.uniform(np.log(span[0]), np.log(span[1]))))
        stack = 1 if diameter > short * 0.3 else int(rng.choice((1, 2, 3), p=(0.6, 0.3, 0.1)))
        x, y = rng.uniform(0.04, 0.96) * width, rng.uniform(0.05, 0.9) * height
        if diameter > short * 0.5:
            x, y = rng.uniform(0.35, 0.65) * width, rng.uniform(0.35, 0.65) * height
        gap = diameter * rng.uniform(1.0, 1.12)
        half, below = 0.55 * diameter, gap * (stack - 0.45)
        reach = np.array([x - half, y - half, x + half, y + below])
        if any(_overlap(reach, box) for box in boxes):
            continue
        if rng.random() < 0.8:
            draw_pole(rng, image, x, y - 0.6 * diameter, diameter * rng.uniform(0.06, 0.14), height)
        for i in range(stack):
            class_id = int(rng.choice(len(CLASS_NAMES), p=_FREQUENCY))
            placed = place_sign(rng, image, class_id, (x, y + gap * i), diameter)
            if placed is not None:
                boxes.append(placed[0])
                class_ids.append(class_id)
                if rng.random() < 0.07:
                    _cover(rng, image, placed[0])
    image = STREET.photograph(rng, image)
    xyxy = np.stack(boxes) if boxes else np.zeros((0, 4), np.float32)
    return image, xyxy, np.array(class_ids, np.int64)


def _overlap(a: NDArray[np.floating], b: NDArray[np.floating]) -> bool:
    """Whether two boxes xyxy share any area."""
    return bool(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3])


def every_fifth(number: int) -> bool:
    """Whether the image of this number, from 0, goes to `val`."""
    return number % 5 == 4


def write_detection_set(
    out: Path,
    images: int,
    seed: int,
    size: int = 640,
    is_val: Callable[[int], bool] = every_fifth,
    progress: Callable[[int], None] = lambda _: None,
) -> Path:
    """Writes drawn scenes in YOLO's layout: `images/`, `labels/`, `data.yaml`, split train/val.

    Args:
        out: Folder; created if missing.
        images: Number of scenes.
        seed: Image i depends on (seed, i) only.
        size: Longer side of an image in pixels.
        is_val: Whether the scene of a number belongs to val.
        progress: Called with the number of finished scenes; may raise to cancel.

    Returns:
        The path of the data.yaml.
    """
    for i in range(images):
        progress(i)
        rng = np.random.default_rng((seed, i))
        shape = rng.choice(((1.0, 0.75), (0.75, 1.0), (1.0, 1.0)))
        width, height = (int(size * side) for side in shape)
        image, boxes, class_ids = draw_scene(rng, width, height)
        name = f"{'val' if is_val(i) else 'train'}/{i:06d}"
        _write_picture(out / "images" / f"{name}.jpg", image)
        label = out / "labels" / f"{name}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(_yolo_lines(boxes, class_ids, width, height))
    names = "\n".join(f"  {i}: {name}" for i, name in enumerate(CLASS_NAMES))
    data = out / "data.yaml"
    data.write_text(f"train: images/train\nval: images/val\nnames:\n{names}\n")
    return data


def write_classification_set(
    out: Path,
    images: int,
    seed: int,
    size: int = 96,
    is_val: Callable[[int], bool] = every_fifth,
    progress: Callable[[int], None] = lambda _: None,
) -> Path:
    """Writes drawn close-ups in class folders, `train/<name>/` and `val/<name>/`.

    Args:
        out: Folder; created if missing.
        images: Number of images; the classes take turns.
        seed: Image i depends on (seed, i) only.
        size: Side of an image in pixels.
        is_val: Whether the image of a number, counted within its class, belongs to val.
        progress: Called with the number of finished images; may raise to cancel.

    Returns:
        The folder.
    """
    for i in range(images):
        progress(i)
        class_id, nth = i % len(CLASS_NAMES), i // len(CLASS_NAMES)
        image = draw_sign_crop(np.random.default_rng((seed, i)), class_id, size)
        split = "val" if is_val(nth) else "train"
        _write_picture(out / split / CLASS_NAMES[class_id] / f"{i:06d}.jpg", image)
    return out


def _yolo_lines(boxes: Floats, class_ids: NDArray[np.int64], width: int, height: int) -> str:
    """Labels as `class cx cy w h`, relative to the image."""
    scale = np.array([width, height, width, height], np.float32)
    lines = []
    for box, class_id in zip(boxes / scale, class_ids, strict=True):
        x0, y0, x1, y1 = (float(v) for v in box)
        values = ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0)
        lines.append(f"{class_id} " + " ".join(f"{v:.6f}" for v in values) + "\n")
    return "".join(lines)


def _write_picture(path: Path, image: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    quality = [cv2.IMWRITE_JPEG_QUALITY, 92]
    if not cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality):
        raise OSError(f"Cannot write the image {path}.")


def main() -> None:
    """Command line: writes a drawn dataset."""
    parser = Parser(
        prog="python -m synthetic.scenes",
        description="Draws a dataset of traffic signs. The same seed gives the same images.",
    )
    parser.add_argument(
        "--kind",
        choices=("detect", "classify"),
        default="detect",
        help="task of the dataset: scenes with boxes, or close-ups (default: detect)",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--images", type=int, default=200, help="number of images (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the images (default: 0)")
    parser.add_argument(
        "--size",
        type=int,
        help="longer side of the images in pixels (default: 640, or 96 for classify)",
    )
    args = parser.parse_args()
    write = write_detection_set if args.kind == "detect" else write_classification_set
    size = args.size or (640 if args.kind == "detect" else 96)
    print(f"Wrote {args.images} images: {write(args.out, args.images, args.seed, size)}")


if __name__ == "__main__":
    main()
