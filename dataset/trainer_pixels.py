"""Checks whether training decodes an image file to the same pixels as the service.

Ultralytics decodes with OpenCV. For the suffix `.tif` it decodes all pages, unchanged
(utils/patches.py, 8.4.190). Files that it cannot decode, or decodes differently, are written as
PNG into the folder that a job trains on (see `dataset.view`).
"""

from __future__ import annotations

import cv2
import numpy as np

from inference.images import Header, Pixels

READ = frozenset(
    {"JPEG", "MPO", "PNG", "BMP", "WEBP", "TIFF", "AVIF", "JPEG2000"}
)  # Pillow's names
PAGED = (".tif", ".tiff")
BY_PILLOW = ".avif"
CLOSE = 1.0  # largest mean difference of 8-bit values between two decoders of a lossy file


def reads_the_same(data: bytes, suffix: str, header: Header, pixels: Pixels | None) -> bool:
    """Whether a trainer decodes a file to the given pixels.

    Args:
        data: The encoded image.
        suffix: Suffix of its file name.
        header: The image's header.
        pixels: The pixels that the service decodes, RGB (h, w, 3); may be None if `needs_pixels`
            is false.
    """
    if header.format not in READ:  # Ultralytics reads no other format, whatever the suffix
        return False
    if pixels is None or not needs_pixels(suffix, header):
        return True
    if header.format == "PNG" and data.find(b"IDAT") < data.rfind(b"eXIf"):
        return False  # OpenCV finds an orientation there, Ultralytics' check of sizes does not
    buffer = np.frombuffer(data, np.uint8)
    if suffix.lower() in PAGED:  # detection reads the first page unchanged, classification does not
        read, pages = _pages(buffer)
        if not read or not _same(pages, pixels):
            return False
    return _same(_coloured(buffer), pixels)


def needs_pixels(suffix: str, header: Header) -> bool:
    """Whether `reads_the_same` must compare pixels.

    It need not for 8-bit JPEG and PNG, nor for AVIF, which both sides decode with Pillow.
    """
    if suffix.lower() in PAGED:
        return True
    if suffix.lower() == BY_PILLOW and header.format == "AVIF":
        return False
    return not header.ordinary


def _pages(buffer: np.ndarray) -> tuple[bool, np.ndarray | None]:
    """Whether OpenCV reads the file as one page, and that page's pixels, BGR.

    Training would decode all pages, of which there may be thousands: only two are decoded here, and
    a file of several is written anew for it.
    """
    try:
        read, pages = cv2.imdecodemulti(buffer, cv2.IMREAD_UNCHANGED, None, (0, 2))
    except cv2.error:
        return False, None
    if not read or len(pages) != 1:
        return False, None
    first = np.asarray(pages[0])
    if first.ndim != 3:  # Ultralytics reads grey images with imdecode
        return True, _coloured(buffer)
    return True, first[..., :3]


def _coloured(buffer: np.ndarray) -> np.ndarray | None:
    try:
        return cv2.imdecode(buffer, cv2.IMREAD_COLOR)
    except cv2.error:
        return None


def _same(bgr: np.ndarray | None, pixels: Pixels) -> bool:
    if bgr is None or bgr.dtype != np.uint8 or bgr.shape != pixels.shape:
        return False
    return float(np.mean(cv2.absdiff(np.ascontiguousarray(bgr[..., ::-1]), pixels))) <= CLOSE
