"""The pictograms inside warning, prohibition and mandatory signs.

Each function draws around the origin of its canvas view, within about -1..1, in one colour unless
stated otherwise. Signs of different manufacturers differ, so proportions vary with `rng`.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator

from synthetic.glyphs import Canvas, Colour, Points, arc


def arrow(canvas: Canvas, path: Points, width: float, head: float, colour: Colour) -> None:
    """Draws a line of `width` that ends in an arrow head `head` wide at the path's last point."""
    points = np.asarray(path, np.float64)
    tip = points[-1]
    along = tip - points[-2]
    along = along / np.hypot(*along)
    across = np.array([-along[1], along[0]])
    length = head * 0.62
    base = tip - along * length
    canvas.stroke([*map(tuple, points[:-1]), tuple(base + along * 0.05)], width, colour)
    corners = [tip, base + across * head / 2, base - across * head / 2]
    canvas.polygon([tuple(corner) for corner in corners], colour)


def open_arrow(canvas: Canvas, path: Points, width: float, head: float, colour: Colour) -> None:
    """Draws an arrow whose head is two strokes, as on most mandatory signs."""
    points = np.asarray(path, np.float64)
    tip = points[-1]
    along = tip - points[-2]
    along = along / np.hypot(*along)
    across = np.array([-along[1], along[0]])
    canvas.stroke([tuple(p) for p in points], width, colour)
    wings = [tip - along * head * 0.55 + across * head / 2 * side for side in (-1, 1)]
    canvas.stroke([tuple(wings[0]), tuple(tip), tuple(wings[1])], width * 0.92, colour)


def exclamation(canvas: Canvas, rng: Generator, ink: Colour) -> None:
    """An exclamation mark."""
    top, foot = rng.uniform(0.14, 0.2), rng.uniform(0.07, 0.11)
    canvas.polygon([(-top, -0.8), (top, -0.8), (foot, 0.12), (-foot, 0.12)], ink)
    canvas.disc(0, -0.8, top, ink)
    canvas.disc(0, 0.4, rng.uniform(0.12, 0.17), ink)


def crossroads(canvas: Canvas, rng: Generator, ink: Colour) -> None:
    """A thick arrow upwards over a thin bar: right of way at the next crossing."""
    w, bar = rng.uniform(0.13, 0.26), rng.uniform(0.07, 0.14)
    canvas.polygon([(-w, 0.6), (0, 0.5), (w, 0.6), (w, -0.4), (-w, -0.4)], ink)
    shoulder = w + rng.uniform(0.02, 0.16)
    canvas.polygon([(-shoulder, -0.36), (0, -0.86), (shoulder, -0.36)], ink)
    reach, y = rng.uniform(0.38, 0.58), rng.uniform(-0.1, 0.16)
    canvas.box(-reach, y - bar, reach, y + bar, ink)


def bumps(canvas: Canvas, rng: Generator, ink: Colour) -> None:
    """Two humps on a road."""
    height, radius = rng.uniform(0.28, 0.4), rng.uniform(0.26, 0.33)
    ground = 0.5
    canvas.box(-0.88, ground - 0.1, 0.88, ground, ink)
    for x in (-0.38, 0.38):
        hump = arc(x, ground - 0.08, radius, height, 180, 360)
        canvas.polygon([(x - radius - 0.12, ground - 0.05), *hump, (x + radius + 0.12, 0.46)], ink)


