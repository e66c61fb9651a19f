"""Drawn backgrounds of traffic signs: skies, trees, walls, streets, clutter."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from synthetic.glyphs import FONTS, text_mask

Pixels = NDArray[np.uint8]

_WORDS = (
    "PARKING", "HOTEL", "Taxi", "BUS", "ZONE", "Mitte", "Nord", "A 7", "B 27", "SALE", "OPEN",
    "EXIT", "WEST", "Markt", "2 km", "100 m", "ALL WAY", "4-WAY", "frei", "KAFFEE", "12", "ONE WAY",
)  # fmt: skip


def noise(rng: Generator, width: int, height: int, cell: float, octaves: int = 3) -> NDArray:
    """Smooth random noise in 0..1, float32 (height, width); `cell`: coarsest structure, pixels."""
    field = np.zeros((height, width), np.float32)
    weight, total = 1.0, 0.0
    for _ in range(octaves):
        grid = (max(2, round(width / cell) + 1), max(2, round(height / cell) + 1))
        coarse = rng.random(grid[::-1], np.float32)
        field += weight * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        total += weight
        weight, cell = weight * 0.6, max(cell / 2.5, 1.0)
    return np.clip(field / total, 0, 1)


def _between(low: NDArray, high: NDArray, field: NDArray) -> Pixels:
    """Interpolates between two RGB colours by a field in 0..1."""
    mixed = low + (high - low) * field[..., None]
    return np.clip(mixed, 0, 255).astype(np.uint8)


def _colour(rng: Generator, low: int = 0, high: int = 256) -> tuple[int, int, int]:
    r, g, b = rng.integers(low, high, 3)
    return int(r), int(g), int(b)


def sky(rng: Generator, width: int, height: int) -> Pixels:
    """Sky with a vertical gradient and, mostly, clouds."""
    kind = rng.random()
    if kind < 0.4:
        top, foot = np.array([60, 120, 205.0]), np.array([170, 205, 240.0])
    elif kind < 0.8:
        top = rng.uniform(150, 250) + np.array([0, 2, 6.0])
        foot = np.full(3, rng.uniform(190, 255))
    else:
        top, foot = rng.uniform(10, 120, 3), rng.uniform(60, 230, 3)
    top, foot = top + rng.normal(0, 14, 3), foot + rng.normal(0, 14, 3)
    ramp = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    image = np.broadcast_to(top + (foot - top) * ramp, (height, width, 3)).copy()
    if rng.random() < 0.6:
        cloud = np.clip((noise(rng, width, height, width / 3) - 0.5) * rng.uniform(2, 5), 0, 1)
        image += (245 - image) * cloud[..., None]
    return np.clip(image, 0, 255).astype(np.uint8)


def foliage(rng: Generator, width: int, height: int) -> Pixels:
    """Leaves with light coming through, in any season."""
    field = noise(rng, width, height, rng.uniform(0.06, 0.4) * width, 4)
    field = np.clip((field - 0.5) * rng.uniform(1.5, 4) + 0.5, 0, 1)
    seasons = np.array([(70, 110, 40), (120, 140, 60), (190, 130, 40), (110, 95, 75), (40, 70, 35)])
    high = seasons[rng.integers(len(seasons))] * rng.uniform(0.7, 1.6)
    image = _between(high * rng.uniform(0.05, 0.4), high, field)
    if rng.random() < 0.5:
        holes = noise(rng, width, height, rng.uniform(0.04, 0.15) * width, 2) > rng.uniform(
            0.6, 0.8
        )
        image[holes] = rng.integers(170, 256)
    return image


def branches(rng: Generator, width: int, height: int) -> Pixels:
    """Bare dark branches before a bright sky."""
    image = sky(rng, width, height)
    for _ in range(int(rng.integers(6, 26))):
        start = rng.uniform(0, 1, 2) * (width, height)
        bend = np.cumsum(rng.normal(0, 0.22, (5, 2)) * (width, height), axis=0)
        points = np.vstack([start, start + bend]).astype(np.int32)
        thick = max(1, int(rng.exponential(0.015) * width))
        cv2.polylines(image, [points], False, _colour(rng, 15, 80), thick, cv2.LINE_AA)
    return image


def wall(rng: Generator, width: int, height: int) -> Pixels:
    """Brick, plaster, planks or windows."""
    base = rng.uniform(50, 230, 3) * 0.35 + rng.uniform(60, 220) * 0.65
    image = _between(base * 0.85, base * 1.1, noise(rng, width, height, width / 4))
    kind = rng.random()
    line = tuple(int(v) for v in np.clip(base * rng.uniform(0.5, 1.4), 0, 255))
    if kind < 0.35:
        row = max(3, int(rng.uniform(0.03, 0.12) * width))
        for i, y in enumerate(range(0, height, row)):
            cv2.line(image, (0, y), (width, y), line, 1)
            for x in range((i % 2) * row, width, row * 2):
                cv2.line(image, (x, y), (x, y + row), line, 1)
    elif kind < 0.7:
        w, h = rng.uniform(0.08, 0.35, 2) * (width, height)
        glass = _colour(rng, 10, 150)
        for y in np.arange(rng.uniform(0, h), height, h * rng.uniform(1.4, 2.2)):
            for x in np.arange(rng.uniform(-w, w), width, w * rng.uniform(1.3, 2.2)):
                cv2.rectangle(image, (int(x), int(y)), (int(x + w), int(y + h)), glass, -1)
                cv2.rectangle(image, (int(x), int(y)), (int(x + w), int(y + h)), line, 1)
    elif kind < 0.85:
        step = max(2, int(rng.uniform(0.02, 0.1) * width))
        for x in range(0, width, step):
            cv2.line(image, (x, 0), (x, height), line, max(1, step // 4))
    return image


def clutter(rng: Generator, width: int, height: int) -> Pixels:
    """Random edges: overlapping blocks, bands and lines."""
    image = _between(
        rng.uniform(0, 255, 3), rng.uniform(0, 255, 3), noise(rng, width, height, width)
    )
    for _ in range(int(rng.integers(3, 14))):
        centre = rng.uniform(-0.1, 1.1, 2) * (width, height)
        reach = rng.exponential(0.22, 2) * (width, height)
        corners = cv2.boxPoints((centre.tolist(), reach.tolist(), float(rng.normal(0, 12)))).astype(
            np.int32
        )
        grey = rng.uniform(0, 255)
        shade = grey + (rng.uniform(0, 255, 3) - grey) * rng.random() ** 2
        cv2.fillPoly(image, [corners], shade.tolist(), cv2.LINE_AA)
    return image


def plain(rng: Generator, width: int, height: int) -> Pixels:
    """One colour with a soft gradient: fog, night, a blank wall, white paper."""
    base = np.full(3, rng.choice([rng.uniform(0, 60), rng.uniform(0, 255), 255.0]))
    base = base + rng.normal(0, 10, 3)
    return _between(base, base + rng.normal(0, 25, 3), noise(rng, width, height, width))


def street(rng: Generator, width: int, height: int) -> Pixels:
    """A road to the horizon with sky, buildings, trees, verges and lane marks."""
    image = sky(rng, width, height)
    horizon = int(height * rng.uniform(0.4, 0.7))
    x = 0
    while x < width:
        w = int(width * rng.uniform(0.1, 0.4))
        tall = int(height * rng.uniform(0.06, 0.5))
        top, right = max(0, horizon - tall), min(width, x + w)
        kind = rng.random()
        if right > x + 4 and horizon > top + 4 and kind < 0.75:
            size = (right - x, horizon - top)
            if kind < 0.35:
                image[top:horizon, x:right] = wall(rng, *size)
            else:
                tree = foliage(rng, *size)
                crown = noise(rng, *size, max(size) / 3) + np.linspace(0, 0.5, size[1])[:, None]
                keep = crown > 0.5
                image[top:horizon, x:right][keep] = tree[keep]
        x += int(w * rng.uniform(0.6, 1.1))
    ground = height - horizon
    verge = np.array([(80, 100, 55), (120, 115, 100), (150, 145, 140), (225, 228, 232)])
    shade = verge[rng.integers(4)] * rng.uniform(0.6, 1.1)
    field = noise(rng, width, ground, width / 8)
    image[horizon:] = _between(shade * 0.75, shade * 1.15, field)
    vanish, spread = rng.uniform(0.2, 0.8) * width, rng.uniform(0.4, 1.2) * width
    foot = vanish + rng.normal(0, 0.2) * width
    grey = int(rng.uniform(50, 140))
    road = [
        (vanish - 3, horizon),
        (vanish + 3, horizon),
        (foot + spread, height),
        (foot - spread, height),
    ]
    cv2.fillPoly(image, [np.array(road, np.int32)], (grey, grey, grey + 4), cv2.LINE_AA)
    for start in np.arange(0.1, 1, 0.22):
        a, b = horizon + ground * start**2, horizon + ground * (start + 0.1) ** 2
        far, near = (
            (int(vanish + (foot - vanish) * (y - horizon) / ground), int(y)) for y in (a, b)
        )
        thick = max(1, int(start * width / 60))
        cv2.line(image, far, near, (225, 225, 220), thick, cv2.LINE_AA)
    return image


_SURFACES: tuple[Callable[[Generator, int, int], Pixels], ...] = (
    sky, foliage, branches, wall, clutter, plain,
)  # fmt: skip


def surface(rng: Generator, width: int, height: int) -> Pixels:
    """A random background for a close-up; in a third of cases two of them side by side."""
    image = _SURFACES[rng.integers(len(_SURFACES))](rng, width, height)
    if rng.random() < 0.35:
        other = _SURFACES[rng.integers(len(_SURFACES))](rng, width, height)
        angle, offset = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.25)
        ys, xs = np.mgrid[0:height, 0:width]
        side = np.cos(angle) * (xs / width - 0.5) + np.sin(angle) * (ys / height - 0.5) > offset
        image[side] = other[side]
    return image


def put_text(
    image: Pixels, rng: Generator, box: tuple[int, int, int, int], colour: tuple[int, int, int]
) -> None:
    """Writes a random word into a box (x0, y0, x1, y1) that lies inside the image."""
    x0, y0, x1, y1 = box
    if x1 - x0 < 4 or y1 - y0 < 3:
        return
    mask = text_mask(_WORDS[rng.integers(len(_WORDS))], FONTS[rng.integers(len(FONTS))])
    scaled = cv2.resize(mask, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
    weight = scaled[..., None].astype(np.float32) / 255
    region = image[y0:y1, x0:x1]
    region[:] = (region * (1 - weight) + np.array(colour, np.float32) * weight).astype(np.uint8)
