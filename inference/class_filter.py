"""The ids of the classes that a request asks for, by name or id."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from errors import ValidationFailed

NEAR = 5  # names that are near an unknown one, in a message
LISTED = 30  # names of a model's classes in a message
SHOWN = 60  # characters of an unknown name in a message, and those that are compared


def class_ids(wanted: Sequence[int | str], names: Sequence[str]) -> tuple[int, ...]:
    """The ids of the wanted classes, ascending.

    A text is the name of a class, or several names separated by commas; the name of a class may
    itself have commas. What is no name is an id, if it is a whole number.

    Args:
        wanted: Names and ids.
        names: The model's class names, by id.

    Raises:
        ValidationFailed: There is no such class, or none is named.

    Examples:
        >>> class_ids(["stop", "0, yield"], ["give way", "stop", "yield"])
        (0, 1, 2)
    """
    ids = {name: class_id for class_id, name in enumerate(names)}
    found: set[int] = set()
    for one in wanted:
        if isinstance(one, int):
            found.add(_checked(one, names))
        elif one.strip() in ids:
            found.add(ids[one.strip()])
        else:
            parts = (part.strip() for part in one.split(","))
            found.update(_id(part, ids, names) for part in parts if part)
    if not found:
        raise ValidationFailed(f"'classes' names no class. {_known(names)}")
    return tuple(sorted(found))


def _id(text: str, ids: dict[str, int], names: Sequence[str]) -> int:
    if text in ids:
        return ids[text]
    if text.isascii() and text.isdigit() and len(text) < 10:
        return _checked(int(text), names)
    near = _near(text[:SHOWN], names)
    meant = f"Did you mean {' or '.join(map(repr, near))}?" if near else _known(names)
    raise ValidationFailed(f"'classes': this model has no class {text[:SHOWN]!r}. {meant}")


def _checked(class_id: int, names: Sequence[str]) -> int:
    if 0 <= class_id < len(names):
        return class_id
    raise ValidationFailed(
        f"'classes': this model has no class {class_id}; its ids are 0 to {len(names) - 1}. "
        f"{_known(names)}"
    )


def _near(text: str, names: Sequence[str]) -> list[str]:
    """The names most like `text`, whatever its case; the most similar first."""
    plain = text.casefold()
    spelt = {name.casefold()[:SHOWN]: name for name in reversed(names)}
    near = [spelt[one] for one in get_close_matches(plain, spelt, NEAR)]
    if near or len(plain) < 3:
        return near
    return [name for one, name in spelt.items() if plain in one][:NEAR]


def _known(names: Sequence[str]) -> str:
    more = f", … ({len(names)} in all)" if len(names) > LISTED else ""
    return f"Known: {', '.join(names[:LISTED])}{more}."
