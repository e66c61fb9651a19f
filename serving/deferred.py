"""What is done once the response is sent."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

_afterwards: ContextVar[list[Callable[[], None]] | None] = ContextVar("afterwards", default=None)


def afterwards(call: Callable[[], None]) -> None:
    """Have `call` run when the answer to this request has been sent; without one, now."""
    calls = _afterwards.get()
    if calls is None:
        call()
    else:
        calls.append(call)


def collect_afterwards() -> list[Callable[[], None]]:
    """What `afterwards` gathers in this context from now on."""
    calls: list[Callable[[], None]] = []
    _afterwards.set(calls)
    return calls
