"""The id of the request that is being handled: in its answer, its errors, its log lines, its jobs.

The gateway chooses it (`serving.http_protocol`), or takes the caller's. It travels with the images
to the runners (`inference.prediction.InferenceItem`) and with a job to its process (`jobs.job`).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

HEADER = "X-Request-ID"
LONGEST = 128  # characters of an id
_RAW = HEADER.lower().encode()
_SANE = re.compile(rb"[A-Za-z0-9._:=+/@-]{1,%d}" % LONGEST)

REQUEST_ID: ContextVar[str | None] = ContextVar("REQUEST_ID", default=None)
"""None outside of requests."""


def chosen(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The caller's id if there is one, of sane length and characters; else a new one."""
    given = [value.strip(b" \t") for name, value in headers if name == _RAW]
    if len(given) == 1 and _SANE.fullmatch(given[0]):
        return given[0].decode()
    return secrets.token_hex(8)


@contextmanager
def of_request(request_id: str | None) -> Iterator[None]:
    """A context in which log lines and errors have this id."""
    token = REQUEST_ID.set(request_id)
    try:
        yield
    finally:
        REQUEST_ID.reset(token)
