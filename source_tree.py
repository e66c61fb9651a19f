"""The root folder of the source code, and commands that run one of its modules in a child process.

Nothing depends on the current folder: a built Bento can be served from any folder. That folder may
contain modules of the same names, may be read-only, or may be deleted while the service runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VERSION = "1.0"  # of VisionLoop, as in the OpenAPI document


def module_command(module: str, *arguments: str | Path) -> list[str]:
    """The command `python -m MODULE ARGUMENTS…`; start it in `ROOT` with `module_environment`."""
    # Without -P, Python searches the current folder before PYTHONPATH.
    return [sys.executable, "-P", "-m", module, *map(str, arguments)]


def module_environment(inherited: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment variables with `ROOT` first on PYTHONPATH.

    Args:
        inherited: The variables to extend; default: those of this process.
    """
    variables = dict(os.environ if inherited is None else inherited)
    path = filter(None, (str(ROOT), variables.get("PYTHONPATH")))
    return variables | {"PYTHONPATH": os.pathsep.join(path)}
