"""Encodes and decodes COCO RLE masks: run lengths of off, on, off, … pixels, column by column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from errors import ValidationFailed
from formats.geometry import MOST_PIXELS, Mask, Outline, outlines

SPARSE = 16  # drawn pixels cost so much less than those found by a search
LONGEST = 40  # bits of a packed count; a longer one takes quadratic time


def encode(
    mask: Mask, left: int = 0, top: int = 0, size: tuple[int, int] | None = None
) -> dict[str, Any]:
    """A mask (h, w) as `{"size": [h, w], "counts": [...]}`, which pycocotools reads too.

    Args:
        mask: Boolean mask.
        left, top: Position of the mask in the image, in pixels.
        size: Width and height of the image; default: those of the mask.
    """
    width, height = size or (mask.shape[1], mask.shape[0])
    padded = np.zeros((mask.shape[1], mask.shape[0] + 2), bool)
    padded[:, 1:-1] = mask.T
    columns, rows = np.nonzero(padded[:, 1:] != padded[:, :-1])
    edges = (columns + left) * height + rows + top
    twice = np.flatnonzero(edges[1:] == edges[:-1])  # a run continues in the next column
    edges = np.delete(edges, np.concatenate((twice, twice + 1)))
    if len(edges) and edges[-1] == width * height:
        edges = edges[:-1]
    counts = np.diff(np.concatenate(([0], edges, [width * height]))).tolist()
    return {"size": [int(height), int(width)], "counts": counts}


def decode(code: Any, size: tuple[int, int] | None = None) -> Mask:
    """The boolean mask (h, w) of an RLE code with a list of counts or pycocotools' packed text.

    Args:
        code: See `encode`.
        size: Width and height of the image, which the mask must have.

    Raises:
        ValidationFailed: It is no RLE code, has another size, or more than 2²⁶ pixels.
    """
    lengths, width, height = _read(code, size)
    return _pixels(lengths, width, height)


def decode_outlines(code: Any, size: tuple[int, int] | None = None) -> list[Outline]:
    """The outlines of an RLE code's mask, largest first; see `decode`."""
    lengths, width, height = _read(code, size)
    return run_outlines(lengths, width, height)


def run_outlines(
    lengths: NDArray[np.int64], width: int, height: int, by_rows: bool = False
) -> list[Outline]:
    """The outlines of a mask of run lengths along its columns (or rows), largest first.

    A few run lengths may state millions of pixels. Then only the rows and columns in which runs
    begin or end are drawn.
    """
    lines, side = (height, width) if by_rows else (width, height)
    edges = np.cumsum(lengths)
    first = edges // max(side, 1)
    along = np.unique(np.concatenate(([0, side], edges % max(side, 1))))
    across = np.unique(np.clip(np.concatenate(([0, lines], first, first + 1)), 0, lines))
    if len(across) * len(along) * SPARSE > width * height:
        mask = _pixels(lengths, lines, side)
        return outlines(mask.T if by_rows else mask)
    places = across[:-1] * side + along[:-1, None]
    drawn = np.searchsorted(edges, places, side="right") % 2 == 1
    return outlines(drawn.T, along, across) if by_rows else outlines(drawn, across, along)


def _pixels(lengths: NDArray[np.int64], width: int, height: int) -> Mask:
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape(width, height).T


def _read(code: Any, size: tuple[int, int] | None) -> tuple[NDArray[np.int64], int, int]:
    """The run lengths of an RLE code, its width and its height. Raises as `decode`."""
    try:
        height, width = (int(value) for value in code["size"])
        if min(height, width) < 0 or height * width > MOST_PIXELS:
            raise ValueError("no image is that large")
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ValidationFailed(
            "An RLE segmentation cannot be read: its size must be [height, width], at most "
            f"{MOST_PIXELS} pixels."
        ) from None
    if size is not None and size != (width, height):
        raise ValidationFailed(
            f"An RLE segmentation has {width} × {height} pixels, but its image has "
            f"{size[0]} × {size[1]}. Scale the mask, or correct the image's size."
        )
    try:
        counts = code["counts"]
        if isinstance(counts, (str, bytes)):
            packed = counts.encode() if isinstance(counts, str) else counts
            counts = _from_text(packed, height * width)
        lengths = run_lengths(counts, height * width)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        raise ValidationFailed(
            "An RLE segmentation cannot be read: its counts must be run lengths that add up to "
            "its size."
        ) from None
    return lengths, width, height


def run_lengths(counts: Sequence[Any], pixels: int) -> NDArray[np.int64]:
    """The counts of a mask of so many pixels as an array.

    Raises:
        TypeError, ValueError, OverflowError: They are not whole numbers that add up to `pixels`.
    """
    if len(counts) > _most(pixels):
        raise ValueError("more counts than pixels")
    lengths = np.array(counts, np.int64).reshape(-1)
    # Each is compared with the size: the sum of larger ones may overflow, and fit.
    if (lengths < 0).any() or (lengths > pixels).any() or lengths.sum() != pixels:
        raise ValueError("the counts do not add up to the number of pixels")
    return lengths


def _most(pixels: int) -> int:
    """The most counts of a mask: one for each pixel, each followed by an empty one."""
    return 2 * pixels + 2


def _from_text(text: bytes, pixels: int) -> list[int]:
    """Decodes packed counts like pycocotools' `rleFrString`.

    Each count is written in groups of five bits; from the fourth count on, its difference to the
    count before the previous one is written. `pixels` is the number that they add up to.
    """
    if len(text) > _most(pixels) * LONGEST // 5:
        raise ValueError("more counts than pixels")
    counts: list[int] = []
    position = 0
    while position < len(text):
        value, shift, more = 0, 0, True
        while more:
            byte = text[position] - 48
            value |= (byte & 0x1F) << shift
            shift += 5
            if shift > LONGEST:
                raise ValueError("a count is longer than any image")
            more = bool(byte & 0x20)
            position += 1
            if not more and byte & 0x10:
                value -= 1 << shift
        count = value + counts[-2] if len(counts) > 2 else value
        if not 0 <= count <= pixels:
            raise ValueError("a count is not between 0 and the number of pixels")
        counts.append(count)
    return counts
