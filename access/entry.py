"""An entry of the audit trail, before it is written. This module imports nothing slow."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

SECRET = re.compile(r"vl_[0-9a-f]{12}_\w+")


def _now() -> str:
    """As `database.now`, which is slow to import."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry that is to be added.

    Attributes:
        who: A token's name, `environment token`, `environment admin token`, `open` for a caller who
            needs none, or `command line, USER`.
        route: The route's template, or the shell command.
        target: Id of the model, job or dataset, or name of the token.
        what: A few words.
        address: The client's address; None: a shell command.
    """

    who: str
    route: str
    what: str = ""
    target: str | None = None
    address: str | None = None
    method: str | None = None
    status: int | None = None
    request_id: str | None = None
    at: str = field(default_factory=_now)


def without_secrets(text: str, more: Sequence[str] = ()) -> str:
    """The text without tokens: named ones by their form, and those in `more`."""
    for secret in more:
        text = text.replace(secret, "…")
    return SECRET.sub("vl_…", text)
