"""Whether training reads a file to the pixels that the service's own decoder gives.

Ultralytics reads with OpenCV, by the suffix in one case: of a `.tif` all pages at once, unchanged
(utils/patches.py, 8.4.190). Files that it would not read, or read differently, are written as PNG
into a job's view.
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
CLOSE = 1.0  # mean difference of 8-bit values: two decoders of one lossy file


def reads_the_same(data: bytes, suffix: str, header: Header, pixels: Pixels | None) -> bool:
    """Whether a trainer sees `pixels`, RGB (h, w, 3), in the file `data` called `*suffix`.

    `pixels` may be None for what `needs_pixels` does not ask for.
    """
    if header.format not in READ:  # Ultralytics takes no other, whatever the suffix
        return False
    if pixels is None or not needs_pixels(suffix, header):
        return True
    buffer = np.frombuffer(data, np.uint8)
    if suffix.lower() in PAGED:  # detection takes the first page unchanged, a classifier does not
        read, pages = _pages(buffer)
        if not read or not _same(pages, pixels):
            return False
    return _same(_coloured(buffer), pixels)


def needs_pixels(suffix: str, header: Header) -> bool:
    """Whether it takes a comparison: not for 8-bit JPEG and PNG, nor for AVIF, which Pillow reads
    for both."""
    if suffix.lower() in PAGED:
        return True
    if suffix.lower() == BY_PILLOW and header.format == "AVIF":
        return False
    return not header.ordinary


def _pages(buffer: np.ndarray) -> tuple[bool, np.ndarray | None]:
    try:
        read, pages = cv2.imdecodemulti(buffer, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return False, None
    if not read or not pages:
        return False, None
    first = np.asarray(pages[0])
    if first.ndim != 3:  # grey ones are read by the ordinary way
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
