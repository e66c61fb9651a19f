"""Measures how well polygons follow the masks from which they are made.

    python -m benchmarks.polygons --weights yolov8n-seg.pt --images coco_seg/images

The mask of each instance is made at the image's full resolution, independently of the polygons: it
is where the bilinearly enlarged prototypes are positive, inside the box. The IoU of the filled
polygons with this mask is reported three times: for the polygons before simplification, for the
simplified polygons that annotation answers contain, and for these without their holes.
`--drawn FOLDER` writes the images with their polygons.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from formats.geometry import KEPT_IOU, MOST_VERTICES, Mask, Outline, fill_parts, overlap, simplify
from inference.images import decode
from inference.nms import non_max_suppression
from inference.onnx_engine import OnnxEngine
from inference.postprocess import mask_logits, mask_outlines, postprocess
from inference.prediction import Float
from inference.preprocess import Letterbox, prepare
from inference.render import draw
from models_store.description import ModelDescription
from models_store.foreign.importer import convert_checkpoint
from settings import Settings
from shell import Parser

MAX_PIXELS = 100_000_000


@dataclass(frozen=True)
class Measured:
    """The measurements of one instance.

    Attributes:
        fine: IoU of the polygons before simplification with the mask.
        simple: IoU of the simplified polygons with the mask.
        dropped: IoU of the simplified polygons without their holes with the mask.
        vertices: Number of vertices of all simplified rings.
        largest: Number of vertices of the longest simplified ring.
        rings: Number of simplified rings.
        milliseconds: Time of the simplification.
    """

    fine: float
    simple: float
    dropped: float
    vertices: int
    largest: int
    rings: int
    milliseconds: float


def main() -> None:
    parser = Parser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--weights", type=Path, required=True, help="checkpoint (.pt) of a segmentation model"
    )
    parser.add_argument("--images", type=Path, required=True, help="folder of images to segment")
    parser.add_argument("--drawn", type=Path, help="folder for copies with the polygons drawn")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="visionloop-polygons-") as folder:
        convert_checkpoint(options.weights, Path(folder))
        description = ModelDescription.load(Path(folder))
        engine = OnnxEngine(Path(folder), description, Settings(device="cpu"))
        rows: list[Measured] = []
        files = sorted(p for p in options.images.iterdir() if p.is_file())
        for file in files:
            rows += measure(file, engine, description, options.drawn)
    report(rows, len(files))


def measure(
    file: Path, engine: OnnxEngine, description: ModelDescription, drawn: Path | None
) -> Iterator[Measured]:
    pixels = decode(file.read_bytes(), MAX_PIXELS)
    height, width = pixels.shape[:2]
    place = Letterbox.of(description, engine.letterbox, width, height)
    prepared = prepare(pixels, description, place)
    output, protos = (part[0] for part in engine.run(prepared[None])[:2])
    boxes, _, _, extra = non_max_suppression(
        output, len(description.names), description.confidence, description.iou
    )
    masks = mask_logits(protos, extra, boxes, place)
    for index, parts in enumerate(mask_outlines(masks, boxes, place)):
        mask = full_mask(protos, extra[index], boxes[index], place)
        if not parts or not mask.any():
            continue
        started = time.perf_counter()
        simple = [Outline(simplify(p.outer), tuple(map(simplify, p.holes))) for p in parts]
        milliseconds = (time.perf_counter() - started) * 1000
        rings = [ring for part in simple for ring in (part.outer, *part.holes)]
        iou = [
            overlap(fill_parts(shapes, width, height), mask)
            for shapes in (parts, simple, [Outline(part.outer) for part in simple])
        ]
        counts = [len(ring) for ring in rings]
        yield Measured(iou[0], iou[1], iou[2], sum(counts), max(counts), len(rings), milliseconds)
    if drawn is not None:
        drawn.mkdir(parents=True, exist_ok=True)
        found = postprocess([output, protos], description, place).simplified()
        (drawn / f"{file.stem}.jpg").write_bytes(draw(pixels, found))


def full_mask(protos: Float, coefficients: Float, box: Float, place: Letterbox) -> Mask:
    """The network's mask of an instance, at the image's full resolution."""
    logits = np.tensordot(coefficients, protos, 1)
    square = cv2.resize(logits, (place.imgsz, place.imgsz), interpolation=cv2.INTER_LINEAR)
    (left, top), (width, height) = place.offset, place.resized
    inner = np.ascontiguousarray(square[top : top + height, left : left + width])
    mask = np.asarray(cv2.resize(inner, (place.width, place.height))) > 0
    x1, y1, x2, y2 = place.boxes_to_image(box[None])[0]
    columns, rows = np.arange(place.width) + 0.5, np.arange(place.height) + 0.5
    inside = ((rows >= y1) & (rows < y2))[:, None] & ((columns >= x1) & (columns < x2))[None]
    return np.asarray(mask & inside)


def report(rows: list[Measured], pictures: int) -> None:
    print(f"{len(rows)} instances in {pictures} images, {os.cpu_count()} cores")
    print(
        f"target of the simplification: IoU {KEPT_IOU} with the original ring, at most "
        f"{MOST_VERTICES} vertices per ring\n"
    )
    print("| IoU with the full-resolution mask | median | 10th percentile | worst |")
    print("|---|--:|--:|--:|")
    holed = [row for row in rows if row.simple != row.dropped]
    for name, values in (
        ("before simplification", [row.fine for row in rows]),
        ("simplified", [row.simple for row in rows]),
        (f"simplified, the {len(holed)} instances with holes", [row.simple for row in holed]),
        ("the same instances without their holes", [row.dropped for row in holed]),
    ):
        if values:
            cells = " | ".join(f"{v:.3f}" for v in (*np.percentile(values, (50, 10)), min(values)))
            print(f"| {name} | {cells} |")
    vertices = [row.vertices for row in rows]
    few = np.mean([count <= MOST_VERTICES for count in vertices])
    print(
        f"\nvertices per object: median {np.median(vertices):.0f}, 90th percentile "
        f"{np.percentile(vertices, 90):.0f}, maximum {max(vertices)}; {few:.0%} of the objects "
        f"have {MOST_VERTICES} or fewer; maximum per ring: {max(row.largest for row in rows)}"
    )
    within = [row.simple for row in rows if row.vertices <= MOST_VERTICES]
    print(
        f"median IoU of the objects with {MOST_VERTICES} vertices or fewer: {np.median(within):.3f}"
    )
    times = [row.milliseconds for row in rows]
    print(f"simplification: {np.median(times):.1f} ms per object, maximum {max(times):.1f} ms")


if __name__ == "__main__":
    main()
