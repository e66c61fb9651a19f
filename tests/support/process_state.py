"""What a test must leave as it found it, since every later test of the process shares it."""

from __future__ import annotations

import locale
import logging
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD)


def process_state() -> dict[str, Any]:
    """By name, what outlives a test and nothing has a reason to change."""
    umask = os.umask(0o077)
    os.umask(umask)
    root = logging.getLogger()
    return {
        "working directory": os.getcwd(),
        "umask": umask,
        "time zone": time.tzname,
        "locale": locale.setlocale(locale.LC_ALL),
        "signal handlers": [signal.getsignal(number) for number in STOPS],
        "socket timeout": socket.getdefaulttimeout(),
        "recursion limit": sys.getrecursionlimit(),
        "sys.path": list(sys.path),
        "root logger": (root.level, [h for h in root.handlers if "pytest" not in str(type(h))]),
        "numpy errors": np.geterr(),
        **_of_torch(),
    }


def _of_torch() -> dict[str, Any]:
    """Nothing where it is not imported: then nobody changed it."""
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return {}
    return {
        "torch default type": torch.get_default_dtype(),
        "torch gradients": torch.is_grad_enabled(),
        "torch inference mode": torch.is_inference_mode_enabled(),
        "torch autocast": torch.is_autocast_enabled("cpu"),
    }


@contextmanager
def put_back() -> Iterator[None]:
    """Undo what Ultralytics and runners set for a process that they have to themselves.

    Ultralytics 8.4.190 sets torch's deterministic mode, its threads and environment variables
    at the start of every training and validation; a runner sets the threads of OpenCV.
    """
    environment, cv2, torch = dict(os.environ), sys.modules.get("cv2"), sys.modules.get("torch")
    threads = cv2.getNumThreads() if cv2 else 0
    modes = _modes(torch) if torch else ()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        if cv2:
            cv2.setNumThreads(threads)
        if torch and _modes(torch) != modes:
            number, deterministic, warn, torch.backends.cudnn.benchmark, fixed = modes
            torch.set_num_threads(number)
            torch.use_deterministic_algorithms(deterministic, warn_only=warn)
            torch.backends.cudnn.deterministic = fixed


def _modes(torch: Any) -> tuple[Any, ...]:
    return (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
    )


def reseed(seed: int) -> None:
    """Start every global generator anew."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)
