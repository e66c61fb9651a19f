"""A PostgreSQL server for the tests of one process, on a free port and in a temporary folder.

A keeper process owns it: it stops the server and deletes the folder once the tests' process has
ended, however that ended. PostgreSQL refuses root, so root starts it as the user `postgres`.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]
MISSING = "PostgreSQL is not installed (apt-get install postgresql)"
OWNER = "visionloop"  # the superuser of the server
START = 120.0  # seconds
OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",  # SIGKILL of the server loses nothing all the same, as the system goes on
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "autovacuum": "off",
    "logging_collector": "off",
}


def programs() -> Path | None:
    """The folder of `initdb` and `postgres`; None where PostgreSQL cannot be started."""
    if os.getuid() == 0 and not (shutil.which("runuser") and _has_account()):
        return None
    found = [Path(path) for path in glob.glob("/usr/lib/postgresql/*/bin/postgres")]
    if found:
        return max(found, key=lambda path: int(path.parent.parent.name)).parent
    path = shutil.which("postgres")
    return Path(path).parent if path and shutil.which("initdb") else None


class Postgres:
    """The server: its port, its databases, and what a test does to it."""

    def __init__(self, keeper: subprocess.Popen[str]) -> None:
        self._keeper = keeper
        self.port = int(self._ask(""))

    def url(self, name: str) -> str:
        """The URL of a database, for VISIONLOOP_DATABASE_URL."""
        return f"postgresql+psycopg://{OWNER}@127.0.0.1:{self.port}/{name}"

    def create(self, name: str, template: str = "template0") -> str:
        """Create a database, empty or as a copy of one that nobody uses; returns its URL."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def drop(self, name: str) -> None:
        """Delete a database, and end its connections."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def execute(self, statement: str) -> None:
        """Execute a statement outside a transaction, in the database `postgres`."""
        import psycopg

        address = self.url("postgres").replace("+psycopg", "")
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(statement)

    def kill(self) -> None:
        """End it with SIGKILL, as a lost machine does."""
        self._ask("kill\n")

    def start(self) -> None:
        """Start it again after `kill`, on the same port and with the same data."""
        self._ask("start\n")

    def close(self) -> None:
        """Stop it and delete its folder."""
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.close()
        self._keeper.wait(START)
        self._keeper.stdout.close()

    def _ask(self, line: str) -> str:
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.write(line)
        self._keeper.stdin.flush()
        answer = self._keeper.stdout.readline().strip()
        assert answer, "PostgreSQL could not be started; its log is above."
        return answer


def start() -> Postgres:
    """Start a server; it ends with this process at the latest."""
    return Postgres(
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.postgres"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C ends the tests, and it after them
        )
    )


@contextmanager
def running() -> Iterator[Postgres]:
    """A server while the block runs."""
    server = start()
    try:
        yield server
    finally:
        server.close()


def _has_account() -> bool:
    import pwd

    with contextlib.suppress(KeyError):
        return bool(pwd.getpwnam("postgres"))
    return False


# --- the keeper


def _as_owner(*command: str | Path) -> list[str]:
    words = [str(word) for word in command]
    if os.getuid() != 0:
        return words
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--", *words]


def _initialize(bin_folder: Path, folder: Path) -> None:
    if os.getuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    subprocess.run(
        _as_owner(
            bin_folder / "initdb", "-D", folder / "data", "-A", "trust", "-U", OWNER,
            "--locale=C", "-E", "UTF8", "--no-sync",
        ),
        cwd=folder,
        stdout=subprocess.DEVNULL,
        check=True,
    )  # fmt: skip


def _start(bin_folder: Path, folder: Path, port: int) -> subprocess.Popen[bytes]:
    options = OPTIONS | {"port": str(port), "unix_socket_directories": str(folder)}
    words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            _as_owner(bin_folder / "postgres", "-D", folder / "data", *words),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and process.poll() is None:
        asked = [str(bin_folder / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        if subprocess.run(asked).returncode == 0:
            return process
        time.sleep(0.05)
    process.kill()
    process.wait()
    raise RuntimeError((folder / "log").read_text(errors="replace"))


def _keep(commands: IO[str]) -> None:
    bin_folder = programs()
    assert bin_folder is not None, MISSING
    folder = Path(tempfile.mkdtemp(prefix="visionloop-postgres-"))
    process = None
    try:
        _initialize(bin_folder, folder)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = _start(bin_folder, folder, port)
        print(port, flush=True)
        for command in commands:
            if command == "kill\n":
                process.kill()
                process.wait()
            else:
                process = _start(bin_folder, folder, port)
            print("done", flush=True)
    finally:
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGQUIT)  # at once: nobody needs its data
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    _keep(sys.stdin)
