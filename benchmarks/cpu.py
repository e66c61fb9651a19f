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
# What int8 gains depends on these; as /proc/cpuinfo names them.
INT8 = {"VNNI": {"avx512_vnni", "avx_vnni"}, "AMX": {"amx_int8"}}


def cpu() -> str:
    """The CPU's name, cores, vector extensions, and environment variables that limit their use."""
    # numpy asks the processor itself; numpy's public show_runtime() only prints the answer
    features = importlib.import_module("numpy._core._multiarray_umath").__cpu_features__

    has = " ".join(name for name in EXTENSIONS if features.get(name)) or "no AVX2"
    flags = {flag for line in _lines("flags") for flag in line.split()}
    has += "".join(f" {name}" if flags & any_of else f" no {name}" for name, any_of in INT8.items())
    told = "".join(f", {name}={os.environ[name]}" for name in TOLD if name in os.environ)
    return f"{_name()}, {os.cpu_count()} cores, {has}{told}"


def _name() -> str:
    names = _lines("model name")
    return names[0] if names else platform.processor() or platform.machine()


def _lines(key: str) -> list[str]:
    """The values of a key of /proc/cpuinfo, one per core; none where there is no such file."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    return [line.partition(":")[2].strip() for line in lines if line.startswith(key)]
