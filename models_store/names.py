"""Validation and parsing of model names and `name:version` tags."""

from __future__ import annotations

import re
import unicodedata
from hashlib import sha256

from errors import ModelNotFound, ValidationFailed

NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
RESERVED = frozenset({"active", "compare", "latest", "promoted", "shadow"})  # some are routes

HASH = 6  # hexadecimal digits


def check_name(name: str) -> str:
    """The name of a model to publish, unchanged, if it is valid.

    Raises:
        ValidationFailed: It is not usable as a BentoML tag.
    """
    if not NAME.fullmatch(name) or ".." in name:
        raise ValidationFailed(
            f"{name[:80]!r} is not a valid model name. Names have 1 to 63 characters: lower-case "
            "letters a-z, digits, '.', '_' and '-', beginning and ending with a letter or digit."
        )
    if name in RESERVED:
        raise ValidationFailed(f"{name!r} is reserved; choose another model name.")
    return name


def suggest_name(text: str) -> str:
    """A valid model name derived from free text, such as a file's stem.

    Accents are left out. Where other letters or digits are lost, a hash of the text follows, so
    that models with names in another script do not become versions of one model.

    Examples:
        >>> suggest_name("My Model (v2)")
        'my-model-v2'
        >>> suggest_name("Café")
        'cafe'
        >>> suggest_name("猫 2")
        '2-06f53e'
    """
    letters = unicodedata.normalize("NFKD", text.casefold()).casefold()
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    name = re.sub(r"[^a-z0-9._-]+", "-", plain)
    name = re.sub(r"\.\.+", ".", name).strip("-._")[:63].strip("-._")
    if any(letter.isalnum() and not letter.isascii() for letter in plain):
        digest = sha256(letters.encode("utf-8", "replace")).hexdigest()[:HASH]
        return f"{name[: 62 - HASH].strip('-._') or 'model'}-{digest}"
    return f"{name}-model".lstrip("-") if name in RESERVED or not name else name


def split_tag(tag: str) -> tuple[str, str | None]:
    """Split `name:version` or `name` into its parts, lower-cased; the version may be None.

    Raises:
        ModelNotFound: It is not a valid name, for example a path, so no such model exists.
    """
    name, colon, version = tag.strip().lower().partition(":")
    valid = NAME.fullmatch(name) and ".." not in name
    if not valid or (colon and (not NAME.fullmatch(version) or ".." in version)):
        raise ModelNotFound(f"No model {tag[:80]!r}: a model id is name:version or name.")
    return name, version or None
