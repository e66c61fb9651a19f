"""JPEG files: whether one is complete, and how small the DCT may make it.

A JPEG stores blocks of 8 × 8 pixels by their frequencies (DCT). A decoder can leave the high ones
out and make an image of 1/2, 1/4 or 1/8 of the size, antialiased, in less than half the time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

AtLeast = Callable[[int, int], tuple[int, int]]
"""From the width and height of an upright image to those that its pixels must not be below."""

SCALES = (8, 4, 2)

# In a scan, 0xFF before 0 is data, before 0xFF it fills, and restarts (0xD0 to 0xD7) divide it.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_SCAN, _END = 0xDA, 0xD9
_BETWEEN_SCANS = {0xC4, 0xCC, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)}  # tables, comments, APPn
_MOST_SEGMENTS = 10_000  # a photograph has up to a few hundred

# orientation → whether the left and the upper edge were the right and the lower one in the file
_FLIPPED = {
    2: (True, False),
    3: (True, True),
    4: (False, True),
    6: (True, False),
    7: (True, True),
    8: (False, True),
}


_TURNS: dict[int, Callable[[NDArray[np.uint8]], Any]] = {
    2: lambda pixels: cv2.flip(pixels, 1),
    3: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_180),
    4: lambda pixels: cv2.flip(pixels, 0),
    5: cv2.transpose,
    6: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE),
    7: lambda pixels: cv2.flip(cv2.transpose(pixels), -1),
    8: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


def is_complete(data: bytes) -> bool:
    """Whether a JPEG is a sequence of segments and scans up to its end-of-image marker.

    What follows that marker does not matter: telephones append a film or a second image. The end
    of a thumbnail inside a segment is not the end of the image. False also for a file whose scan
    is damaged so that it has a marker that no scan is followed by.
    """
    place, scanned = 2, False
    for _ in range(_MOST_SEGMENTS):
        found = _MARKER.search(data, place)
        if found is None:
            return False
        marker, place = data[found.start() + 1], found.end()
        if marker == _END:
            return scanned
        if marker == _SCAN:
            scanned = True
        elif scanned and marker not in _BETWEEN_SCANS:
            return False
        place += int.from_bytes(data[place : place + 2], "big")
    return False


def dct_scale(width: int, height: int, orientation: int, at_least: tuple[int, int]) -> int:
    """The largest of `SCALES` at which a JPEG is not smaller than `at_least`; else 1.

    The last row and column of a scaled image may reach beyond the edge. A turned image whose first
    row or column would do so is scaled less, so that its pixels always begin at the edge.

    Args:
        width, height: Size of the image in pixels, after EXIF rotation.
        orientation: EXIF orientation of the file.
        at_least: Width and height that the result must have, after EXIF rotation.
    """
    flipped = _FLIPPED.get(orientation, (False, False))
    for scale in SCALES:
        small = -(-width // scale), -(-height // scale)
        if (
            small[0] >= at_least[0]
            and small[1] >= at_least[1]
            and min(width, height) >= scale
            and not (flipped[0] and width % scale)
            and not (flipped[1] and height % scale)
        ):
            return scale
    return 1


def turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """The upright image of pixels (h, w, 3) stored with an EXIF orientation; unknown ones: as is.

    Equal to `PIL.ImageOps.exif_transpose`.
    """
    turn = _TURNS.get(orientation)
    return pixels if turn is None else np.asarray(turn(pixels), np.uint8)
