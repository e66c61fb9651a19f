"""Image files in answers: their media types, and how long browsers keep them."""

from __future__ import annotations

from pathlib import Path

from dataset.image_files import suffix_of
from errors import VisionLoopError

CONTENT_TYPES = {
    ".jpg": "image/jpeg", ".png": "image/png", ".webp": "image/webp", ".bmp": "image/bmp",
    ".tif": "image/tiff", ".avif": "image/avif", ".jp2": "image/jp2",
}  # fmt: skip
NOSNIFF = {"X-Content-Type-Options": "nosniff"}
UNCHANGING = {"Cache-Control": "private, max-age=31536000, immutable", **NOSNIFF}


def content_type(data: bytes) -> str:
    """The media type of an image file, by its first bytes; its name may be wrong."""
    try:
        return CONTENT_TYPES.get(suffix_of(data), "application/octet-stream")
    except VisionLoopError:
        return "application/octet-stream"


def content_type_of(path: Path) -> str:
    """The media type of an image file on disk."""
    with path.open("rb") as file:
        return content_type(file.read(16))
