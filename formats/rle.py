"""COCO's run lengths: how many pixels are off, on, off, … down the columns of a mask."""

from __future__ import annotations

from typing import Any

import numpy as np

from errors import ValidationFailed
from formats.geometry import Mask

MOST_PIXELS = 2**28


def encode(
    mask: Mask, left: int = 0, top: int = 0, size: tuple[int, int] | None = None
) -> dict[str, Any]:
    """A mask (h, w) as `{"size": [h, w], "counts": [...]}`, which pycocotools reads too.

    Args:
        mask: What is on.
        left, top: Where it begins in the picture.
        size: Width and height of the picture; default: the mask's.
    """
    width, height = size or (mask.shape[1], mask.shape[0])
    padded = np.zeros((mask.shape[1], mask.shape[0] + 2), bool)
    padded[:, 1:-1] = mask.T
    columns, rows = np.nonzero(padded[:, 1:] != padded[:, :-1])
    edges = (columns + left) * height + rows + top
    twice = np.flatnonzero(edges[1:] == edges[:-1])  # a run goes on in the next column
    edges = np.delete(edges, np.concatenate((twice, twice + 1)))
    if len(edges) and edges[-1] == width * height:
        edges = edges[:-1]
    counts = np.diff(np.concatenate(([0], edges, [width * height]))).tolist()
    return {"size": [int(height), int(width)], "counts": counts}


def decode(code: Any, size: tuple[int, int] | None = None) -> Mask:
    """The mask of a list of counts or of pycocotools' text.

    Args:
        code: See `encode`.
        size: Width and height of the picture, which must be those of the mask.

    Raises:
        ValidationFailed: It is not one, is of another size, or over 2²⁸ pixels.
    """
    try:
        height, width = (int(value) for value in code["size"])
        if min(height, width) < 0 or height * width > MOST_PIXELS:
            raise ValueError("no image is that large")
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ValidationFailed(
            "A segmentation's run lengths cannot be read: their size must be [height, width], "
            f"of {MOST_PIXELS} pixels at most."
        ) from None
    if size is not None and size != (width, height):
        raise ValidationFailed(
            f"A segmentation is of {width} × {height} pixels, its image of "
            f"{size[0]} × {size[1]}. Scale the run lengths, or correct the image's size."
        )
    try:
        counts = code["counts"]
        if isinstance(counts, (str, bytes)):
            counts = _from_text(counts.encode() if isinstance(counts, str) else counts)
        lengths = np.array(counts, np.int64).reshape(-1)
        if (lengths < 0).any() or lengths.sum() != height * width:
            raise ValueError("the counts are not those of its size")
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        raise ValidationFailed("A segmentation's run lengths cannot be read.") from None
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape(width, height).T


def _from_text(text: bytes) -> list[int]:
    """As `rleFrString` of pycocotools: groups of five bits, differences from the third on."""
    counts: list[int] = []
    position = 0
    while position < len(text):
        value, shift, more = 0, 0, True
        while more:
            byte = text[position] - 48
            value |= (byte & 0x1F) << shift
            shift += 5
            more = bool(byte & 0x20)
            position += 1
            if not more and byte & 0x10:
                value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    return counts
