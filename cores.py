"""The number of CPU cores that this process may use."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

CONTROL_GROUP = Path("/sys/fs/cgroup")


@lru_cache(maxsize=1)
def cpu_count() -> int:
    """Usable cores: the CPU affinity, limited by the quota of the control group; at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(cores, quota(CONTROL_GROUP) or cores))


def quota(root: Path) -> int | None:
    """The CPU quota of a control group (v2, else v1), rounded to cores; None without a limit."""
    try:
        if (root / "cpu.max").exists():
            quota, period = (root / "cpu.max").read_text().split()
        else:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text()
            period = (root / "cpu/cpu.cfs_period_us").read_text()
        return max(1, round(int(quota) / int(period))) if int(quota) > 0 else None
    except (OSError, ValueError):  # no such file, or "max": no limit
        return None
