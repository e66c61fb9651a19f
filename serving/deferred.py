"""Deferred calls: work of a request that runs after its response has been sent.

A handler registers a call with `afterwards`. The outermost middleware creates the list of calls
with `collect_afterwards` when the request begins, and runs them when it has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

_afterwards: ContextVar[list[Callable[[], None]] | None] = ContextVar("afterwards", default=None)


def collect_afterwards() -> list[Callable[[], None]]:
    """A new list; `afterwards` appends to it from now on in this context (`contextvars`)."""
    calls: list[Callable[[], None]] = []
    _afterwards.set(calls)
    return calls


def afterwards(call: Callable[[], None]) -> None:
    """Run `call` after the response to this request has been sent; outside a request, at once."""
    calls = _afterwards.get()
    if calls is None:
        call()
    else:
        calls.append(call)
