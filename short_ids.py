"""Ids that may be shortened to a unique beginning, as git's can."""

from __future__ import annotations

from collections.abc import Sequence

from errors import ValidationFailed

SHORTEST = 4  # characters
SHOWN = 8  # ids in a message
RULE = f"or a unique beginning of it, of at least {SHORTEST} characters"


def only_match(text: str, matches: Sequence[str], what: str) -> str | None:
    """The one id of which a text is the beginning; None if there is none.

    Args:
        text: What was sent; an id that it equals is looked up before, so that a full id wins.
        matches: The ids that begin with it.
        what: What the ids are of, in the plural: "jobs".

    Raises:
        ValidationFailed: There are several; the message names them.
    """
    if len(matches) > 1:
        more = f" and {len(matches) - SHOWN} more" if len(matches) > SHOWN else ""
        raise ValidationFailed(
            f"{len(matches)} {what} begin with {text!r:.100}: {', '.join(matches[:SHOWN])}{more}. "
            "Give more characters of the id."
        )
    return matches[0] if matches else None