def skidding_car(canvas: Canvas, rng: Generator, ink: Colour) -> None:
    """A small tilted car from behind over two wavy tracks that cross."""
    x, y, scale = rng.uniform(-0.1, 0.12), rng.uniform(-0.26, 0.0), rng.uniform(0.75, 1.05)
    tilt = np.radians(rng.uniform(4, 24))

    def turned(points: Points) -> Points:
        c, s = float(np.cos(tilt)) * scale, float(np.sin(tilt)) * scale
        return [(x + px * c - py * s, y + px * s + py * c) for px, py in points]

    canvas.polygon(turned([(-0.42, 0.17), (-0.44, -0.05), (0.44, -0.05), (0.42, 0.17)]), ink)
    roof = turned([(-0.36, 0.0), (-0.24, -0.26), (0.24, -0.26), (0.36, 0.0)])
    canvas.stroke(roof, 0.09, ink)
    if rng.random() < 0.3:
        canvas.polygon(roof, ink)
    for side in (-1, 1):
        canvas.stroke(turned([(side * 0.3, 0.16), (side * 0.3, 0.27)]), 0.13, ink)
    t = np.linspace(0, 1, 18)
    wave, drift, drop = rng.uniform(0.1, 0.22), rng.uniform(0.0, 0.5), rng.uniform(0.2, 0.36)
    for side in (-1, 1):
        xs = x + side * (0.3 - 0.1 * t) + wave * side * np.sin(t * 2 * np.pi) + drift * t**2
        canvas.stroke(list(zip(xs, y + 0.3 + drop * t, strict=True)), 0.065, ink)


def worker(canvas: Canvas, rng: Generator, ink: Colour) -> None:
    """A man with a shovel at a heap."""
    limb, x = rng.uniform(0.13, 0.18), rng.uniform(-0.06, 0.06)
    canvas.disc(x - 0.06, -0.68, 0.14, ink)
    canvas.polygon([(x - 0.26, -0.5), (x - 0.02, -0.52), (x - 0.1, 0.06), (x - 0.42, 0.04)], ink)
    canvas.stroke([(x - 0.34, 0.0), (x - 0.42, 0.3), (x - 0.56, 0.54)], limb, ink)
    canvas.stroke([(x - 0.22, 0.0), (x - 0.06, 0.26), (x - 0.08, 0.54)], limb, ink)
    canvas.stroke([(x - 0.1, -0.42), (x + 0.12, -0.12), (x - 0.1, 0.0)], limb * 0.75, ink)
    canvas.stroke([(x - 0.24, -0.22), (x + 0.5, 0.34)], 0.07, ink)
    top = rng.uniform(0.02, 0.16)
    canvas.polygon([(0.02, 0.58), (0.34, top + 0.06), (0.5, top), (0.86, 0.58)], ink)


def traffic_light(canvas: Canvas, rng: Generator, inks: tuple[Colour, Colour, Colour]) -> None:
    """Three discs, red over yellow over green; some makers outline them."""
    pitch, radius = rng.uniform(0.38, 0.46), rng.uniform(0.15, 0.21)
    boxed = rng.random() < 0.08
    if boxed:
        canvas.box(-0.23, -0.8, 0.23, 0.55, (30, 30, 30))
    for i, ink in enumerate(inks):
        y = -0.12 + (i - 1) * pitch
        if not boxed and rng.random() < 0.6:
            canvas.disc(0, y, radius + 0.03, (40, 40, 40))
        canvas.disc(0, y, radius, ink)


def _runner(canvas: Canvas, rng: Generator, height: float, ink: Colour) -> None:
    """A figure running to the left, feet at y = 0, `height` tall."""
    limb = height * rng.uniform(0.075, 0.11)
    lean = height * rng.uniform(0.04, 0.14)
    hip, neck = -height * 0.45, -height * 0.78
    canvas.disc(-lean * 1.4, -height * 0.9, height * 0.1, ink)
    canvas.stroke([(-lean, neck), (0, hip)], limb * 1.7, ink)
    canvas.stroke(
        [(0, hip), (-height * 0.2, hip * 0.6), (-height * rng.uniform(0.16, 0.3), 0)], limb, ink
    )
    canvas.stroke(
        [(0, hip), (height * 0.1, hip * 0.5), (height * rng.uniform(0.25, 0.36), hip * 0.2)],
        limb,
        ink,
    )
    arm = rng.uniform(0.12, 0.3) * height
    canvas.stroke(
        [(-lean, neck), (-arm, neck + 0.16 * height), (-arm * 1.5, neck)], limb * 0.8, ink
    )
    canvas.stroke([(-lean, neck), (arm, neck + 0.14 * height)], limb * 0.8, ink)


def children(canvas: Canvas, rng: Generator, ink: Colour) -> None:
    """A small and a tall child running side by side."""
    _runner(canvas.at(-0.38, 0.54, 1), rng, rng.uniform(0.7, 0.88), ink)
    _runner(canvas.at(0.28, 0.54, 1), rng, rng.uniform(1.0, 1.2), ink)


