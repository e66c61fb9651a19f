"""JPEG files: whether one is complete, and how small the DCT may make it.

A JPEG stores blocks of 8 × 8 pixels by their frequencies (DCT). A decoder can leave the high ones
out and make an image of 1/2, 1/4 or 1/8 of the size, antialiased, in less than half the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

AtLeast = Callable[[int, int], tuple[int, int]]
"""From the width and height of an upright image to those that its pixels must not be below."""

SCALES = (8, 4, 2)

_END = b"\xff\xd9"
_SCAN = 0xDA

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
    """Whether a JPEG has its end-of-image marker, whatever follows it.

    Telephones append a film or a second image. A thumbnail before the first scan has a marker of
    its own.
    """
    return data.endswith(_END) or data.find(_END, _first_scan(data)) >= 0


def _first_scan(data: bytes) -> int:
    """The place of the first scan's marker; the length of the data if there is none."""
    place = 2
    while data[place : place + 1] == b"\xff" and place + 4 <= len(data):
        marker = data[place + 1]
        if marker == _SCAN:
            return place
        if marker == 0xFF:  # a fill byte
            place += 1
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return len(data)


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
