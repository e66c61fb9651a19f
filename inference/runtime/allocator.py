"""The free memory of the C allocator, which keeps it instead of returning it to the system."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any


def release_free_memory() -> None:
    """Return the pages that nothing uses to the system; only glibc can.

    glibc returns what lies at the end of an arena by itself, and each thread that allocates may
    have an arena. What a thread has freed between two pieces that are in use stays with the
    process. It takes milliseconds, in which allocations in one arena after another wait.
    """
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)  # without the interpreter's lock: other threads go on


@lru_cache(maxsize=1)
def _glibc() -> Any:
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "malloc_trim") else None
