"""The folder of this code, and the child processes that run a module of it.

Nothing is found through the current folder: a built Bento is served from any folder, which may
hold files of the same names, may be read-only, and may be deleted while the service runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent


def module_command(module: str, *arguments: str | Path) -> list[str]:
    """`python -m MODULE ARGUMENTS…`, to be started with `module_environment` in `ROOT`."""
    # Without -P the current folder would come before PYTHONPATH.
    return [sys.executable, "-P", "-m", module, *map(str, arguments)]


def module_environment(inherited: Mapping[str, str] | None = None) -> dict[str, str]:
    """`inherited` (default: this process's environment) with `ROOT` first on PYTHONPATH."""
    variables = dict(os.environ if inherited is None else inherited)
    path = filter(None, (str(ROOT), variables.get("PYTHONPATH")))
    return variables | {"PYTHONPATH": os.pathsep.join(path)}
