"""A thread that gives way, in a process whose other threads do not."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from inference.runtime.threads import LOWEST, run_at_lowest_priority


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities by thread")
def test_one_thread_gives_way_and_the_others_stay() -> None:
    def nice() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = nice()
    with ThreadPoolExecutor(1, initializer=run_at_lowest_priority) as quiet:
        assert quiet.submit(nice).result() == LOWEST
    assert nice() == before
