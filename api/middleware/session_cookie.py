"""The cookie of a browser's session in a request's headers, and whether our own page sent them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from starlette.datastructures import Headers

NAME = "visionloop_session"
MOST_COOKIES = 5  # of the name that are tried: a host has one for each prefix at most
_PORT = re.compile(r":(\d{1,5})$")

FOREIGN = (
    "This request has the cookie of a session but does not come from a page of this server "
    "(Origin: {}). Scripts: send the token itself, 'Authorization: Bearer <token>', and no cookie."
)


def cookie_name(headers: Headers) -> str:
    """The cookie's name. It has the port, because cookies are shared by all ports of a host."""
    port = _PORT.search(headers.get("host", ""))
    return f"{NAME}_{port[1]}" if port else NAME


def sent_cookies(headers: Headers) -> Iterator[str]:
    """The values of the session cookie, that of the longest path first, as browsers send them."""
    name = cookie_name(headers)
    pairs = (pair.partition("=") for line in headers.getlist("cookie") for pair in line.split(";"))
    values = [value.strip() for key, _, value in pairs if key.strip() == name]
    yield from values[:MOST_COOKIES]


def same_origin(headers: Headers) -> bool:
    """Whether a page of this server sent a request, as its browser says.

    The scheme is not compared: a proxy with TLS may be in between.
    """
    origin = headers.get("origin")
    if origin is None:
        return headers.get("sec-fetch-site") == "same-origin"
    host = headers.get("host", "").lower()
    return bool(host) and origin.partition("://")[2].lower() == host
