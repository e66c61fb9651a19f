"""Points in time as people write them: `90d`, a date, or a full time."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from errors import ValidationFailed

SPAN = re.compile(r"([1-9][0-9]{0,4}) ?(m|h|d|w)")
UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
EXAMPLES = "90d, 12h, 4w, 2027-06-30 or 2027-06-30T12:00:00Z"


def after(text: str, field: str) -> str:
    """The stored form of a time in the future: a span from now, or a date or time in UTC.

    Raises:
        ValidationFailed: It is neither, or it is past.
    """
    found = _parsed(text, field, 1)
    if found <= datetime.now(UTC):
        raise ValidationFailed(f"'{field}' is past: {_stored(found)}. Write {EXAMPLES}.")
    return _stored(found)


def since(text: str, field: str) -> str:
    """The stored form of a time in the past: a span before now, or a date or time in UTC.

    Raises:
        ValidationFailed: It is neither.
    """
    return _stored(_parsed(text, field, -1))


def _parsed(text: str, field: str, sign: int) -> datetime:
    text = text.strip()
    try:
        if span := SPAN.fullmatch(text):
            return datetime.now(UTC) + sign * timedelta(**{UNITS[span[2]]: int(span[1])})
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValidationFailed(
            f"'{field}' is not a time: {text[:40]!r}. Write {EXAMPLES}."
        ) from None


def _stored(moment: datetime) -> str:
    """As `database.now` has it, so that times can be compared as texts."""
    return moment.isoformat(timespec="milliseconds")
