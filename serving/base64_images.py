"""Decoding of base64 images in JSON bodies."""

from __future__ import annotations

import base64
import binascii

from errors import InvalidImage


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
            raise InvalidImage(f"'{field}' is a data URI without ';base64,'.")
    packed = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidImage(f"'{field}' is not base64 text.") from None