def pedestrian(canvas: Canvas, rng: Generator, ink: Colour) -> None:
    """One walker, mostly with the bars of a crossing under the feet."""
    if rng.random() < 0.7:
        for x in np.linspace(-0.7, 0.55, 5):
            slant = x * 0.35
            canvas.polygon(
                [(x, 0.58), (x - slant, 0.3), (x - slant + 0.12, 0.3), (x + 0.16, 0.58)], ink
            )
    canvas.disc(0.0, -0.72, 0.13, ink)
    canvas.stroke([(0.0, -0.5), (0.02, -0.1)], 0.25, ink)
    canvas.stroke([(0.0, -0.1), (-0.14, 0.16), (-0.3, 0.46)], 0.14, ink)
    canvas.stroke([(0.04, -0.1), (0.16, 0.16), (0.3, 0.42)], 0.14, ink)
    canvas.stroke([(-0.04, -0.46), (-0.26, -0.2), (-0.34, -0.04)], 0.09, ink)
    canvas.stroke([(0.06, -0.46), (0.26, -0.22), (0.32, -0.06)], 0.09, ink)


def bend(canvas: Canvas, rng: Generator, ink: Colour) -> None:
    """A bent arrow to the left."""
    x = rng.uniform(0.14, 0.26)
    path = [(x, 0.58), (x, 0.3), *arc(x - 0.34, 0.1, 0.34, 0.34, 0, -55, 6), (-0.42, -0.5)]
    arrow(canvas, path, rng.uniform(0.2, 0.26), rng.uniform(0.48, 0.6), ink)


def car(canvas: Canvas, rng: Generator, ink: Colour, glass: Colour) -> None:
    """A car from the front or back."""
    w = rng.uniform(0.86, 1.0)
    canvas.polygon([(-w, 0.28), (-w, -0.06), (-w * 0.9, -0.1), (w * 0.9, -0.1), (w, 0.28)], ink)
    canvas.polygon([(-w, 0.28), (-w, -0.06), (w, -0.06), (w, 0.28)], ink)
    canvas.polygon(
        [(-w * 0.8, -0.08), (-w * 0.58, -0.58), (w * 0.58, -0.58), (w * 0.8, -0.08)], ink
    )
    canvas.polygon(
        [(-w * 0.6, -0.1), (-w * 0.46, -0.46), (w * 0.46, -0.46), (w * 0.6, -0.1)], glass
    )
    for side in (-1, 1):
        x = side * w * 0.74
        canvas.box(min(x, x - side * 0.26), 0.24, max(x, x - side * 0.26), 0.52, ink)


def truck(canvas: Canvas, ink: Colour, glass: Colour) -> None:
    """A lorry from the back: a high box with wheels."""
    canvas.box(-0.95, -1.25, 0.95, 0.3, ink)
    canvas.stroke([(-0.7, -1.0), (0.7, -1.0)], 0.08, glass)
    for x in (-0.7, 0.35):
        canvas.box(x, 0.25, x + 0.35, 0.6, ink)


def roundabout(canvas: Canvas, rng: Generator, ink: Colour) -> None:
    """Three arrows chasing each other counter-clockwise."""
    radius, start = rng.uniform(0.44, 0.52), rng.uniform(-12, 12)
    for i in range(3):
        a = start + 120 * i
        arrow(canvas, arc(0, 0, radius, radius, a + 92, a, 12), 0.17, 0.42, ink)


def slashes(canvas: Canvas, rng: Generator, ink: Colour) -> None:
    """The four or five thin diagonal lines that end restrictions."""
    n = int(rng.integers(4, 6))
    for offset in np.linspace(-0.22, 0.22, n):
        reach = 0.72
        canvas.stroke(
            [(-reach + offset, reach + offset), (reach + offset, -reach + offset)], 0.05, ink
        )


def blurred_edge(canvas: Canvas, sigma: float) -> None:
    """Softens the drawing a little: printed and weathered edges are never razor sharp."""
    cv2.GaussianBlur(canvas.image, (0, 0), sigma, dst=canvas.image)
