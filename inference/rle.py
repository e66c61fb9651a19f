"""COCO's run lengths: how many pixels are off, on, off, … down the columns of a mask."""

from __future__ import annotations

from typing import Any

import numpy as np

from errors import ValidationFailed
from inference.polygons import Mask


def encode(mask: Mask) -> dict[str, Any]:
    """A mask (h, w) as `{"size": [h, w], "counts": [...]}`, which pycocotools reads too."""
    flat = mask.T.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    ends = np.concatenate(([0], changes, [flat.size]))
    counts = np.diff(ends).tolist()
    if flat.size and flat[0]:
        counts.insert(0, 0)
    return {"size": [int(mask.shape[0]), int(mask.shape[1])], "counts": counts}


def decode(code: Any) -> Mask:
    """The mask of a list of counts or of pycocotools' text.

    Raises:
        ValidationFailed: It is not one.
    """
    try:
        height, width = (int(value) for value in code["size"])
        counts = code["counts"]
        if isinstance(counts, (str, bytes)):
            counts = _from_text(counts.encode() if isinstance(counts, str) else counts)
        lengths = np.array(counts, np.int64)
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
