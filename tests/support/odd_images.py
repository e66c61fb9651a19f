"""Images that browsers cannot show, or show otherwise than training reads them."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from tests.support.scenes import scene
from tests.support.seeds import rng

WIDTH, HEIGHT = 60, 40
SIDEWAYS = 6  # EXIF: to be turned right by 90°
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
    'syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
    'tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = SIDEWAYS
    return exif


def _chunk(name: bytes, data: bytes) -> bytes:
    """A part of a PNG file."""
    return len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4)


def _deep_png() -> bytes:
    """A PNG of 16 bits a value, in colours; Pillow writes none."""
    values = rng(5).integers(0, 65536, (HEIGHT, WIDTH, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = WIDTH.to_bytes(4) + HEIGHT.to_bytes(4) + bytes([16, 2, 0, 0, 0])
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def turned_oddly() -> dict[str, bytes]:
    """Files with an orientation where some decoders look for it and others do not."""
    photo = Image.fromarray(scene(WIDTH, HEIGHT, 1))
    plain = _saved(photo, "PNG")
    exif = _turned().tobytes().removeprefix(b"Exif\0\0")
    text = b"\nexif\n%8d\n%s\n" % (len(exif), exif.hex().encode())
    profile = _chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text))
    xmp = _chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP.encode())
    first, last = 33, -12  # where the header ends, and where the end begins
    entry = struct.pack(">HHHII", 1, 0x0112, 4, 1, SIDEWAYS)  # its type is 4: 32 bits
    return {
        "turned-xmp.jpg": _saved(photo, "JPEG", xmp=XMP.encode()),
        "turned-32-bit.jpg": _saved(
            photo, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08" + entry + bytes(4)
        ),
        "turned-text.png": plain[:first] + profile + plain[first:],
        "turned-text-behind.png": plain[:last] + profile + plain[last:],
        "turned-xmp.png": plain[:first] + xmp + plain[first:],
        "turned-xmp-behind.png": plain[:last] + xmp + plain[last:],
        "turned-behind.png": plain[:last] + _chunk(b"eXIf", exif) + plain[last:],
        "turned-xmp.webp": _saved(photo, "WEBP", lossless=True, xmp=XMP.encode()),
    }


def odd_images() -> dict[str, bytes]:
    """File name → bytes. `SHOWN_ALIKE` names those that browsers show as they are."""
    photo = Image.fromarray(scene(WIDTH, HEIGHT, 1))
    second = Image.fromarray(scene(WIDTH, HEIGHT, 2))
    grey16 = Image.fromarray(rng(3).integers(0, 65536, (HEIGHT, WIDTH)).astype(np.uint16))
    alpha = photo.convert("RGBA")
    alpha.putalpha(Image.fromarray(rng(4).integers(0, 256, (HEIGHT, WIDTH), np.uint8)))
    palette = photo.quantize(16)
    return {
        "plain.tif": _saved(photo, "TIFF"),
        "turned.tif": _saved(photo, "TIFF", exif=_turned()),
        "deep.tif": _saved(grey16, "TIFF"),
        "float.tif": _saved(Image.fromarray(np.asarray(grey16) / np.float32(65535)), "TIFF"),
        "pages.tif": _saved(photo, "TIFF", save_all=True, append_images=[second]),
        "cmyk.tif": _saved(photo.convert("CMYK"), "TIFF"),
        "plain.jpg": _saved(photo, "JPEG"),
        "grey.jpg": _saved(photo.convert("L"), "JPEG"),
        "turned.jpg": _saved(photo, "JPEG", exif=_turned()),
        "cmyk.jpg": _saved(photo.convert("CMYK"), "JPEG"),
        "plain.png": _saved(photo, "PNG"),
        "palette.png": _saved(palette, "PNG"),
        "one-bit.png": _saved(photo.convert("1"), "PNG"),
        "clear-palette.png": _saved(palette, "PNG", transparency=3),
        "alpha.png": _saved(alpha, "PNG"),
        "deep.png": _saved(grey16, "PNG"),
        "deep-colours.png": _deep_png(),
        "turned.png": _saved(photo, "PNG", exif=_turned()),
        "moving.png": _saved(photo, "PNG", save_all=True, append_images=[second]),
        "plain.webp": _saved(photo, "WEBP", lossless=True),
        "alpha.webp": _saved(alpha, "WEBP", lossless=True),
        "turned.webp": _saved(photo, "WEBP", exif=_turned()),
        "moving.webp": _saved(photo, "WEBP", save_all=True, append_images=[second]),
        "plain.bmp": _saved(photo, "BMP"),
        "palette.bmp": _saved(palette, "BMP"),
        "plain.avif": _saved(photo, "AVIF"),
        "turned.avif": _saved(photo, "AVIF", exif=_turned()),
        "plain.jp2": _saved(photo, "JPEG2000"),
    } | turned_oddly()


PASSED_OVER = frozenset({"turned-text-behind.png", "turned-xmp-behind.png"})
"""The names of those with an orientation that nobody finds without decoding them: not turned."""

SHOWN_ALIKE = PASSED_OVER | {
    "plain.jpg", "grey.jpg", "turned.jpg", "plain.png", "palette.png", "one-bit.png", "plain.webp",
}  # fmt: skip
"""The names of those that browsers show as training reads them."""
