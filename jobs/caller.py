"""The caller whose request is being handled; its jobs are counted by `JobStore.create`."""

from __future__ import annotations

from contextvars import ContextVar

CALLER: ContextVar[str | None] = ContextVar("CALLER", default=None)
"""The start of a token's digest, or an address; None outside of requests."""
