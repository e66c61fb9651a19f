"""Text of a request that cannot be stored, and the type of the error for fields nobody knows."""

from __future__ import annotations

from typing import Any

UNKNOWN = "unknown_field"
"""The type of pydantic's error for a field that is not known; its message says it all."""

PLAIN_TEXT = "null characters and halves of surrogate pairs are not allowed."


def plain_text(value: Any) -> bool:
    """Whether what a client sent can be stored and written: every text in it, however deep."""
    if isinstance(value, str):
        return "\0" not in value and (value.isascii() or _encodes(value))
    if isinstance(value, dict):
        return all(plain_text(name) and plain_text(part) for name, part in value.items())
    return all(map(plain_text, value)) if isinstance(value, list) else True


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
