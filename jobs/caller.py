"""The caller whose request is being handled; its jobs are counted by `jobs.quota`."""

from __future__ import annotations

from contextvars import ContextVar

CALLER: ContextVar[str | None] = ContextVar("CALLER", default=None)
"""The start of a token's digest, or an address; None outside of requests."""


def public_name(recorded: str | None) -> str | None:
    """Who did something, as everyone may see it: no addresses, no names of this machine's users.

    A token's name; `open`: a caller without a token; else what did it, such as `command line`.
    """
    kind, _, name = (recorded or "").removeprefix("API, ").partition(" ")
    if kind in ("token", "address"):
        return name if kind == "token" else "open"
    return f"{kind} {name}".partition(",")[0].strip() or None
