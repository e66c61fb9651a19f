"""The programs of `make test-deploy`, and what it takes to run them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from source_tree import ROOT

DEPLOY = ROOT / "deploy"
FOLDER = Path(os.environ.get("DEPLOY_TOOLS") or ROOT / ".venv" / "tools" / "deploy" / "bin")


def tool(name: str) -> str:
    """The path of a program; the test is skipped where it is not installed."""
    found = shutil.which(name, path=str(FOLDER))
    if found is None and "DEPLOY_TOOLS" in os.environ:
        pytest.fail(f"{name} is missing in {FOLDER}")
    if found is None:
        pytest.skip(f"{name} is not installed: run `make test-deploy`")
    return found


def output(*command: str, env: dict[str, str] | None = None) -> str:
    """What a command that must not fail prints."""
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout
