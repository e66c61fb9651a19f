"""Errors of CUDA after which a process can never use its GPU again.

CUDA calls them sticky: every later call of the process returns the same error, whatever it does.
Only a new process has a new context.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator

from errors import VisionLoopError

log = logging.getLogger("visionloop.inference")

EXIT_CODE = 70  # EX_SOFTWARE
STICKY = (  # as `cudaGetErrorString` has them
    "an illegal memory access was encountered",
    "an illegal instruction was encountered",
    "device-side assert triggered",
    "hardware stack error",
    "invalid program counter",
    "misaligned address",
    "operation not supported on global/shared address space",
    "the launch timed out and was terminated",
    "uncorrectable ECC error encountered",
    "unspecified launch failure",
)


def is_sticky(error: BaseException) -> bool:
    """Whether an error, or one that led to it, is a sticky error of CUDA.

    Our own errors are none, whatever they say: they quote what clients sent.
    """
    found = [str(one) for one in _chain(error) if not isinstance(one, VisionLoopError)]
    return any(text in one for one in found for text in STICKY)


def end_if_sticky(error: BaseException, end: Callable[[int], object] = os._exit) -> None:
    """End this process at once if the error is sticky; the supervisor starts a new one.

    The requests in flight get no answer from this process. The gateway sends them to the other
    runner or to the new process, as after any end of a process.
    """
    if is_sticky(error):
        log.critical("The GPU cannot be used by this process any more; it ends.", exc_info=error)
        logging.shutdown()
        end(EXIT_CODE)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__ or error
