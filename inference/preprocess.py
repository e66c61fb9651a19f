"""Preprocessing of images to network input, and the inverse mapping of boxes and points."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.images import Pixels
from inference.prediction import Float
from models_store.description import ModelDescription, Preprocessing

PAD = 114  # grey of Ultralytics' letterbox
_LONG = 16  # longest scaled side, in sides of the crop, that is resized as a whole

_CV2 = {"nearest": cv2.INTER_NEAREST, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}
_PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


@dataclass(frozen=True, slots=True)
class Letterbox:
    """The placement of an image in the square network input.

    As `LetterBox(auto=False, center=True)` and `scale_boxes` of Ultralytics compute it: each side
    is rounded (at least one pixel) and so has a gain of its own.
    """

    width: int
    height: int
    imgsz: int

    @property
    def resized(self) -> tuple[int, int]:
        """Width and height of the image inside the square."""
        gain = min(self.imgsz / self.height, self.imgsz / self.width)
        return max(round(self.width * gain), 1), max(round(self.height * gain), 1)

    @property
    def offset(self) -> tuple[int, int]:
        """Columns and rows of padding before the image."""
        width, height = self.resized
        return round((self.imgsz - width) / 2 - 0.1), round((self.imgsz - height) / 2 - 0.1)

    def apply(self, pixels: Pixels) -> Pixels:
        """The image (h, w, 3), scaled bilinearly and padded to (imgsz, imgsz, 3)."""
        width, height = self.resized
        left, top = self.offset
        canvas = np.full((self.imgsz, self.imgsz, 3), PAD, np.uint8)
        inner = canvas[top : top + height, left : left + width]
        if (self.width, self.height) == (width, height):
            inner[:] = pixels
        else:
            inner[:] = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
        return canvas

    def points_to_image(self, points: Float) -> Float:
        """Points (..., 2) xy of the square as points of the image, clipped to it."""
        width, height = self.resized
        gain = np.array((width / self.width, height / self.height), np.float32)
        moved = (points - np.array(self.offset, np.float32)) / gain
        limit = np.array((self.width, self.height), np.float32)
        return np.clip(moved, 0, limit).astype(np.float32, copy=False)

    def points_to_square(self, points: Float) -> Float:
        """Points (..., 2) xy of the image as points of the square."""
        width, height = self.resized
        gain = np.array((width / self.width, height / self.height), np.float32)
        return (points * gain + np.array(self.offset, np.float32)).astype(np.float32, copy=False)

    def boxes_to_image(self, boxes: Float) -> Float:
        """Boxes (n, 4) xyxy of the square as boxes of the image, clipped to it."""
        return self.points_to_image(boxes.reshape(-1, 2, 2)).reshape(-1, 4)


def prepare(
    pixels: Pixels, description: ModelDescription, place: Letterbox | None = None
) -> Pixels:
    """An RGB image (h, w, 3) as (imgsz, imgsz, channels) uint8, which `normalise` takes.

    `place` overrides the placement; None: as the description says.
    """
    prepared = place.apply(pixels) if place else _square(pixels, description.preprocessing)
    if description.channels == 1:
        return cv2.cvtColor(prepared, cv2.COLOR_RGB2GRAY).astype(np.uint8)[..., None]
    return prepared


def _square(pixels: Pixels, how: Preprocessing) -> Pixels:
    height, width = pixels.shape[:2]
    size = how.imgsz
    if how.resize == "letterbox":
        return Letterbox(width, height, size).apply(pixels)
    if how.resize == "squash":
        return _resize(pixels, (size, size), how)
    short = how.resize_to or size
    # torchvision's Resize: the longer side is cut to whole pixels, not rounded
    scaled = (
        (short, int(short * height / width))
        if width <= height
        else (int(short * width / height), short)
    )
    return _centre_crop(pixels, scaled, how)


def normalise(pixels: NDArray[np.uint8], how: Preprocessing) -> Float:
    """(n, s, s, c) uint8 as (n, c, s, s) float32: divided by 255, then mean and std."""
    out = np.empty((len(pixels), pixels.shape[3], *pixels.shape[1:3]), np.float32)
    np.divide(pixels.transpose(0, 3, 1, 2), np.float32(255), out=out)
    if any(how.mean) or any(value != 1 for value in how.std):
        channels = pixels.shape[3]
        out -= np.array(how.mean[:channels], np.float32)[:, None, None]
        out /= np.array(how.std[:channels], np.float32)[:, None, None]
    return out


def _resize(pixels: Pixels, size: tuple[int, int], how: Preprocessing) -> Pixels:
    """`size` is (width, height). Antialiasing is Pillow's, as torchvision has it for images."""
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    if how.antialias:
        return np.asarray(Image.fromarray(pixels).resize(size, _PILLOW[how.interpolation]))
    return cv2.resize(pixels, size, interpolation=_CV2[how.interpolation]).astype(np.uint8)


def _centre_crop(pixels: Pixels, scaled: tuple[int, int], how: Preprocessing) -> Pixels:
    """The central square of the image scaled to `scaled`, padded with black if smaller.

    As torchvision's `Resize` and `CenterCrop`. Of very long images only the part that is kept
    is resized: 8000 × 8 would be 224000 × 224 on the way.
    """
    size = how.imgsz
    left, top = (round((side - size) / 2) for side in scaled)
    if max(scaled) <= _LONG * size:
        whole = _resize(pixels, scaled, how)
        part = whole[max(top, 0) : max(top, 0) + size, max(left, 0) : max(left, 0) + size]
    else:
        x1, y1 = max(left, 0), max(top, 0)
        x2, y2 = min(x1 + size, scaled[0]), min(y1 + size, scaled[1])
        x, y = pixels.shape[1] / scaled[0], pixels.shape[0] / scaled[1]
        source = (x1 * x, y1 * y, x2 * x, y2 * y)
        image = Image.fromarray(pixels)
        part = np.asarray(image.resize((x2 - x1, y2 - y1), _PILLOW[how.interpolation], box=source))
    if part.shape[:2] == (size, size):
        return np.ascontiguousarray(part)
    canvas = np.zeros((size, size, 3), np.uint8)
    above, before = (size - part.shape[0]) // 2, (size - part.shape[1]) // 2
    canvas[above : above + part.shape[0], before : before + part.shape[1]] = part
    return canvas
