"""Describes the CPU in one line, because benchmark results depend on it.

Even the outputs of neural networks differ between CPUs, in their last bits.
"""

from __future__ import annotations

import importlib
import os
import platform
from pathlib import Path

TOLD = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS")
EXTENSIONS = ("AVX2", "FMA3", "AVX512F", "AVX512_SPR")


def cpu() -> str:
    """The CPU's name, cores, vector extensions, and environment variables that limit their use."""
    # numpy asks the processor itself; numpy's public show_runtime() only prints the answer
    features = importlib.import_module("numpy._core._multiarray_umath").__cpu_features__

    has = " ".join(name for name in EXTENSIONS if features.get(name)) or "no AVX2"
    told = "".join(f", {name}={os.environ[name]}" for name in TOLD if name in os.environ)
    return f"{_name()}, {os.cpu_count()} cores, {has}{told}"


def _name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
