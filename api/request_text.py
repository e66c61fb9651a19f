"""Check whether the text of a request can be stored, and the error type of unknown fields."""

from __future__ import annotations

from typing import Any

UNKNOWN = "unknown_field"
"""The type of pydantic's error for an unknown field; its message is a whole sentence."""

PLAIN_TEXT = "null characters and halves of surrogate pairs are not allowed."


def plain_text(value: Any) -> bool:
    """Whether every text in a value, at any depth, is valid Unicode without null characters."""
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
