"""The parts of a cluster on one machine: PostgreSQL, an S3 server, Ray nodes and two servers.

Each node and server has homes of its own, as on machines of their own: they share nothing but the
database and the store.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.cluster.records import Recorder
from benchmarks.stress.server import Service
from tests.support import postgres
from tests.support.object_store import TOOLS, StoreServer, running_juicefs
from tests.support.ray_cluster import RAY, TOKEN, RayCluster

NODES = 2


@dataclass
class Cluster:
    """The running parts.

    Attributes:
        folder: Contains the homes and logs.
        database: The PostgreSQL server.
        store: The S3 server.
        ray: The Ray cluster; it has NODES nodes at the beginning.
        servers: Two servers; the first was started first, so it leads.
        recorder: Watches the table of jobs.
    """

    folder: Path
    database: postgres.Postgres
    store: StoreServer
    ray: RayCluster
    servers: list[Service]
    recorder: Recorder
    nodes: list[str] = field(default_factory=list)

    @property
    def first(self) -> Service:
        return self.servers[0]

    @property
    def second(self) -> Service:
        return self.servers[1]

    def worker(self, job_id: str) -> psutil.Process | None:
        """The process of a job's worker, on whichever node it runs."""
        for process in self.ray.processes():
            with contextlib.suppress(psutil.Error):
                line = process.cmdline()
                if job_id in line and "worker" in line and "-m" in line:
                    return process
        return None

    def node_of(self, job_id: str) -> str | None:
        """The address of the node on which a job's worker runs; None if it runs on none."""
        process = self.worker(job_id)
        with contextlib.suppress(psutil.Error):
            return process.environ().get("TEST_NODE") if process else None
        return None

    def start_node(self) -> str:
        self.nodes.append(self.ray.start_node())
        return self.nodes[-1]


def missing() -> str | None:
    """A sentence on the first part that cannot be started here; None if there are all."""
    if postgres.programs() is None:
        return f"{postgres.MISSING}."
    if not (TOOLS / "juicefs").exists():
        return "JuiceFS' gateway is not installed."
    return None if RAY else "TEST_RAY names no program `ray`."


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Start the parts, one after the other; end all of them."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="vlc-", dir="/tmp"))  # short: sockets are in it
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        database = stack.enter_context(postgres.running())
        url = database.create("visionloop")
        store = stack.enter_context(running_juicefs())
        shared = store.environment | {
            "VISIONLOOP_DATABASE_URL": url,
            "VISIONLOOP_STORE_URL": store.new_url(),
            "VISIONLOOP_ALLOW_DOWNLOAD": "never",
            "VISIONLOOP_DEVICE": "cpu",
        }

        def of_node(address: str) -> Mapping[str, str]:
            home = folder / f"node-{address.rpartition('.')[2]}"
            homes = {"VISIONLOOP_HOME": str(home / "home"), "BENTOML_HOME": str(home / "bento")}
            return shared | homes | {"BENTOML_DO_NOT_TRACK": "true"}

        ray = RayCluster(folder / "r", of_node)
        stack.callback(ray.stop)
        settings = shared | {
            "VISIONLOOP_CLUSTER_URL": ray.url,
            "VISIONLOOP_CLUSTER_TOKEN": TOKEN,
            "VISIONLOOP_TRAIN_SLOTS": str(NODES),
            "VISIONLOOP_TRAIN_THREADS": "1",
        }
        recorder = Recorder(url.replace("+psycopg", ""))
        stack.callback(recorder.close)
        servers = []
        for name in ("first", "second"):
            (folder / name).mkdir()
            servers.append(Service(folder / name, settings))
            stack.callback(servers[-1].stop)
        running = Cluster(folder, database, store, ray, servers, recorder)
        for _ in range(NODES):
            running.start_node()
        for server in servers:
            server.start()
        recorder.start()
        yield running
