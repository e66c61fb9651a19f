"""Digits, letters and the canvas that the traffic-sign faces are drawn on.

Traffic signs have DIN-like lettering: strokes of constant width with round ends. It is drawn from
arcs and lines, so that no font file is needed; Matplotlib's bundled DejaVu Sans adds variety.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Point = tuple[float, float]
Points = Sequence[Point]
Pixels = NDArray[np.uint8]

_SHIFT = 4  # OpenCV's fixed-point fraction bits: polygon corners fall between pixels


class Canvas:
    """A square RGB image with an alpha mask, addressed in units of half its side.

    The frame is (-1, -1) at the top left to (1, 1) at the bottom right. Everything is
    antialiased. The colour under the transparent part is painted too, so that resampling the
    edge of a sign never mixes in black.

    Args:
        size: Side in pixels.
    """

    def __init__(self, size: int) -> None:
        self.image: Pixels = np.zeros((size, size, 3), np.uint8)
        self.alpha: Pixels = np.zeros((size, size), np.uint8)
        self._half = size / 2
        self._centre = (0.0, 0.0)
        self._scale = 1.0

    def at(self, x: float, y: float, scale: float, mirror: bool = False) -> Canvas:
        """Returns a view with its own origin and unit that paints on the same pixels.

        Args:
            x: The view's origin, in this canvas's units.
            y: The view's origin, in this canvas's units.
            scale: The view's unit, in this canvas's units.
            mirror: Whether the view is flipped left to right.
        """
        view = object.__new__(Canvas)
        view.image, view.alpha = self.image, self.alpha
        view._half = self._half
        view._centre = (
            self._centre[0] + x * self._scale,
            self._centre[1] + y * abs(self._scale),
        )
        view._scale = self._scale * (-scale if mirror else scale)
        return view

    def _pixels(self, points: Points) -> NDArray[np.int32]:
        """Canvas units to OpenCV's fixed-point pixel coordinates."""
        scaled = np.asarray(points, np.float64) * (self._scale, abs(self._scale)) + self._centre
        return np.round(((scaled + 1) * self._half - 0.5) * (1 << _SHIFT)).astype(np.int32)

    def _length(self, units: float) -> float:
        return abs(units * self._scale) * self._half

    def outline(self, points: Points, colour: Colour) -> None:
        """Draws the sign's plate: makes the polygon opaque, fills the whole image with a colour."""
        self.image[:] = colour
        cv2.fillPoly(self.alpha, [self._pixels(points)], (255,), cv2.LINE_AA, _SHIFT)

    def polygon(self, points: Points, colour: Colour) -> None:
        """Fills a polygon."""
        cv2.fillPoly(self.image, [self._pixels(points)], colour, cv2.LINE_AA, _SHIFT)

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """Fills a disc."""
        self.polygon(arc(x, y, radius, radius, 0, 360, 48), colour)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        """Fills a rectangle."""
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)

    def stroke(self, points: Points, width: float, colour: Colour) -> None:
        """Draws an open polyline with round ends, `width` canvas units wide."""
        thickness = max(1, round(self._length(width)))
        pixels = [self._pixels(points)]
        cv2.polylines(self.image, pixels, False, colour, thickness, cv2.LINE_AA, _SHIFT)

    def stamp(self, mask: Pixels, box: tuple[float, float, float, float], colour: Colour) -> None:
        """Paints a colour through a grey mask, stretched to the box (x0, y0, x1, y1)."""
        corners = self._pixels([box[:2], box[2:]]) / (1 << _SHIFT)
        (x0, y0), (x1, y1) = np.round(corners).astype(int)
        size = self.image.shape[0]
        if x1 <= x0 or y1 <= y0 or x0 < 0 or y0 < 0 or x1 > size or y1 > size:
            return
        scaled = cv2.resize(mask, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
        weight = scaled[..., None].astype(np.float32) / 255
        region = self.image[y0:y1, x0:x1]
        region[:] = region * (1 - weight) + np.array(colour, np.float32) * weight


def arc(
    x: float, y: float, rx: float, ry: float, start: float, end: float, n: int = 14
) -> list[Point]:
    """Points on an ellipse, from `start` to `end` degrees, clockwise on the screen from +x."""
    angles = np.radians(np.linspace(start, end, n))
    return [(x + rx * float(np.cos(a)), y + ry * float(np.sin(a))) for a in angles]


def rounded(corners: Points, radius: float) -> list[Point]:
    """A polygon with its corners replaced by smooth curves that start `radius` away from them."""
    points: list[Point] = []
    array = np.asarray(corners, np.float64)
    for before, corner, after in zip(
        np.roll(array, 1, 0), array, np.roll(array, -1, 0), strict=True
    ):
        start = corner + (before - corner) * min(0.5, radius / np.hypot(*(before - corner)))
        end = corner + (after - corner) * min(0.5, radius / np.hypot(*(after - corner)))
        for t in np.linspace(0, 1, 6):
            x, y = (1 - t) ** 2 * start + 2 * t * (1 - t) * corner + t**2 * end
            points.append((float(x), float(y)))
    return points


_OVAL = [*arc(0, -0.2, 0.28, 0.3, 180, 360), *arc(0, 0.2, 0.28, 0.3, 0, 180), (-0.28, -0.2)]

# Strokes in a box 0.6 wide and 1 high around the origin, y down.
_STROKES: dict[str, list[list[Point]]] = {
    "0": [_OVAL],
    "1": [[(-0.2, -0.3), (0.06, -0.5), (0.06, 0.5)]],
    "2": [[*arc(0, -0.22, 0.27, 0.28, 195, 390), (-0.28, 0.5), (0.29, 0.5)]],
    "3": [[*arc(-0.02, -0.25, 0.27, 0.25, 200, 450), *arc(-0.02, 0.22, 0.3, 0.28, 275, 515)]],
    "4": [[(0.05, -0.5), (-0.29, 0.22), (0.3, 0.22)], [(0.14, -0.1), (0.14, 0.5)]],
    "5": [[(0.24, -0.5), (-0.19, -0.5), (-0.23, -0.05), *arc(0, 0.18, 0.29, 0.32, 225, 515)]],
    "6": [[(0.12, -0.5), *arc(0, 0.2, 0.28, 0.3, 200, 180, 2), *arc(0, 0.2, 0.28, 0.3, 180, 545)]],
    "7": [[(-0.28, -0.5), (0.28, -0.5), (-0.08, 0.5)]],
    "8": [arc(0, -0.26, 0.24, 0.24, 0, 365, 24), arc(0, 0.22, 0.29, 0.28, 0, 365, 24)],
    "9": [[*arc(0, -0.2, 0.28, 0.3, 0, 365), *arc(0, -0.2, 0.28, 0.3, 0, 20, 2), (-0.12, 0.5)]],
    "O": [_OVAL],
    "P": [
        [(-0.24, 0.5), (-0.24, -0.5), (0, -0.5), *arc(0, -0.22, 0.27, 0.28, 270, 450), (-0.2, 0.06)]
    ],
    "S": [[*arc(0, -0.25, 0.26, 0.25, 335, 90), *arc(0, 0.25, 0.27, 0.25, 270, 515)]],
    "T": [[(-0.3, -0.5), (0.3, -0.5)], [(0, -0.5), (0, 0.5)]],
}

FONTS = ("DejaVuSans-Bold.ttf", "DejaVuSans.ttf", "DejaVuSansMono-Bold.ttf")


@lru_cache(maxsize=1024)
def text_mask(text: str, font: str) -> Pixels:
    """Text as a greyscale mask, about 96 pixels high, cropped to the text.

    Args:
        text: One line.
        font: One of `FONTS`.
    """
    import matplotlib  # slow import; only the path of its fonts is needed

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / font
    face = ImageFont.truetype(str(path), 96)
    left, top, right, bottom = (int(v) for v in face.getbbox(text))
    image = Image.new("L", (right - left + 8, bottom - top + 8))
    ImageDraw.Draw(image).text((4 - left, 4 - top), text, font=face, fill=255)
    ink = image.getbbox()
    return np.asarray(image.crop(ink) if ink else image).copy()


def write_strokes(
    canvas: Canvas, text: str, width: float, height: float, weight: float, colour: Colour
) -> None:
    """Writes in the round-stroke lettering, centred on the canvas's origin.

    Args:
        canvas: Where to draw.
        text: Digits and the letters of STOP.
        width: Width of the whole text, in canvas units.
        height: Height of a letter, in canvas units.
        weight: Width of the strokes, in canvas units.
        colour: RGB.
    """
    pitch = width / len(text)
    glyph = pitch - weight * 1.35  # between the middles of the outer strokes
    for i, letter in enumerate(text):
        x = (i - (len(text) - 1) / 2) * pitch
        for line in _STROKES[letter]:
            points = [(x + px / 0.6 * glyph, py * (height - weight)) for px, py in line]
            canvas.stroke(points, weight, colour)


def write_font(
    canvas: Canvas, text: str, width: float, height: float, font: str, colour: Colour
) -> None:
    """Writes in a font, stretched to `width` x `height`, centred on the canvas's origin."""
    box = (-width / 2, -height / 2, width / 2, height / 2)
    canvas.stamp(text_mask(text, font), box, colour)
