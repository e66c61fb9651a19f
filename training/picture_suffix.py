"""The suffix of a picture's file, by what the file begins with."""

from __future__ import annotations

import re

from errors import InvalidImage

SIGNATURES = (
    (rb"\xff\xd8\xff", ".jpg"), (rb"\x89PNG\r\n", ".png"), (rb"BM", ".bmp"),
    (rb"RIFF....WEBP", ".webp"), (rb"II\*\0|MM\0\*", ".tif"),
    (rb"....ftypavi[fs]", ".avif"), (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", ".jp2"),
)  # fmt: skip


def suffix_of(picture: bytes) -> str:
    """The suffix by which trainers know the format.

    Raises:
        InvalidImage: They do not.
    """
    for signature, suffix in SIGNATURES:
        if re.match(signature, picture[:16], re.DOTALL):
            return suffix
    raise InvalidImage("Pictures to train on must be JPEG, PNG, WebP, BMP, TIFF or AVIF files.")
