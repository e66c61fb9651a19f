"""The error codes that a client can meet."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus

from docs_reference.markdown import code, sentence, table
from errors import VisionLoopError

HEAD = """# Error codes

An error is always a JSON object; it is never an HTML page or a traceback:

```json
{"error": "Not Found", "code": "MODEL_NOT_FOUND",
 "message": "No model 'x'. Known: a, b.", "detail": "the same text as message",
 "request_id": "5f1c9a0e7d3b2846"}
```

`code` stays the same from version to version; clients decide by it. `message` is for people: it
says what was received, what is allowed and what to do. `detail` repeats it, because one family of
clients shows that field. `RATE_LIMITED`, `BACKEND_UNAVAILABLE`, `DATABASE_BUSY`,
`STORE_UNAVAILABLE` and `STORE_REFUSED` come with a `Retry-After` header, in seconds. `request_id`
is the request's `X-Request-ID`; the server's log has it in every line of the request, and the
traceback of a `PROCESSING_ERROR` ([Read logs and traces](../how-to/read-logs-and-traces.md)).

"""


def errors() -> str:
    """The page: a table with one row per error code, sorted by status."""
    kinds = sorted({*_kinds(VisionLoopError)}, key=lambda kind: (kind.status, kind.code))
    rows = [
        (code(kind.code), f"{kind.status} {HTTPStatus(kind.status).phrase}", _when(kind))
        for kind in kinds
    ]
    return HEAD + table(("code", "status", "when"), rows)


def _kinds(kind: type[VisionLoopError]) -> Iterator[type[VisionLoopError]]:
    if kind.__module__ == "errors":
        yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)


def _when(kind: type[VisionLoopError]) -> str:
    if not (said := vars(kind).get("__doc__")):
        raise ValueError(f"{kind.__name__} needs a docstring: its row in the docs.")
    return sentence(said)
