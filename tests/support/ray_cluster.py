"""A real Ray cluster on this machine: a head and nodes at addresses of their own, all loopback.

Its processes are ended by their ids: `ray stop` would end other people's clusters as well.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import psutil

from tests.support.patience import wait_until
from tests.support.serving import ROOT

RAY = os.environ.get("TEST_RAY", "")  # the program `ray`, of an environment of its own
TOKEN = "token-of-the-tests-cluster-0123456789"
HEAD = "127.0.0.2"  # Ray rewrites 127.0.0.1 to another address of the machine
MEMORY = "--object-store-memory=80000000"
# A raylet gives up when its helpers are slow to start; a session has one share of the processor.
FAVOURED = 'echo -19 > /proc/self/autogroup 2>/dev/null; exec "$@"'


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class RayCluster:
    """A head that runs no jobs, and nodes that run one job each.

    Args:
        folder: For Ray's files; its path is short, as sockets are in it.
        of_node: The variables of the workers on a node, by its address.
    """

    def __init__(self, folder: Path, of_node: Callable[[str], Mapping[str, str]]) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{free_port()}"
        self._of_node = of_node
        self._gcs = free_port()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._env = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # our python, not Ray's
            "PYTHONPATH": str(ROOT),
            "HOME": os.environ.get("HOME", "/"),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self._start(
            HEAD, "--head", f"--port={self._gcs}", f"--temp-dir={folder}",
            "--dashboard-host=127.0.0.1", f"--dashboard-port={self.url.rpartition(':')[2]}",
            f"--ray-client-server-port={free_port()}", "--num-cpus=0", "--num-gpus=0",
        )  # fmt: skip
        wait_until(lambda: self.get("/api/jobs/") is not None, 0.2)

    def get(self, path: str) -> httpx.Response | None:
        """What the head answers; None if it does not."""
        return self._ask("GET", path)

    def stop_job(self, claim: str) -> None:
        """Stop a job as its dashboard does, behind the service's back."""
        assert self._ask("POST", f"/api/jobs/{claim}/stop")

    def _ask(self, method: str, path: str) -> httpx.Response | None:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        try:
            answer = httpx.request(
                method, self.url + path, headers=headers, timeout=10, trust_env=False
            )
        except httpx.HTTPError:
            return None
        return answer if answer.status_code == 200 else None

    def start_node(self) -> str:
        """Add a node that runs one job, and wait until the head knows it. Returns its address."""
        address = f"127.0.0.{2 + len(self._processes)}"
        self._start(
            address, f"--address={HEAD}:{self._gcs}", "--num-cpus=1", "--num-gpus=0",
            f"--resources={json.dumps({'trainer': 1})}",
            f"--dashboard-agent-listen-port={free_port()}",
        )  # fmt: skip

        def known() -> bool:
            answer = self.get("/nodes?view=summary")
            nodes = answer.json()["data"]["summary"] if answer else []
            alive = [node["ip"] for node in nodes if node["raylet"].get("state") == "ALIVE"]
            return address in alive

        wait_until(known, 0.5)
        return address

    def processes(self) -> list[psutil.Process]:
        """The processes of all nodes, workers included."""
        found = []
        for process in self._processes.values():
            with suppress(psutil.NoSuchProcess):
                found += psutil.Process(process.pid).children(recursive=True)
        return found

    def kill_node(self, address: str) -> None:
        """Kill every process of a node, workers included: as if its machine were gone."""
        node = psutil.Process(self._processes[address].pid)
        for process in [node, *node.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def kill_raylet(self, address: str) -> None:
        """Kill the process that is the node: its workers live on for now."""
        for process in psutil.Process(self._processes[address].pid).children(recursive=True):
            if process.name() == "raylet":
                process.kill()

    def status(self, claim: str) -> str:
        answer = self.get(f"/api/jobs/{claim}")
        return str(answer.json()["status"]) if answer else ""

    def stop(self) -> None:
        """End the processes, the nodes first."""
        for process in reversed(self._processes.values()):
            with suppress(psutil.NoSuchProcess):
                family = psutil.Process(process.pid).children(recursive=True)
                process.send_signal(signal.SIGTERM)
                _, left = psutil.wait_procs([psutil.Process(process.pid), *family], timeout=10)
                for one in left:
                    with suppress(psutil.NoSuchProcess):
                        one.kill()
                psutil.wait_procs(left, timeout=10)
            process.wait()

    def _start(self, address: str, *options: str) -> None:
        command = [
            RAY, "start", f"--node-ip-address={address}", MEMORY, "--disable-usage-stats",
            "--block", *options,
        ]  # fmt: skip
        with (self.folder.parent / f"ray-{address}.log").open("ab") as output:
            self._processes[address] = subprocess.Popen(
                ["sh", "-c", FAVOURED, "sh", *command],
                env=self._env | dict(self._of_node(address)) | {"TEST_NODE": address},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )


@contextmanager
def ray_cluster(home: Path) -> Iterator[RayCluster]:
    """A cluster without nodes, which is ended afterwards; its workers do what `ray_node` does."""
    modules = os.pathsep.join((str(ROOT / "tests/support/ray_node"), str(ROOT)))
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        cluster = RayCluster(
            folder / "t", lambda _: {"VISIONLOOP_HOME": str(home), "PYTHONPATH": modules}
        )
        stack.callback(cluster.stop)
        yield cluster
