"""Camera simulation: exposure, colour, blur, noise and compression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Pixels = NDArray[Any]  # OpenCV's type hints are no more specific
Floats = NDArray[Any]


@dataclass(frozen=True)
class Camera:
    """A simulated camera with random image degradations.

    Args:
        darkest: Lowest exposure factor; exposures are spread evenly in stops up to `brightest`.
        brightest: Highest exposure factor; above 1, highlights clip.
        ordinary: Share of images with normal exposure, regardless of the two limits.
        blur: Highest Gaussian blur, as a share of the image's shorter side.
        noise: Highest sensor noise, as a share of full scale.
        swapped: Share of images with rotated colour channels, as from a camera that reads its
            colour filter with a wrong offset. Real recordings contain such images.
    """

    darkest: float
    brightest: float
    ordinary: float
    blur: float
    noise: float
    swapped: float

    def photograph(self, rng: Generator, image: Pixels) -> Pixels:
        """Degrade an ideal RGB image (H, W, 3) as this camera would; returns the same shape."""
        height, width = image.shape[:2]
        picture: Floats = image.astype(np.float32) / 255
        picture = self._blur(rng, picture)
        picture = self._expose(rng, picture)
        if rng.random() < self.swapped:
            picture = np.roll(picture, int(rng.choice((1, 1, 2))), axis=2)
        if rng.random() < 0.3:
            picture = _sharpen(rng, picture)
        # A dark image has less noise, but also a lower signal-to-noise ratio.
        level = min(1.0, float(picture.mean()) * 2)
        sigma = self.noise * rng.random() ** 2.5 * (0.12 + 0.88 * level)
        if sigma > 0.002:
            grain: Floats = rng.standard_normal(picture.shape, np.float32)
            if rng.random() < 0.5:
                grain = cv2.GaussianBlur(grain, (0, 0), rng.uniform(0.4, 0.9))
            picture = picture + grain * sigma
        result = np.clip(picture * 255, 0, 255).astype(np.uint8)
        if rng.random() < 0.12:
            result = _halve(rng, result)
        if rng.random() < 0.3:
            quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 92))]
            _, encoded = cv2.imencode(".jpg", result, quality)
            result = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
        assert result.shape == (height, width, 3)
        return result

    def _expose(self, rng: Generator, picture: Floats) -> Floats:
        if rng.random() < 0.3:
            grey = picture.mean(axis=2, keepdims=True)
            picture = grey + (picture - grey) * np.float32(rng.uniform(0.2, 1.25))
        if rng.random() < self.ordinary:
            gain = rng.uniform(0.75, 1.15)
        else:
            gain = float(np.exp(rng.uniform(np.log(self.darkest), np.log(self.brightest))))
        cast = np.exp(rng.normal(0, 0.08, 3)) * gain
        if rng.random() < 0.35:
            picture = np.maximum(picture, 0) ** np.float32(np.exp(rng.normal(0, 0.28)))
        haze = rng.uniform(0, 0.25) if rng.random() < 0.2 else rng.uniform(0, 0.03)
        lifted = picture * (1 - haze) + haze * rng.uniform(0.5, 1)
        return np.minimum(lifted * cast.astype(np.float32), 1).astype(np.float32)

    def _blur(self, rng: Generator, picture: Floats) -> Floats:
        limit = self.blur * min(picture.shape[:2])
        sigma = limit * rng.random() ** 2
        if sigma > 0.3:
            picture = cv2.GaussianBlur(picture, (0, 0), sigma)
        if rng.random() < 0.12:
            length = max(2, round(rng.uniform(1, 4) * limit))
            picture = cv2.filter2D(picture, -1, _motion(length, rng.uniform(0, np.pi)))
        return picture


def _motion(length: int, angle: float) -> Floats:
    """A line kernel: the path of the camera while the shutter was open."""
    side = length | 1
    kernel = np.zeros((side, side), np.float32)
    middle = side // 2
    reach = np.array([np.cos(angle), np.sin(angle)]) * middle
    start, end = np.round(middle - reach).astype(int), np.round(middle + reach).astype(int)
    cv2.line(kernel, tuple(map(int, start)), tuple(map(int, end)), (1.0,), 1)
    return kernel / kernel.sum()


def _sharpen(rng: Generator, picture: Floats) -> Floats:
    """Unsharp masking with the halos that cameras leave."""
    soft = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.8, 2.0))
    amount = np.float32(rng.uniform(0.3, 1.5))
    return np.asarray(np.clip(picture + (picture - soft) * amount, 0, 1), np.float32)


def _halve(rng: Generator, image: Pixels) -> Pixels:
    """Reduce the resolution: downscale and upscale with random interpolation."""
    height, width = image.shape[:2]
    factor = rng.uniform(0.5, 0.9)
    small = (max(8, round(width * factor)), max(8, round(height * factor)))
    ways = (cv2.INTER_LINEAR, cv2.INTER_NEAREST, cv2.INTER_AREA, cv2.INTER_CUBIC)
    reduced = cv2.resize(image, small, interpolation=ways[rng.integers(4)])
    return np.asarray(
        cv2.resize(reduced, (width, height), interpolation=ways[int(rng.choice((0, 3)))]), np.uint8
    )


# Close-ups cut from a car's video: often far too dark, blurred or bleached.
VIDEO = Camera(darkest=0.05, brightest=2.2, ordinary=0.35, blur=0.035, noise=0.07, swapped=0.25)
# Photographs of streets.
STREET = Camera(darkest=0.2, brightest=1.6, ordinary=0.7, blur=0.007, noise=0.06, swapped=0.03)
