"""Random changes of a file, like those of transmission errors or attackers.

The same random generator state gives the same changes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random

EXTREMES = (
    0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 2**31 - 1, 2**31,
    2**32 - 1, 7000, 65_500, 2**20, 2**24,
)  # fmt: skip
HEAD = 512  # first bytes of a file, which contain most headers


def flipped(data: bytes, chance: Random) -> bytes:
    """Flip some bits."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 2, 8, 64))):
        made[chance.randrange(len(made))] ^= 1 << chance.randrange(8)
    return bytes(made)


def overwritten(data: bytes, chance: Random) -> bytes:
    """Overwrite some bytes in the head of the file with random values."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 2, 4))):
        made[chance.randrange(min(HEAD, len(made)))] = chance.randrange(256)
    return bytes(made)


def restated(data: bytes, chance: Random) -> bytes:
    """Overwrite a number in the head of the file with an extreme one, in either byte order."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 2))):
        kind = chance.choice([one for one in "BHI" if struct.calcsize(one) <= len(made)])
        order = chance.choice("<>")
        size = struct.calcsize(order + kind)
        at = chance.randrange(min(HEAD, len(made)) - size + 1)
        value = chance.choice(EXTREMES) % 256**size
        struct.pack_into(order + kind, made, at, value)
    return bytes(made)


def truncated(data: bytes, chance: Random) -> bytes:
    """Cut off the end."""
    return data[: chance.randrange(len(data))]


def repeated(data: bytes, chance: Random) -> bytes:
    """Repeat a piece many times."""
    begin = chance.randrange(len(data))
    end = min(len(data), begin + chance.choice((1, 4, 16, 64, 1024)))
    return data[:end] + data[begin:end] * chance.choice((1, 10, 1000)) + data[end:]


def removed(data: bytes, chance: Random) -> bytes:
    """Remove a piece."""
    begin = chance.randrange(len(data))
    return data[:begin] + data[begin + chance.choice((1, 2, 4, 16, 256)) :]


def inserted(data: bytes, chance: Random) -> bytes:
    """Insert random bytes."""
    at = chance.randrange(len(data))
    return data[:at] + chance.randbytes(chance.choice((1, 2, 4, 64))) + data[at:]


KINDS: tuple[Callable[[bytes, Random], bytes], ...] = (
    flipped, overwritten, overwritten, restated, restated, restated, truncated, repeated, removed,
    inserted,
)  # fmt: skip


def mutated(data: bytes, chance: Random) -> bytes:
    """Change the file in one to three random ways."""
    for _ in range(chance.choice((1, 1, 2, 3))):
        data = chance.choice(KINDS)(data, chance) or b"\0"
    return data
