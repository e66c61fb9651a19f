"""Decoding of base64 images in JSON bodies."""

from __future__ import annotations

import base64
import binascii
from functools import partial
from string import whitespace

from errors import InvalidImage
from serving.large_bodies import worked_on

_STANDARD = bytes.maketrans(b"-_", b"+/")
_SPACE = whitespace.encode()


async def decoded(text: str, field: str = "image_base64") -> bytes:
    """The same as `from_base64`; a long text is decoded in a thread."""
    return await worked_on(len(text), partial(from_base64, text, field))


def from_base64(text: str, field: str = "image_base64") -> bytes:
    """The bytes of a base64 text or a `data:` URI.

    The standard and the URL-safe alphabet are accepted, and missing padding.

    Args:
        text: The value of the field.
        field: The name of the field, for the error message.

    Raises:
        InvalidImage: The text is not base64.
    """
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise InvalidImage(
                f"'{field}' is a data URI without ';base64,'. Send data:image/jpeg;base64,… or the "
                "base64 text alone."
            )
    try:
        packed = text.encode("ascii").translate(_STANDARD, _SPACE).rstrip(b"=")
        return base64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidImage(
            f"'{field}' is not base64 text. Encode the file's bytes; with a shell: "
            "base64 -w0 photo.jpg"
        ) from None
