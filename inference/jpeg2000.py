"""Checks the structure that a JPEG 2000 codestream states, before OpenJPEG allocates it.

Its header alone decides how much a decoder allocates: tiles, components, precincts and packets may
be millions in a file of 1 KB (ISO/IEC 15444-1, annex A).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

from errors import InvalidImage

_START = b"\xff\x4f\xff\x51"  # SOC, SIZ
_SOT, _SOD, _EOC, _COD, _COC = 0xFF90, 0xFF93, 0xFFD9, 0xFF52, 0xFF53
_MOST_COMPONENTS = 4
_MOST_PARTS = 70_000  # tile-parts; a tile's number has 16 bits
_TILE = 256  # minimum pixels of a tile on average, unless there are few tiles
_FEW = 64
_DENSITY = 16  # minimum pixels per packet on average, if there are more packets than usual
_SPARE = 20_000
_BOXES = 1000
_HEAD = 1024  # first bytes of a file, which contain the boxes of the JP2 header

_STRANGE = "This JPEG 2000 file has too many {} for its size. Send the image as PNG or JPEG."
_DAMAGED = (
    "The image file is damaged and cannot be decoded. Send the original, or save it again as PNG "
    "or JPEG."
)


def check_codestream(data: bytes, width: int, height: int) -> None:
    """Check the structure of a JPEG 2000 file, with or without the boxes of JP2.

    Args:
        data: The file.
        width, height: The size that was read from the file; the decision to decode is based on it.

    Raises:
        InvalidImage: The codestream is cut off, has another size, or is split into far more parts
            than an encoder of photographs makes.
    """
    try:
        _check(data, width, height)
    except (struct.error, IndexError):
        raise InvalidImage(_DAMAGED) from None


def colour_space(data: bytes) -> int | None:
    """The number of the colour space in the boxes of JP2: 16 sRGB, 17 grey, 18 sYCC; None: it is
    not given by a number."""
    at = data.find(b"colr", 0, _HEAD)
    if at < 0 or data[at + 4 : at + 5] != b"\1" or len(data) < at + 11:
        return None
    return int.from_bytes(data[at + 7 : at + 11], "big")


def _check(data: bytes, width: int, height: int) -> None:
    start = _codestream(data)
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top, components = (
        struct.unpack_from(">8IH", data, start + 8)
    )
    if (right - left, bottom - top) != (width, height):
        raise InvalidImage(
            "This JPEG 2000 file states two sizes: it is damaged. Save it again as PNG or JPEG."
        )
    if not tile_width or not tile_height or not 0 < components <= _MOST_COMPONENTS:
        raise InvalidImage(_DAMAGED)
    tiles = math.ceil((right - tile_left) / tile_width) * math.ceil(
        (bottom - tile_top) / tile_height
    )
    pixels = width * height
    if tiles > _FEW and tiles * _TILE > pixels:
        raise InvalidImage(_STRANGE.format(f"tiles ({tiles})"))
    side = min(tile_width, width), min(tile_height, height)
    for style, at in _styles(data, start):
        packets = tiles * components * _packets(data, style, at, components, side)
        if packets > _SPARE + pixels // _DENSITY:
            raise InvalidImage(_STRANGE.format(f"packets ({packets})"))


def _packets(data: bytes, style: int, at: int, components: int, tile: tuple[int, int]) -> int:
    """The packets of one component in one tile, as a COD or COC segment at `at` states them."""
    if style == _COD:
        precincts, _, layers, _, levels = struct.unpack_from(">BBHBB", data, at + 4)
        sizes = at + 14
    else:
        wide = 2 if components > 256 else 1
        precincts, levels = struct.unpack_from(">BB", data, at + 4 + wide)
        layers, sizes = 1, at + 10 + wide
    if levels > 32:
        raise InvalidImage(_DAMAGED)
    total = 0
    for level in range(levels + 1):
        exponents = data[sizes + level] if precincts & 1 else 0xFF
        scale = levels - level if level else levels
        across = math.ceil(tile[0] / 2**scale / 2 ** (exponents & 15))
        down = math.ceil(tile[1] / 2**scale / 2 ** (exponents >> 4))
        total += max(across, 1) * max(down, 1)
    return total * max(layers, 1)


def _styles(data: bytes, start: int) -> Iterator[tuple[int, int]]:
    """Every COD and COC segment, in the main header and the tile-parts': marker and position."""
    at = start + 2
    part_start = part_length = 0
    for _ in range(_MOST_PARTS * 4):
        marker, length = struct.unpack_from(">HH", data, at)
        if marker == _SOT:
            part_start, part_length = at, struct.unpack_from(">I", data, at + 6)[0]
        elif marker in (_COD, _COC):
            yield marker, at
        if marker == _SOD:
            if part_length < 14:  # 0: the last part, until the end of the file
                return
            at = part_start + part_length
            if at + 4 > len(data):  # the end, or cut off: the decoder decides
                return
        elif marker == _EOC or marker < 0xFF00:
            return
        else:
            at += 2 + length
    raise InvalidImage(_STRANGE.format("parts"))


def _codestream(data: bytes) -> int:
    """The position of the codestream."""
    at = 0
    for _ in range(_BOXES):
        if data[at : at + 4] == _START:
            return at
        length, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, at + 8)
            head = 16
        if kind == b"jp2c":
            at += head
            if data[at : at + 4] != _START:
                raise InvalidImage(_DAMAGED)
            return at
        if length < head:
            raise InvalidImage(_DAMAGED)
        at += length
    raise InvalidImage(_DAMAGED)
