"""Drawn images in every accepted format, and images that need far more memory than their size."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

VARIANTS: tuple[tuple[str, str, dict[str, Any]], ...] = (  # format, mode, options of Pillow
    ("JPEG", "RGB", {"quality": 90}),
    ("JPEG", "RGB", {"quality": 90, "progressive": True}),
    ("JPEG", "L", {"quality": 90}),
    ("JPEG", "CMYK", {"quality": 90}),
    ("PNG", "RGB", {}),
    ("PNG", "RGBA", {}),
    ("PNG", "P", {}),
    ("PNG", "1", {}),
    ("PNG", "I;16", {}),
    ("WEBP", "RGB", {"quality": 85, "method": 0}),
    ("WEBP", "RGBA", {"lossless": True, "method": 0}),
    ("AVIF", "RGB", {"quality": 75, "speed": 10}),
    ("GIF", "P", {}),
    ("BMP", "RGB", {}),
    ("BMP", "P", {}),
    ("TIFF", "RGB", {}),
    ("TIFF", "RGB", {"compression": "packbits"}),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("TIFF", "RGB", {"compression": "tiff_adobe_deflate"}),
    ("TIFF", "RGB", {"compression": "jpeg"}),
    ("TIFF", "RGB", {"compression": "zstd"}),
    ("TIFF", "1", {"compression": "group4"}),
    ("TIFF", "F", {}),
    ("PPM", "RGB", {}),
    ("PPM", "L", {}),
    ("JPEG2000", "RGB", {}),
    ("JPEG2000", "RGB", {"no_jp2": True, "tile_size": (64, 64)}),
    ("JPEG2000", "RGB", {"quality_mode": "rates", "quality_layers": [20, 5], "irreversible": True}),
    ("JPEG2000", "RGBA", {}),
)


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """An image of smooth colours with the noise of a camera sensor."""
    chance = np.random.default_rng(seed)
    coarse = chance.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noise = chance.integers(-6, 7, (height, width, 3), np.int16)
    return Image.fromarray(np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str, mode: str, **options: Any) -> bytes:
    """Encode an image in one of `VARIANTS`."""
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif mode == "RGBA":
        image = Image.fromarray(np.dstack((np.asarray(image), np.asarray(image.convert("L")))))
    else:
        image = image.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def empty_png(width: int, height: int) -> bytes:
    """A PNG of black pixels, whose file is about a thousandth of the size of its pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        ended = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + ended

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packer = zlib.compressobj(9)
    row = bytes(3 * width + 1)
    pixels = b"".join([packer.compress(row) for _ in range(height)] + [packer.flush()])
    parts = chunk(b"IHDR", head), chunk(b"IDAT", pixels), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
