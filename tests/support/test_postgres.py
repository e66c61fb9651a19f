"""The server that tests start ends with them, whatever happens to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support import postgres
from tests.support.patience import PATIENCE, wait_until

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(postgres.programs() is None, reason=f"NOT TESTED: {postgres.MISSING}")
def test_the_server_of_a_killed_process_ends_and_its_folder_goes() -> None:
    code = (
        "import os, time; from tests.support import postgres; server = postgres.start(); "
        "print(server.port, flush=True); time.sleep(3600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    ) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) > 0
        family = psutil.Process(process.pid).children(recursive=True)
        folders = {
            Path(line[line.index("-D") + 1]).parent
            for line in (child.cmdline() for child in family)
            if "-D" in line
        }
        assert folders
        assert all(folder.is_dir() for folder in folders)
        process.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(family, timeout=PATIENCE)
    assert not alive
    wait_until(lambda: not any(folder.exists() for folder in folders))
