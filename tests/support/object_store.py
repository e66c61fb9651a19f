"""Object stores for tests: real servers on this machine, started once a session.

`make test` installs moto, an emulator that is strict about the protocol; `make test-store` also
JuiceFS' gateway, which is MinIO's code over files.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

from tests.support.patience import wait_until

TOOLS = Path(sys.prefix) / "tools" / "store" / "bin"
MISSING = "there is no object store to test with; `make test-store` installs two"
BUCKET = "visionloop"
KEY, SECRET = "visionloop-key", "visionloop-secret"


@dataclass
class StoreServer:
    """A running server with one bucket."""

    address: str
    process: subprocess.Popen[bytes]
    _numbers: Iterator[int] = field(default_factory=count)

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which VisionLoop and obstore find it."""
        return {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    def new_url(self) -> str:
        """A VISIONLOOP_STORE_URL below which there is nothing yet."""
        return f"s3://{BUCKET}/test-{next(self._numbers)}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_moto() -> Iterator[StoreServer]:
    """moto's S3, which keeps everything in memory and looks at no secret."""
    program, port = TOOLS / "moto_server", free_port()
    if not program.exists():
        pytest.skip(MISSING)
    with _running([str(program), "-H", "127.0.0.1", "-p", str(port)], port) as server:
        bucket = urllib.request.Request(f"{server.address}/{BUCKET}", method="PUT")
        urllib.request.urlopen(bucket, timeout=60).close()
        yield server


@contextmanager
def running_juicefs() -> Iterator[StoreServer]:
    """JuiceFS' gateway, over a folder and a SQLite file."""
    program, port = TOOLS / "juicefs", free_port()
    if not program.exists():
        pytest.skip(MISSING)
    with tempfile.TemporaryDirectory(prefix="visionloop-juicefs-") as folder:
        volume = f"sqlite3://{folder}/meta.db"
        subprocess.run(
            [program, "format", "--storage", "file", "--bucket", f"{folder}/data/",
             "--trash-days", "0", volume, BUCKET],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        command = [str(program), "gateway", "--no-usage-report", "--keep-etag"]
        command += ["--cache-dir", f"{folder}/cache", volume, f"127.0.0.1:{port}"]
        environment = {"MINIO_ROOT_USER": KEY, "MINIO_ROOT_PASSWORD": SECRET, "HOME": folder}
        with _running(command, port, environment) as server:
            yield server


@contextmanager
def _running(
    command: list[str], port: int, environment: dict[str, str] | None = None
) -> Iterator[StoreServer]:
    with ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile())
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        stack.callback(process.wait)
        stack.callback(process.terminate)

        def answers() -> bool:
            assert process.poll() is None, f"{command[0]} ended."
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60).close()
            except urllib.error.HTTPError:
                return True
            except OSError:
                return False
            return True

        wait_until(answers)
        yield StoreServer(f"http://127.0.0.1:{port}", process)


@pytest.fixture(scope="session")
def moto() -> Iterator[StoreServer]:
    with running_moto() as server:
        yield server


@pytest.fixture(scope="session")
def juicefs() -> Iterator[StoreServer]:
    with running_juicefs() as server:
        yield server


@pytest.fixture(
    params=[pytest.param("moto"), pytest.param("juicefs", marks=pytest.mark.store)], scope="session"
)
def any_store(request: pytest.FixtureRequest) -> StoreServer:
    """Each of the servers; JuiceFS' in `make test-store` only."""
    server: StoreServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def store_url(moto: StoreServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new place in moto's S3; the variables of this process lead there."""
    for name, value in moto.environment.items():
        monkeypatch.setenv(name, value)
    return moto.new_url()
