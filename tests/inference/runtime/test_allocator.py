"""Free memory of the C allocator is returned to the system, where that is possible."""

from __future__ import annotations

import ctypes

import numpy as np
import psutil
import pytest

from inference.runtime import allocator

MIB = 2**20


def test_memory_between_pieces_in_use_is_returned() -> None:
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("only glibc can")
    process = psutil.Process()
    allocator.release_free_memory()
    pieces = [np.ones(2000) for _ in range(10_000)]  # 16 KB each: too small to be mapped
    used = process.memory_info().rss
    kept = pieces[::50]
    del pieces
    allocator.release_free_memory()
    assert used - process.memory_info().rss > 50 * MIB  # of 150
    assert len(kept) == 200


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    allocator._glibc.cache_clear()
    allocator.release_free_memory()
    allocator._glibc.cache_clear()
