"""Preprocessing of images to network input, and the inverse mapping of boxes and points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference import tiles
from inference.images import Pixels
from inference.jpeg import AtLeast
from inference.prediction import Float
from models_store.description import ModelDescription, Preprocessing

PAD = 114  # grey value of the padding in Ultralytics' letterbox
MIN_STRIDE = 32  # Ultralytics pads to multiples of at least this
_LONG = 16  # images whose scaled longer side exceeds this many crop sides are cropped first

_CV2 = {"nearest": cv2.INTER_NEAREST, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}
_PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


LetterboxKind = Literal["rect", "square"]


@dataclass(frozen=True, slots=True)
class Letterbox:
    """The placement of an image in the network's input.

    The image is scaled so that its longer side is `imgsz`, and padded around its centre. Computed
    like Ultralytics' `LetterBox(center=True)` and `scale_boxes`. Width and height are rounded
    separately (to at least one pixel), so their scale factors can differ.

    Attributes:
        width, height: Size of the image in pixels.
        imgsz: Length of the scaled image's longer side in pixels.
        stride: Pad to the smallest multiple of this number that holds the scaled image, as
            `YOLO.predict` does (`rect=True`, its default); None: pad to a square.
    """

    width: int
    height: int
    imgsz: int
    stride: int | None = None

    @classmethod
    def of(
        cls, description: ModelDescription, kind: LetterboxKind, width: int, height: int
    ) -> Letterbox:
        """The letterbox of an image for a model; a classifier uses its width and height only."""
        rect = kind == "rect" and description.any_size
        stride = max(description.stride, MIN_STRIDE) if rect else None
        return cls(width, height, description.imgsz, stride)

    @property
    def resized(self) -> tuple[int, int]:
        """Width and height of the image inside the frame."""
        gain = min(self.imgsz / self.height, self.imgsz / self.width)
        return max(round(self.width * gain), 1), max(round(self.height * gain), 1)

    @property
    def frame(self) -> tuple[int, int]:
        """Width and height of the network's input."""
        if self.stride is None:
            return self.imgsz, self.imgsz
        width, height = self.resized
        return (
            width + (self.imgsz - width) % self.stride,
            height + (self.imgsz - height) % self.stride,
        )

    @property
    def offset(self) -> tuple[int, int]:
        """Columns of padding to the left of the image, and rows above it."""
        (width, height), (columns, rows) = self.resized, self.frame
        return round((columns - width) / 2 - 0.1), round((rows - height) / 2 - 0.1)

    def apply(self, pixels: Pixels, scale: int = 1) -> Pixels:
        """The image (h, w, 3), scaled bilinearly and padded to the frame, (rows, columns, 3).

        `scale`: of the pixels, see `DecodedImage`.
        """
        (width, height), (columns, rows) = self.resized, self.frame
        left, top = self.offset
        canvas = np.full((rows, columns, 3), PAD, np.uint8)
        inner = canvas[top : top + height, left : left + width]
        extent = self.width / scale, self.height / scale
        inner[:] = _resize(pixels, extent, (width, height))
        return canvas

    def points_to_image(self, points: Float) -> Float:
        """Convert points (..., 2) xy from the frame to the image, clipped to the image."""
        width, height = self.resized
        gain = np.array((width / self.width, height / self.height), np.float32)
        moved = (points - np.array(self.offset, np.float32)) / gain
        limit = np.array((self.width, self.height), np.float32)
        return np.clip(moved, 0, limit).astype(np.float32, copy=False)

    def points_to_frame(self, points: Float) -> Float:
        """Convert points (..., 2) xy from the image to the frame."""
        width, height = self.resized
        gain = np.array((width / self.width, height / self.height), np.float32)
        return (points * gain + np.array(self.offset, np.float32)).astype(np.float32, copy=False)

    def boxes_to_image(self, boxes: Float) -> Float:
        """Convert boxes (n, 4) xyxy from the frame to the image, clipped to the image."""
        return self.points_to_image(boxes.reshape(-1, 2, 2)).reshape(-1, 4)


def prepare(
    pixels: Pixels, description: ModelDescription, place: Letterbox, scale: int = 1
) -> Pixels:
    """Resize an RGB image (h, w, 3) to (rows, columns, channels) uint8, the input of `normalise`.

    Args:
        pixels: The image, decoded at `scale`.
        description: The model.
        place: The image's full size; and its placement if the description says `letterbox`.
            Otherwise the result has imgsz × imgsz pixels.
        scale: See `DecodedImage`.
    """
    how = description.preprocessing
    if how.resize == "letterbox":
        prepared = place.apply(pixels, scale)
    else:
        size = scaled_size(description, place.width, place.height)
        prepared = _square(pixels, (place.width / scale, place.height / scale), size, how)
    if description.channels == 1:
        return cv2.cvtColor(prepared, cv2.COLOR_RGB2GRAY).astype(np.uint8)[..., None]
    return prepared


