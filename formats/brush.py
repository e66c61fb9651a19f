"""Decodes Label Studio's brush masks: RGBA pixels in the format of thi.ng's `rle-pack`.

The format is a stream of bits. It starts with a header: 32 bits, the number of values; 5 bits, the
bits per value minus one; 4 times 4 bits, four widths of run lengths minus one. Then come the runs,
each of: 1 bit, whether one value is repeated; 2 bits, which of the four widths the run's length is
written with; the length minus one; and the repeated value, or else `length` single values.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from errors import ValidationFailed
from formats.geometry import MOST_PIXELS, Mask

CHANNELS = 4
WORD = 8  # bits of one channel value
HEADER = 64  # bits of the header, and of the last byte, at most
LONGEST_VALUE = 1 + 2 + 16 + WORD  # bits of a run of one value


def decode_brush(packed: Any, width: int, height: int) -> Mask:
    """The boolean mask (h, w) of the painted pixels, whose alpha is not 0.

    Args:
        packed: The list of bytes in a region's `rle`.
        width, height: Size of the image in pixels.

    Raises:
        ValidationFailed: It is not in this format, or has another size.
    """
    if not 0 < width * height <= MOST_PIXELS:
        raise ValidationFailed(
            f"A brush mask of {width} × {height} pixels is too large; at most {MOST_PIXELS} "
            "pixels. Draw a polygon instead."
        )
    try:
        # `bytes` of a number would be as many zeros; a value takes at most LONGEST_VALUE bits
        if not isinstance(packed, list | bytes) or 8 * len(packed) > HEADER + LONGEST_VALUE * (
            width * height * CHANNELS
        ):
            raise ValueError("not a list of bytes, or more than the image has")
        bits = _Bits(bytes(packed))
        count = bits.read(32)
        if count != width * height * CHANNELS or bits.read(5) + 1 != WORD:
            raise ValueError("another size")
        values = _unpacked(bits, count)
    except (TypeError, ValueError):
        raise ValidationFailed(
            f"A brush mask's 'rle' cannot be read, or does not have the {width} × {height} pixels "
            "of its image."
        ) from None
    return values.reshape(height, width, CHANNELS)[..., 3] > 0


def _unpacked(bits: _Bits, count: int) -> np.ndarray:
    widths = [bits.read(4) + 1 for _ in range(4)]
    values = np.zeros(count, np.uint8)
    place = 0
    while place < count:
        repeated = bits.read(1)
        length = bits.read(widths[bits.read(2)]) + 1
        if place + length > count:
            raise ValueError("a run beyond the end")
        if repeated:
            values[place : place + length] = bits.read(WORD)
        else:
            values[place : place + length] = bits.read_bytes(length)
        place += length
    return values


class _Bits:
    """Reads unsigned integers of any bit width from bytes, highest bit first."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def read(self, width: int) -> int:
        first, last = self._at, self._at + width
        if last > 8 * len(self._data):
            raise ValueError("the data ends early")
        self._at = last
        some = int.from_bytes(self._data[first // 8 : (last + 7) // 8], "big")
        return (some >> (-last % 8)) & ((1 << width) - 1)

    def read_bytes(self, count: int) -> np.ndarray:
        """The next `count` integers of eight bits."""
        first, last = self._at, self._at + WORD * count
        if last > 8 * len(self._data):
            raise ValueError("the data ends early")
        self._at = last
        some = np.frombuffer(self._data[first // 8 : (last + 7) // 8], np.uint8)
        return np.packbits(np.unpackbits(some)[first % 8 :][: WORD * count])
