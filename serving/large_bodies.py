"""A thread that parses and decodes large request bodies, so that the event loop goes on."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

LARGE = 256 * 1024  # bytes above which the thread is used; a hop to it costs 0.1 ms

# A parser holds the interpreter's lock during a call. If several threads parsed, the event loop
# would get it only after all of them.
_thread = ThreadPoolExecutor(1, "large-bodies")


async def worked_on(size: int, work: Callable[[], Result]) -> Result:
    """The result of `work` on `size` bytes: called in the thread if they are many."""
    if size <= LARGE:
        return work()
    context = contextvars.copy_context()  # as `asyncio.to_thread` does
    return await asyncio.get_running_loop().run_in_executor(_thread, context.run, work)
