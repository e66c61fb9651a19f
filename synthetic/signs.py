"""Drawn faces of German traffic signs, made without photographs.

`draw_face` returns one sign, seen from straight ahead, as an RGBA square; `synthetic.scenes` places
it on a background and simulates the camera.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from synthetic import pictograms
from synthetic.glyphs import FONTS, Canvas, Colour, Point, arc, rounded, write_font, write_strokes


@dataclass(frozen=True)
class Palette:
    """The colours of one sign, RGB 0-255. They vary between manufacturers, and fade."""

    red: Colour
    white: Colour
    black: Colour
    blue: Colour
    yellow: Colour
    green: Colour

    @classmethod
    def mix(cls, rng: Generator) -> Palette:
        """A random palette: signal colours with small variations, sometimes faded."""
        fade = rng.uniform(0.15, 0.5) if rng.random() < 0.2 else rng.uniform(0, 0.12)

        def paint(r: float, g: float, b: float, drift: float) -> Colour:
            colour = np.array([r, g, b]) + rng.normal(0, drift, 3)
            colour = np.clip(colour * (1 - fade) + 205 * fade, 0, 255)
            return int(colour[0]), int(colour[1]), int(colour[2])

        blue = (20, 80, 175) if rng.random() < 0.7 else (45, 130, 225)
        return cls(
            red=paint(188, 22, 34, 14),
            white=paint(232, 232, 230, 9),
            black=paint(24, 24, 26, 8),
            blue=paint(*blue, 12),
            yellow=paint(246, 172, 22, 14),
            green=paint(20, 125, 95, 18),
        )


Draw = Callable[[Canvas, Generator, Palette], None]


def _disc(radius: float) -> list[Point]:
    return arc(0, 0, radius, radius, 0, 360, 64)


def _prohibition(canvas: Canvas, rng: Generator, paint: Palette) -> None:
    """A white disc with a red ring."""
    canvas.outline(_disc(0.98), paint.white)
    canvas.disc(0, 0, 0.98 - rng.uniform(0.0, 0.05), paint.red)
    canvas.disc(0, 0, rng.uniform(0.70, 0.80), paint.white)


def _triangle(scale: float, radius: float, up: bool) -> list[Point]:
    """An equilateral triangle with round corners, scaled about its centroid."""
    sign = 1 if up else -1
    corners = [(0.0, -1.16), (1.0, 0.58), (-1.0, 0.58)]
    return [
        (x, sign * (y + 0.2))
        for x, y in rounded([(x * scale, y * scale) for x, y in corners], radius)
    ]


def _warning(canvas: Canvas, rng: Generator, paint: Palette) -> Canvas:
    """A white triangle with a red border.

    Returns a view of the canvas (see `Canvas.at`) in which to draw the pictogram.
    """
    corner = rng.uniform(0.12, 0.26)
    canvas.outline(_triangle(0.99, corner, True), paint.white)
    canvas.polygon(_triangle(rng.uniform(0.93, 0.98), corner, True), paint.red)
    inner = rng.uniform(0.64, 0.74)
    canvas.polygon(_triangle(inner, corner * rng.uniform(0.2, 0.7), True), paint.white)
    x, y = rng.normal(0, 0.015, 2)
    return canvas.at(x, 0.2 + y, inner * rng.uniform(0.76, 0.9))


def _mandatory(canvas: Canvas, rng: Generator, paint: Palette) -> Canvas:
    """A blue disc with a thin white rim.

    Returns a view of the canvas (see `Canvas.at`) in which to draw the arrows.
    """
    canvas.outline(_disc(0.98), paint.white)
    canvas.disc(0, 0, 0.98 - rng.uniform(0.02, 0.05), paint.blue)
    return canvas.at(0, 0, rng.uniform(0.85, 1.02))


def _speed_limit(canvas: Canvas, rng: Generator, paint: Palette, limit: str) -> None:
    _prohibition(canvas, rng, paint)
    height = rng.uniform(0.74, 0.92)
    width = rng.uniform(0.92, 1.14) if len(limit) == 2 else rng.uniform(1.1, 1.28)
    view = canvas.at(rng.normal(0, 0.02), rng.normal(0, 0.02), 1)
    if rng.random() < 0.72:
        weight = rng.uniform(0.085, 0.145) * (1 if len(limit) == 2 else 0.85)
        write_strokes(view, limit, width, height, weight, paint.black)
    else:
        write_font(view, limit, width * 0.95, height, FONTS[rng.integers(2)], paint.black)


def _no_passing(canvas: Canvas, rng: Generator, paint: Palette, trucks: bool) -> None:
    _prohibition(canvas, rng, paint)
    scale, gap = rng.uniform(0.26, 0.31), rng.uniform(0.31, 0.36)
    y = rng.uniform(0.0, 0.1)
    left = canvas.at(-gap, y, scale)
    if trucks:
        pictograms.truck(left, paint.red, paint.white)
    else:
        pictograms.car(left, rng, paint.red, paint.white)
    pictograms.car(canvas.at(gap, y, scale), rng, paint.black, paint.white)


def _priority_road(canvas: Canvas, rng: Generator, paint: Palette) -> None:
    def diamond(r: float, corner: float) -> list[Point]:
        return rounded([(0, -r), (r, 0), (0, r), (-r, 0)], corner)

    corner = rng.uniform(0.05, 0.2)
    canvas.outline(diamond(1.0, corner), paint.white)
    if rng.random() < 0.5:
        canvas.polygon(diamond(0.97, corner), paint.black)
        canvas.polygon(diamond(0.97 - rng.uniform(0.02, 0.05), corner), paint.white)
    inner = rng.uniform(0.52, 0.68)
    if rng.random() < 0.6:
        canvas.polygon(diamond(inner + rng.uniform(0.02, 0.05), 0.05), paint.black)
    canvas.polygon(diamond(inner, rng.uniform(0.02, 0.1)), paint.yellow)


def _yield(canvas: Canvas, rng: Generator, paint: Palette) -> None:
    corner = rng.uniform(0.1, 0.24)
    canvas.outline(_triangle(0.99, corner, False), paint.white)
    canvas.polygon(_triangle(rng.uniform(0.94, 0.98), corner, False), paint.red)
    canvas.polygon(_triangle(rng.uniform(0.58, 0.72), corner * 0.5, False), paint.white)


def _stop(canvas: Canvas, rng: Generator, paint: Palette) -> None:
    def octagon(r: float) -> list[Point]:
        return arc(0, 0, r, r, 22.5, 382.5, 9)[:-1]

    canvas.outline(octagon(1.04), paint.white)
    canvas.polygon(octagon(1.04 - rng.uniform(0.03, 0.1)), paint.red)
    height, width = rng.uniform(0.55, 0.78), rng.uniform(1.3, 1.6)
    view = canvas.at(rng.normal(0, 0.02), rng.normal(0, 0.02), 1)
    if rng.random() < 0.65:
        write_strokes(view, "STOP", width, height, rng.uniform(0.09, 0.15), paint.white)
    else:
        write_font(view, "STOP", width, height, FONTS[rng.integers(2)], paint.white)


def _no_entry(canvas: Canvas, rng: Generator, paint: Palette) -> None:
    canvas.outline(_disc(0.98), paint.white)
    canvas.disc(0, 0, 0.98 - rng.uniform(0.0, 0.05), paint.red)
    w, h = rng.uniform(0.68, 0.8), rng.uniform(0.13, 0.19)
    canvas.box(-w, -h, w, h, paint.white)


def _end_of_restrictions(canvas: Canvas, rng: Generator, paint: Palette) -> None:
    canvas.outline(_disc(0.98), paint.black if rng.random() < 0.4 else paint.white)
    canvas.disc(0, 0, 0.98 - rng.uniform(0.02, 0.06), paint.white)
    pictograms.slashes(canvas, rng, paint.black)


def _warn(
    canvas: Canvas,
    rng: Generator,
    paint: Palette,
    picture: Callable[[Canvas, Generator, Colour], None],
    mirror: bool = False,
) -> None:
    view = _warning(canvas, rng, paint)
    picture(view.at(0, 0, 1, mirror), rng, paint.black)


def _traffic_signals(canvas: Canvas, rng: Generator, paint: Palette) -> None:
    view = _warning(canvas, rng, paint)
    dim = rng.uniform(0.5, 1.0)  # the red disc is often nearly as dark as black
    red = int(paint.red[0] * dim), int(paint.red[1] * dim), int(paint.red[2] * dim)
    pictograms.traffic_light(view, rng, (red, paint.yellow, paint.green))


def _arrows(
    canvas: Canvas,
    rng: Generator,
    paint: Palette,
    paths: tuple[tuple[Point, ...], ...],
    mirror: bool = False,
) -> None:
    """A mandatory sign with one arrow per path; both kinds of arrow head occur."""
    view = _mandatory(canvas, rng, paint).at(0, 0, 1, mirror)
    width, head = rng.uniform(0.14, 0.22), rng.uniform(0.5, 0.68)
    draw = pictograms.open_arrow if rng.random() < 0.5 else pictograms.arrow
    shift = rng.normal(0, 0.025, 2)
    for path in paths:
        draw(view, [(x + shift[0], y + shift[1]) for x, y in path], width, head, paint.white)


def _roundabout(canvas: Canvas, rng: Generator, paint: Palette) -> None:
    pictograms.roundabout(_mandatory(canvas, rng, paint), rng, paint.white)


_AHEAD = ((0.0, 0.66), (0.0, -0.66))
_TURN = ((-0.32, 0.6), (-0.32, 0.1), *arc(-0.02, 0.1, 0.3, 0.3, 190, 270, 6), (0.6, -0.2))
_BRANCH = ((-0.12, 0.62), (-0.12, 0.3), *arc(0.1, 0.3, 0.22, 0.22, 190, 270, 5), (0.56, 0.08))
_FORK = ((-0.12, 0.62), (-0.12, -0.66))
_DOWN = ((-0.46, -0.46), (0.48, 0.48))

# Class names as in all responses, in order of the class ids of both starter models.
_FACES: dict[str, Draw] = {
    "speed limit 20": partial(_speed_limit, limit="20"),
    "speed limit 30": partial(_speed_limit, limit="30"),
    "speed limit 50": partial(_speed_limit, limit="50"),
    "speed limit 60": partial(_speed_limit, limit="60"),
    "speed limit 70": partial(_speed_limit, limit="70"),
    "speed limit 80": partial(_speed_limit, limit="80"),
    "speed limit 100": partial(_speed_limit, limit="100"),
    "speed limit 120": partial(_speed_limit, limit="120"),
    "no passing": partial(_no_passing, trucks=False),
    "no passing for trucks": partial(_no_passing, trucks=True),
    "right of way at next crossing": partial(_warn, picture=pictograms.crossroads),
    "priority road": _priority_road,
    "yield": _yield,
    "stop": _stop,
    "no vehicles": _prohibition,
    "no entry": _no_entry,
    "general caution": partial(_warn, picture=pictograms.exclamation),
    "dangerous curve left": partial(_warn, picture=pictograms.bend),
    "dangerous curve right": partial(_warn, picture=pictograms.bend, mirror=True),
    "bumpy road": partial(_warn, picture=pictograms.bumps),
    "slippery road": partial(_warn, picture=pictograms.skidding_car),
    "road work": partial(_warn, picture=pictograms.worker),
    "traffic signals": _traffic_signals,
    "pedestrians": partial(_warn, picture=pictograms.pedestrian),
    "children crossing": partial(_warn, picture=pictograms.children),
    "end of restrictions": _end_of_restrictions,
    "turn right ahead": partial(_arrows, paths=(_TURN,)),
    "turn left ahead": partial(_arrows, paths=(_TURN,), mirror=True),
    "ahead only": partial(_arrows, paths=(_AHEAD,)),
    "straight or right": partial(_arrows, paths=(_FORK, _BRANCH)),
    "straight or left": partial(_arrows, paths=(_FORK, _BRANCH), mirror=True),
    "keep right": partial(_arrows, paths=(_DOWN,)),
    "keep left": partial(_arrows, paths=(_DOWN,), mirror=True),
    "roundabout": _roundabout,
}

CLASS_NAMES: tuple[str, ...] = tuple(_FACES)


def draw_face(rng: Generator, class_id: int, size: int) -> NDArray[np.uint8]:
    """Draws one sign, seen from straight ahead and evenly lit.

    Args:
        rng: Source of all variation: paint, proportions, lettering.
        class_id: Index into `CLASS_NAMES`.
        size: Side of the square in pixels, at least 32.

    Returns:
        RGBA, uint8, (size, size, 4). Alpha is opaque on the plate of the sign, which nearly reaches
        the edges of the square.
    """
    canvas = Canvas(size)
    _FACES[CLASS_NAMES[class_id]](canvas, rng, Palette.mix(rng))
    return np.dstack([canvas.image, canvas.alpha])
