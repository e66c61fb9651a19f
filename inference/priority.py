"""Which threads go first."""

from __future__ import annotations

import contextlib
import os
import sys
import threading

LOWEST = 19  # nice


def give_way() -> None:
    """Let the calling thread run only on what others leave. Linux has priorities by thread.

    Not the whole process: its other threads answer people who wait.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST)
