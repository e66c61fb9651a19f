"""Estimates the CPU time that decoding an image takes, from its header and the size of its file.

Each format has a measured time per pixel and per byte, on an AMD EPYC core at about 2.5 GHz
(`python -m benchmarks.hostile.decode_cost`). Images with too high an estimate are refused; heavy
images wait in a separate queue.
"""

from __future__ import annotations

from typing import NamedTuple

from PIL import Image

from errors import InvalidImage, PayloadTooLarge
from inference.jpeg2000 import check_codestream, colour_space

ALLOWED = 80e-9  # seconds per pixel of VISIONLOOP_MAX_PIXELS: 4 s for 50 million pixels
HEAVY = 0.25  # seconds from which an image is heavy: a PNG of 18 million pixels, a JPEG 2000 of 1
_SCANS = 20  # if a refused JPEG has more scans, the error is about them; ten are usual


class Rate(NamedTuple):
    """The decoding time of a format.

    Attributes:
        pixel: Nanoseconds per pixel.
        byte: Nanoseconds per byte of the file.
        most: Upper limit of the total, in nanoseconds per pixel.
    """

    pixel: float
    byte: float = 0.0
    most: float = 78.0


RATES = {
    "JPEG": Rate(4, 6, 25),  # plus `SCAN` nanoseconds per pixel and scan
    "MPO": Rate(4, 6, 25),
    "PNG": Rate(14, 11, 55),
    "WEBP": Rate(22, 25),
    "AVIF": Rate(8, 75),
    "GIF": Rate(8),
    "BMP": Rate(4),
    "TIFF": Rate(18),
    "PPM": Rate(20),
    "JPEG2000": Rate(240, 60, 500),
}
SCAN = 1.3
SAVED_BY_SCALING = 3.0  # nanoseconds per pixel of a JPEG that the DCT scales to 1/2 or less
PLAIN = Rate(20, 110, 1000)  # a PPM of decimal numbers, which Pillow reads in Python
THROUGH_PILLOW = 10  # factor of a JPEG 2000 that only Pillow reads: it blocks the whole process
TIFF_RATES = {  # by Pillow's name of the compression; others are refused
    "raw": Rate(6),
    "packbits": Rate(8),
    "tiff_lzw": Rate(14),
    "tiff_adobe_deflate": Rate(18),
    "tiff_deflate": Rate(18),
    "jpeg": Rate(14),
    "tiff_ccitt": Rate(15),
    "group3": Rate(15),
    "group4": Rate(15),
    "zstd": Rate(12),
}


def decode_seconds(image: Image.Image, data: bytes) -> float:
    """The estimated CPU seconds of decoding an image that was opened and not loaded.

    Raises:
        InvalidImage: The image is a JPEG 2000 with an impossible structure, or a TIFF whose
            compression is not supported.
    """
    pixels = image.width * image.height
    if image.format == "JPEG2000":
        check_codestream(data, image.width, image.height)
        factor = 1 if read_by_opencv(image, data) else THROUGH_PILLOW
        return factor * _seconds(RATES["JPEG2000"], pixels, data)
    if image.format == "TIFF":
        compression = str(image.info.get("compression", "raw"))
        if compression not in TIFF_RATES:
            raise InvalidImage(
                f"TIFF with the compression {compression[:20]!r} is not supported. Save it with "
                "LZW, deflate or without compression, or as PNG."
            )
        return _seconds(TIFF_RATES[compression], pixels, data)
    if image.format == "PPM" and data[1:2] in (b"1", b"2", b"3"):
        return _seconds(PLAIN, pixels, data)
    seconds = _seconds(RATES[str(image.format)], pixels, data)
    if image.format in ("JPEG", "MPO"):
        seconds += scans(data) * SCAN * 1e-9 * pixels
    return seconds


def check_cost(image: Image.Image, data: bytes, max_pixels: int) -> float:
    """The estimated CPU seconds of decoding an image; an error if they are too many.

    Raises:
        PayloadTooLarge: The estimate is above `ALLOWED` × `max_pixels` seconds.
        InvalidImage: As `decode_seconds`; or the estimate is too high because a JPEG has far too
            many scans.
    """
    seconds, most = decode_seconds(image, data), ALLOWED * max_pixels
    if seconds <= most:
        return seconds
    if image.format in ("JPEG", "MPO") and (count := scans(data)) > _SCANS:
        raise InvalidImage(
            f"This JPEG has {count} scans, too many for its size. Save the image again as an "
            "ordinary JPEG."
        )
    kind = "plain PPM" if image.format == "PPM" else str(image.format)
    raise PayloadTooLarge(
        f"The image has {image.width} × {image.height} pixels as {kind}, which would take about "
        f"{seconds:.2g} s to decode; at most {most:.2g} s are allowed. Send it as JPEG or PNG, or "
        "scale it down first."
    )


def read_by_opencv(image: Image.Image, data: bytes) -> bool:
    """Whether OpenCV decodes a JPEG 2000 to the same pixels as Pillow.

    Pillow holds the interpreter's lock until it has decoded the whole image (seen in 13.0).
    """
    return (image.mode, colour_space(data)) in (("RGB", 16), ("RGB", None), ("L", 17))


def scans(data: bytes) -> int:
    """The number of scans of a JPEG, including those of an embedded thumbnail."""
    return data.count(b"\xff\xda")


def _seconds(rate: Rate, pixels: int, data: bytes) -> float:
    return 1e-9 * min(rate.pixel * pixels + rate.byte * len(data), rate.most * pixels)
