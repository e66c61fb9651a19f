"""Who draws: the name under which drafts, claims and commits of a request are stored."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import unquote

from fastapi import Depends, Header, Request

from api.middleware.request_state import exchange
from errors import ValidationFailed

HEADER = "X-Annotator"
LONGEST = 60  # characters of a stated name
UNVERIFIED = "(unverified)"  # follows a stated name: anybody may state it


def _author(
    request: Request,
    stated: str = Header(
        "",
        alias=HEADER,
        description="the annotator's name, percent-encoded UTF-8, if the token is not a named one: "
        f"1 to {LONGEST} characters. Drafts are kept by name; callers with a named token have "
        "that token's",
    ),
) -> str:
    """The caller's name: that of its named token; else the stated one, marked as unverified.

    Names of tokens have no spaces, so a stated name is never one of theirs.

    Raises:
        ValidationFailed: The stated name is empty, too long, or has control characters.
    """
    state = exchange(request.scope)
    if state.token is not None:
        return state.token.name
    if not stated:
        return state.who
    try:
        name = unquote(stated, errors="strict").strip()
    except UnicodeDecodeError:
        name = ""
    if not 0 < len(name) <= LONGEST or not name.isprintable():
        raise ValidationFailed(
            f"'{HEADER}' must be a name of 1 to {LONGEST} printable characters, percent-encoded "
            f"in UTF-8; got {stated!r:.80}."
        )
    return f"{name} {UNVERIFIED}"


AuthorDep = Annotated[str, Depends(_author)]
