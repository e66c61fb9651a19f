"""The clock of stored times, which has a resolution of a millisecond."""

from __future__ import annotations

from database import now
from tests.support.patience import wait_until


def next_instant() -> None:
    """Return once `database.now` has another value than before the call."""
    before = now()
    wait_until(lambda: now() != before, pause=0.0005)
