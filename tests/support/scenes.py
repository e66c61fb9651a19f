"""Drawn pictures, and their bytes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from inference.images import Pixels
from tests.support.seeds import rng


def scene(width: int, height: int, seed: int = 0) -> Pixels:
    """A gradient with coloured shapes on it."""
    random = rng(seed)
    ramp = np.linspace(40, 200, width)[None, :, None] + np.linspace(-30, 30, height)[:, None, None]
    image = Image.fromarray((ramp + np.array((0, 15, -20))).clip(0, 255).astype(np.uint8))
    canvas = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = random.uniform(0, width), random.uniform(0, height)
        w, h = random.uniform(0.05, 0.4, 2) * (width, height)
        colour = tuple(int(c) for c in random.integers(0, 256, 3))
        shape = canvas.ellipse if random.random() < 0.5 else canvas.rectangle
        shape((x, y, x + w, y + h), fill=colour)
    return np.asarray(image)


def encoded(pixels: Pixels | Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
