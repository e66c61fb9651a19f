"""Image files in answers: their media types, and how long browsers keep them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import Query, Request

from dataset.image_files import suffix_of
from errors import VisionLoopError
from inference.images import DECODING

CONTENT_TYPES = {
    ".jpg": "image/jpeg", ".png": "image/png", ".webp": "image/webp", ".bmp": "image/bmp",
    ".tif": "image/tiff", ".avif": "image/avif", ".jp2": "image/jp2",
}  # fmt: skip
NOSNIFF = {"X-Content-Type-Options": "nosniff"}
UNCHANGING = {"Cache-Control": "private, max-age=31536000, immutable", **NOSNIFF}
CHECKED = {"Cache-Control": "private, no-cache", **NOSNIFF}

DecodingRules = Annotated[
    int | None,
    Query(
        alias="decoding",
        description="number of the decoding rules, as in a `thumbnail_url`: with the current one "
        "browsers keep the answer; otherwise they ask each time whether it is still right",
    ),
]


def headers_of_file(content: str) -> dict[str, str]:
    """The headers of an image file as it is, whose SHA-256 is `content`."""
    return {**UNCHANGING, "ETag": f'"{content}"'}


def headers_of_decoded(content: str, shown: object, rules: int | None) -> dict[str, str]:
    """The headers of an image that is made from a file.

    Args:
        content: SHA-256 of the file.
        shown: What is made of it, such as the size of a thumbnail.
        rules: The number of decoding rules that its URL names.
    """
    kept = UNCHANGING if rules == DECODING else CHECKED
    return {**kept, "ETag": f'"{content}-{shown}-{DECODING}"'}


def has_it(request: Request, headers: dict[str, str]) -> bool:
    """Whether the browser has the image already, and asks only whether it is still right."""
    return headers["ETag"] in request.headers.get("if-none-match", "")


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