def scaled_size(description: ModelDescription, width: int, height: int) -> tuple[int, int]:
    """Width and height to which `prepare` scales an image, before it pads or crops."""
    how = description.preprocessing
    if how.resize == "letterbox":
        return Letterbox(width, height, how.imgsz).resized
    if how.resize == "squash":
        return how.imgsz, how.imgsz
    short = how.resize_to or how.imgsz
    # like torchvision's Resize, round the longer side down
    if width <= height:
        return short, int(short * height / width)
    return int(short * width / height), short


def needed_size(
    description: ModelDescription, way: Literal["fast", "exact"], tiled: int = tiles.OFF
) -> AtLeast | None:
    """The size at which `decode_at_least` must decode an image for a model.

    Args:
        description: The model.
        way: `VISIONLOOP_DECODE`; `exact`: all images in full.
        tiled: Number of tiles, see `tiles.views`. An image with tiles is decoded in full.
    """
    if way == "exact":
        return None
    if description.task == "classify":
        tiled = tiles.OFF

    def needed(width: int, height: int) -> tuple[int, int]:
        if len(tiles.views(width, height, description.imgsz, tiled)) > 1:
            return width, height
        return scaled_size(description, width, height)

    return needed


def normalise(pixels: NDArray[np.uint8], how: Preprocessing) -> Float:
    """Convert (n, h, w, c) uint8 to (n, c, h, w) float32: divide by 255, apply mean and std."""
    out = np.empty((len(pixels), pixels.shape[3], *pixels.shape[1:3]), np.float32)
    np.divide(pixels.transpose(0, 3, 1, 2), np.float32(255), out=out)
    if any(how.mean) or any(value != 1 for value in how.std):
        channels = pixels.shape[3]
        out -= np.array(how.mean[:channels], np.float32)[:, None, None]
        out /= np.array(how.std[:channels], np.float32)[:, None, None]
    return out


def _square(
    pixels: Pixels, extent: tuple[float, float], size: tuple[int, int], how: Preprocessing
) -> Pixels:
    """A classifier's input; `size` is that of `scaled_size`, `extent` as for `_resize`."""
    if how.resize == "centre_crop":
        return _centre_crop(pixels, extent, size, how)
    return _resize(pixels, extent, size, how.interpolation, how.antialias)


def _resize(
    pixels: Pixels,
    extent: tuple[float, float],
    size: tuple[int, int],
    interpolation: str = "bilinear",
    antialias: bool = False,
) -> Pixels:
    """Resize to `size` (width, height).

    Args:
        pixels: RGB (h, w, 3).
        extent: Width and height, in pixels, of the part that shows the image: all of it, but for a
            fraction of the last column and row if the image was decoded at a DCT scale.
        size: Width and height of the result.
        interpolation: A key of _CV2.
        antialias: Use Pillow, as torchvision does for PIL images.
    """
    whole = extent == (pixels.shape[1], pixels.shape[0])
    if whole and extent == size:
        return pixels
    if antialias:
        box = None if whole else (0, 0, *extent)
        return np.asarray(Image.fromarray(pixels).resize(size, _PILLOW[interpolation], box))
    method = _CV2[interpolation]
    if whole:
        return cv2.resize(pixels, size, interpolation=method).astype(np.uint8, copy=False)
    # given factors, cv2 keeps to them and rounds the size; given a size, it derives factors
    x, y = size[0] / extent[0], size[1] / extent[1]
    resized = cv2.resize(pixels, None, fx=x, fy=y, interpolation=method)
    return resized[: size[1], : size[0]].astype(np.uint8, copy=False)


def _centre_crop(
    pixels: Pixels, extent: tuple[float, float], scaled: tuple[int, int], how: Preprocessing
) -> Pixels:
    """The central square of the image scaled to `scaled`, padded with black if smaller.

    `extent`: as for `_resize`.

    Equal to torchvision's `Resize` and `CenterCrop`. If the sides differ very much, only the part
    to keep is resized: the whole of an 8000 × 8 image would be resized to 224000 × 224.
    """
    size = how.imgsz
    left, top = (round((side - size) / 2) for side in scaled)
    if max(scaled) <= _LONG * size:
        whole = _resize(pixels, extent, scaled, how.interpolation, how.antialias)
        part = whole[max(top, 0) : max(top, 0) + size, max(left, 0) : max(left, 0) + size]
    else:
        x1, y1 = max(left, 0), max(top, 0)
        x2, y2 = min(x1 + size, scaled[0]), min(y1 + size, scaled[1])
        x, y = extent[0] / scaled[0], extent[1] / scaled[1]
        source = (x1 * x, y1 * y, x2 * x, y2 * y)
        image = Image.fromarray(pixels)
        part = np.asarray(image.resize((x2 - x1, y2 - y1), _PILLOW[how.interpolation], box=source))
    if part.shape[:2] == (size, size):
        return np.ascontiguousarray(part)
    canvas = np.zeros((size, size, 3), np.uint8)
    above, before = (size - part.shape[0]) // 2, (size - part.shape[1]) // 2
    canvas[above : above + part.shape[0], before : before + part.shape[1]] = part
    return canvas
