"""Drawn distractors: street objects that resemble traffic signs but belong to no class."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from synthetic.backgrounds import put_text

Pixels = NDArray[np.uint8]
Rgb = tuple[int, int, int]

_SIGNAL: tuple[Rgb, ...] = (
    (190, 25, 35), (25, 85, 175), (245, 175, 25), (30, 130, 80), (235, 235, 235), (25, 25, 28),
    (225, 105, 30), (150, 150, 150), (90, 60, 40),
)  # fmt: skip


def _paint(rng: Generator) -> Rgb:
    base = _SIGNAL[rng.integers(len(_SIGNAL))]
    r, g, b = np.clip(np.array(base) + rng.normal(0, 18, 3), 0, 255).astype(int)
    return int(r), int(g), int(b)


def _plate(rng: Generator, image: Pixels, x: int, y: int, size: int) -> None:
    """A rectangle with text: supplementary plate, direction sign, billboard, number plate."""
    w, h = int(size * rng.uniform(0.6, 1.8)), max(5, int(size * rng.uniform(0.25, 0.7)))
    height, width = image.shape[:2]
    x0, y0, x1, y1 = max(0, x), max(0, y), min(width, x + w), min(height, y + h)
    if x1 - x0 < 5 or y1 - y0 < 5:
        return
    ground, ink = _paint(rng), _paint(rng)
    cv2.rectangle(image, (x0, y0), (x1 - 1, y1 - 1), ground, -1)
    if rng.random() < 0.6:
        cv2.rectangle(image, (x0, y0), (x1 - 1, y1 - 1), ink, max(1, h // 20))
    if rng.random() < 0.8:
        m = max(1, h // 6)
        put_text(image, rng, (x0 + m, y0 + m, x1 - m, y1 - m), ink)


def _shape(rng: Generator, image: Pixels, x: int, y: int, size: int) -> None:
    """A blank disc, ring, triangle, octagon or diamond: the back of a sign, a ball, a logo."""
    r = size / 2
    sides = int(rng.choice((3, 4, 5, 6, 8, 40)))
    turn = rng.uniform(0, 2 * np.pi)
    angles = turn + np.arange(sides) * 2 * np.pi / sides
    ring = np.stack([np.cos(angles), np.sin(angles) * rng.uniform(0.6, 1.0)], 1)
    centre = np.array([x + r, y + r])
    first = _paint(rng)
    if sides in (8, 40) or rng.random() < 0.4:
        grey = int(rng.uniform(60, 190))
        first = (grey, grey, grey) if rng.random() < 0.6 else first
    cv2.fillPoly(image, [(centre + ring * r).astype(np.int32)], first, cv2.LINE_AA)
    if rng.random() < 0.3 and first[0] < 150:
        inner = (centre + ring * r * rng.uniform(0.3, 0.9)).astype(np.int32)
        cv2.fillPoly(image, [inner], _paint(rng), cv2.LINE_AA)


def _signal(rng: Generator, image: Pixels, x: int, y: int, size: int) -> None:
    """A traffic light with one lamp lit."""
    w, h = max(4, size // 2), max(10, int(size * 1.25))
    lit = int(rng.integers(0, 3))
    cv2.rectangle(image, (x, y), (x + w, y + h), (25, 28, 26), -1)
    lamps: tuple[Rgb, ...] = ((235, 40, 40), (250, 190, 40), (40, 220, 130))
    for i, lamp in enumerate(lamps):
        centre = (x + w // 2, y + int(h * (i + 0.5) / 3))
        colour = lamp if i == lit else tuple(c // 5 for c in lamp)
        cv2.circle(image, centre, max(1, int(w * 0.36)), colour, -1, cv2.LINE_AA)


def _blue_square(rng: Generator, image: Pixels, x: int, y: int, size: int) -> None:
    """A zebra-crossing, parking or hospital sign: a blue square with something white."""
    blue = (int(rng.integers(15, 50)), int(rng.integers(70, 130)), int(rng.integers(150, 225)))
    cv2.rectangle(image, (x, y), (x + size, y + size), blue, -1)
    white = (232, 232, 232)
    cv2.rectangle(image, (x, y), (x + size, y + size), white, max(1, size // 24))
    m = size // 6
    if rng.random() < 0.6:
        apex = [(x + size // 2, y + m), (x + size - m, y + size - m), (x + m, y + size - m)]
        cv2.fillPoly(image, [np.array(apex, np.int32)], white, cv2.LINE_AA)
        for dx, dy in ((0.0, 0.0), (-0.1, 0.22), (0.1, 0.22), (-0.09, 0.1), (0.09, 0.1)):
            start = (x + size // 2, y + int(size * 0.5))
            end = (x + int(size * (0.5 + dx)), y + int(size * (0.55 + dy)))
            cv2.line(image, start, end, (20, 20, 20), max(1, size // 16), cv2.LINE_AA)
    else:
        height, width = image.shape[:2]
        box = (max(0, x + m), max(0, y + m), min(width, x + size - m), min(height, y + size - m))
        put_text(image, rng, box, white)


def _no_stopping(rng: Generator, image: Pixels, x: int, y: int, size: int) -> None:
    """The blue disc with a red ring and cross, which is not among the classes."""
    r = size // 2
    centre = (x + r, y + r)
    red = (200, 30, 40)
    cv2.circle(image, centre, r, red, -1, cv2.LINE_AA)
    cv2.circle(image, centre, int(r * 0.8), (25, 75, 165), -1, cv2.LINE_AA)
    d, thick = int(r * 0.6), max(1, r // 5)
    cv2.line(image, (x + r - d, y + r - d), (x + r + d, y + r + d), red, thick, cv2.LINE_AA)
    if rng.random() < 0.6:
        cv2.line(image, (x + r + d, y + r - d), (x + r - d, y + r + d), red, thick, cv2.LINE_AA)


def _car(rng: Generator, image: Pixels, x: int, y: int, size: int) -> None:
    """A car from behind with red lights and a number plate."""
    w, h = size * 2, int(size * 1.2)
    body = _paint(rng)
    cv2.rectangle(image, (x + w // 6, y), (x + w * 5 // 6, y + h // 2), (30, 35, 40), -1)
    cv2.rectangle(image, (x, y + h // 3), (x + w, y + h), body, -1)
    for side in (x + w // 10, x + w * 9 // 10):
        cv2.circle(image, (side, y + h // 2), max(1, size // 9), (210, 20, 25), -1, cv2.LINE_AA)
        foot = (min(side, x + w * 8 // 10), y + h)
        cv2.circle(image, foot, max(1, size // 5), (20, 20, 20), -1, cv2.LINE_AA)
    height, width = image.shape[:2]
    plate = (x + w // 3, y + h * 2 // 3, x + w * 2 // 3, y + h * 5 // 6)
    if plate[0] >= 0 and plate[1] >= 0 and plate[2] <= width and plate[3] <= height:
        cv2.rectangle(image, plate[:2], plate[2:], (230, 230, 230), -1)
        put_text(image, rng, plate, (30, 30, 30))


def _lamp(rng: Generator, image: Pixels, x: int, y: int, size: int) -> None:
    """A glowing light with a halo."""
    r = max(2, size // 4)
    glow = np.zeros_like(image)
    colour = _paint(rng) if rng.random() < 0.4 else (255, 235, 190)
    cv2.circle(glow, (x, y), r, colour, -1, cv2.LINE_AA)
    cv2.GaussianBlur(glow, (0, 0), max(1.0, r * 0.7), dst=glow)
    cv2.add(image, glow, dst=image)
    cv2.circle(image, (x, y), max(1, r // 2), (255, 250, 240), -1, cv2.LINE_AA)


_KINDS: tuple[tuple[Callable[[Generator, Pixels, int, int, int], None], float], ...] = (
    (_plate, 0.28),
    (_shape, 0.24),
    (_signal, 0.12),
    (_blue_square, 0.13),
    (_no_stopping, 0.05),
    (_car, 0.1),
    (_lamp, 0.08),
)
_CHANCES = np.array([chance for _, chance in _KINDS])


def draw_distractor(rng: Generator, image: Pixels, size: int) -> None:
    """Draws one thing that is not a sign of any class, somewhere on the image, in place.

    Args:
        rng: Source of all variation.
        image: RGB, uint8, (H, W, 3).
        size: About how large, in pixels.
    """
    height, width = image.shape[:2]
    x, y = int(rng.uniform(-0.1, 0.95) * width), int(rng.uniform(-0.1, 0.95) * height)
    kind = int(rng.choice(len(_KINDS), p=_CHANCES / _CHANCES.sum()))
    _KINDS[kind][0](rng, image, x, y, size)


def draw_pole(
    rng: Generator, image: Pixels, x: float, top: float, thickness: float, foot: float
) -> None:
    """Draws an upright pole from `top` to `foot` (pixels), lit from one side, in place."""
    grey = int(rng.uniform(40, 200))
    lean = rng.normal(0, 0.01) * (foot - top)
    ends = (int(x), int(top)), (int(x + lean), int(foot))
    thick = max(1, round(thickness))
    cv2.line(image, *ends, (grey, grey, grey), thick, cv2.LINE_AA)
    if thick >= 4:
        shade = int(grey * 0.6)
        side = thick // 3
        cv2.line(
            image,
            (ends[0][0] + side, ends[0][1]),
            (ends[1][0] + side, ends[1][1]),
            (shade, shade, shade),
            max(1, thick // 3),
            cv2.LINE_AA,
        )
