"""The images on which an export is compared: drawn scenes, smooth blobs and noise."""

from __future__ import annotations

import cv2
import numpy as np

from inference.images import Pixels
from synthetic.scenes import draw_scene

SHAPES = ((640, 480), (480, 640), (512, 512))  # width and height of the drawn scenes


def probe_images() -> list[Pixels]:
    """RGB images (h, w, 3) of several shapes, the same in every call."""
    random = np.random.default_rng(0)
    drawn = [draw_scene(random, *shape)[0] for shape in SHAPES]
    coarse = random.integers(0, 256, (12, 12, 3), np.uint8)
    blobs = np.asarray(cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC), np.uint8)
    noise = random.integers(0, 256, (480, 640, 3), np.uint8)
    return [*drawn, blobs, noise, np.ascontiguousarray(blobs[::-1, :480])]
