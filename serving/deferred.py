"""Work of a request that is done after its response has been sent.

A handler registers it with `afterwards`; the outermost middleware collects it with
`collect_afterwards` when the request begins, and runs it at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

_afterwards: ContextVar[list[Callable[[], None]] | None] = ContextVar("afterwards", default=None)


def collect_afterwards() -> list[Callable[[], None]]:
    """The list to which `afterwards` appends in this context from now on."""
    calls: list[Callable[[], None]] = []
    _afterwards.set(calls)
    return calls


def afterwards(call: Callable[[], None]) -> None:
    """Run `call` after the response to this request; outside a request, now."""
    calls = _afterwards.get()
    if calls is None:
        call()
    else:
        calls.append(call)
