"""The number of processes that load training data; no torch."""

from __future__ import annotations

from pathlib import Path

from disk_space import free_bytes

SHARED_MEMORY = Path("/dev/shm")
IN_FLIGHT = 3  # batches of a process: two that are waiting, one that is being built (torch 2.13)
MOST = 8


def data_workers(cores: int, batch_bytes: int) -> int:
    """The number of data loading processes for a machine; 0: the training process loads the data.

    The processes hand over batches in shared memory. A container has 64 MiB of shared memory by
    default; when it is used up, the kernel kills the process (SIGBUS).

    Args:
        cores: CPU cores that data loading may use.
        batch_bytes: Bytes of the batches, of all data loaders, that a process builds at a time.
    """
    wanted = max(0, min(MOST, cores - 2))
    if not SHARED_MEMORY.is_dir():
        return wanted
    fitting = free_bytes(SHARED_MEMORY) // 2 // max(1, IN_FLIGHT * batch_bytes)
    return min(wanted, fitting)
