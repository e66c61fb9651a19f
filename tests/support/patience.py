"""How long tests wait: until it has happened. On a busy machine that may be minutes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

PATIENCE = 600.0  # seconds; a wait ends as soon as there is something to see


def wait_until(found: Callable[[], Any], pause: float = 0.05, patience: float = PATIENCE) -> Any:
    """What `found` answers, once it is true."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if result := found():
            return result
        time.sleep(pause)
    raise AssertionError(f"It did not come to that within {patience:g} seconds.")


async def until(found: Callable[[], Any], pause: float = 0.02) -> Any:
    """The same, while the event loop goes on."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if result := found():
            return result
        await asyncio.sleep(pause)
    raise AssertionError(f"It did not come to that within {PATIENCE:g} seconds.")
