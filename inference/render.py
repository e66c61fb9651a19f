"""Drawing of predictions on their image."""

from __future__ import annotations

import colorsys
import contextlib
import importlib.util
import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from errors import ValidationFailed
from formats.geometry import fill_parts
from inference.images import Pixels
from inference.prediction import KEYPOINT_SEEN, DrawnFormat, Prediction

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

QUALITY = 90
LONGEST: dict[DrawnFormat, int] = {"JPEG": 65_500, "WEBP": 16_383, "PNG": 2**31 - 1}
"""Most pixels along a side of an image of each format, in the libraries that Pillow uses."""
OPTIONS: dict[DrawnFormat, dict[str, int]] = {
    "JPEG": {"quality": QUALITY},
    "WEBP": {"quality": QUALITY, "method": 2},  # the default, 4, takes twice as long
    "PNG": {"compress_level": 1},  # the default, 6, takes several times as long
}
MASK_OPACITY = 0.4
_FONTS = (  # fonts for many scripts; Pillow searches the system's font folders
    "NotoSansCJK-Regular.ttc",
    "NotoSansSC-Regular.otf",
    "wqy-zenhei.ttc",
    "msyh.ttc",
    "PingFang.ttc",
    "Arial Unicode.ttf",
)


def check_drawable(width: int, height: int, form: DrawnFormat = "JPEG") -> None:
    """Check that an image can be answered in a format.

    Raises:
        ValidationFailed: A side is longer than the format allows.
    """
    if max(width, height) > LONGEST[form]:
        raise ValidationFailed(
            f"Nothing can be drawn on an image of {width} × {height} pixels: the result is a "
            f"{form}, which has at most {LONGEST[form]} pixels along a side. Ask for the "
            "predictions without the drawn image, or send the image scaled down or in parts."
        )


def draw(pixels: Pixels, prediction: Prediction, form: DrawnFormat = "JPEG") -> bytes:
    """A file of what `drawn` draws.

    Raises:
        ValidationFailed: As `check_drawable`.
    """
    check_drawable(pixels.shape[1], pixels.shape[0], form)
    buffer = io.BytesIO()
    drawn(pixels, prediction).save(buffer, form, **OPTIONS[form])
    return buffer.getvalue()


def drawn(pixels: Pixels, prediction: Prediction, scored: bool = True) -> Image.Image:
    """The image (h, w, 3) with boxes, labels, outlines, keypoints or classes.

    `scored`: whether labels show the score (False for annotations, which have none).
    """
    image = Image.fromarray(pixels)
    if prediction.polygons is not None:
        image = _fill_masks(image, prediction)
    canvas = ImageDraw.Draw(image)
    side = min(image.size) if min(image.size) * 4 > max(image.size) else max(image.size) // 4
    line = max(1, round(side / 250))
    font = _font("".join(prediction.names), max(10, round(side / 36)))
    if prediction.task == "classify":
        _draw_classes(canvas, prediction, font, scored)
    # the highest score last, so that it is on top of the others
    for i in reversed(range(len(prediction.boxes))):
        colour = class_colour(int(prediction.class_ids[i]))
        if prediction.keypoints is not None:
            for x, y, certainty in prediction.keypoints[i].tolist():
                if certainty >= KEYPOINT_SEEN:
                    canvas.circle((x, y), 1.5 * line + 1, fill=colour, outline="white")
        if prediction.polygons is not None:
            for part in prediction.outlines(i):
                for ring in (part.outer, *part.holes):
                    points = [tuple(point) for point in ring.tolist()]
                    canvas.polygon(points, outline=colour, width=line)
        x1, y1, x2, y2 = prediction.boxes[i].tolist()
        canvas.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=line)
        _draw_label(canvas, (x1, y1), _caption(prediction, i, scored), colour, font)
    return image


@lru_cache(maxsize=64)
def _font(text: str, size: int) -> Font:
    """Pillow's built-in font for Latin letters, else a font of the system that has more scripts."""
    if all(ord(letter) < 0x250 for letter in text):
        return ImageFont.load_default(size)
    for name in _FONTS:
        with contextlib.suppress(OSError):
            return ImageFont.truetype(name, size)
    matplotlib = importlib.util.find_spec("matplotlib")  # comes with Ultralytics
    for root in (matplotlib.submodule_search_locations or []) if matplotlib else []:
        with contextlib.suppress(OSError):  # Cyrillic, Greek, Arabic; no Chinese
            return ImageFont.truetype(f"{root}/mpl-data/fonts/ttf/DejaVuSans.ttf", size)
    return ImageFont.load_default(size)


def class_colour(class_id: int) -> Colour:
    """A saturated colour; consecutive ids have very different hues (golden ratio)."""
    hue = (0.02 + class_id * 0.618034) % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 0.9 if class_id % 2 else 0.7)
    return round(red * 255), round(green * 255), round(blue * 255)


def _caption(prediction: Prediction, i: int, scored: bool) -> str:
    name = prediction.names[prediction.class_ids[i]]
    return f"{name} {prediction.scores[i]:.2f}" if scored else name


def _fill_masks(image: Image.Image, prediction: Prediction) -> Image.Image:
    veil = image.copy()
    for i, class_id in enumerate(prediction.class_ids):
        parts = prediction.outlines(i)
        if any(part.holes for part in parts):
            stencil = Image.fromarray(fill_parts(parts, *image.size))
            veil.paste(class_colour(int(class_id)), mask=stencil)
            continue
        canvas = ImageDraw.Draw(veil)
        for part in parts:
            points = [tuple(point) for point in part.outer.tolist()]
            canvas.polygon(points, fill=class_colour(int(class_id)))
    return Image.blend(image, veil, MASK_OPACITY)


def _draw_label(
    canvas: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    text: str,
    colour: Colour,
    font: Font,
    above: bool = True,
) -> float:
    """Draw text on a rectangle of `colour`, above or below `corner`, never outside the image.

    Returns the y coordinate of the rectangle's lower edge.
    """
    left, top, right, bottom = canvas.textbbox((0, 0), text, font=font)
    width, height = right - left + 4, bottom - top + 4
    limits = canvas.im.size
    x = max(0, min(corner[0], limits[0] - width))
    y = corner[1] - height if above and corner[1] >= height else corner[1]
    y = max(0, min(y, limits[1] - height))
    canvas.rectangle((x, y, x + width, y + height), fill=colour)
    luminance = np.dot(colour, (0.299, 0.587, 0.114))
    ink = "black" if luminance > 150 else "white"
    canvas.text((x + 2 - left, y + 2 - top), text, fill=ink, font=font)
    return y + height


def _draw_classes(
    canvas: ImageDraw.ImageDraw, prediction: Prediction, font: Font, scored: bool
) -> None:
    """Draw the classes as a list in the upper left corner, by descending score."""
    y = 0.0
    for i, class_id in enumerate(prediction.class_ids):
        colour = class_colour(int(class_id))
        text = _caption(prediction, i, scored)
        y = _draw_label(canvas, (0, y), text, colour, font, above=False)
