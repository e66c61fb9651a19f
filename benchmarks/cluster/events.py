"""What happens to the cluster, one event after the other, while trainings run on it."""

from __future__ import annotations

import contextlib
import io
import threading
import time
import zipfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.cluster.parts import Cluster
from benchmarks.cluster.records import Seen
from benchmarks.stress.server import READY, Failed, Service, until
from synthetic.shapes import write_shapes

AWAY = 10.0  # seconds for which PostgreSQL is gone
LOAD = 10.0  # seconds of requests around a promotion


@dataclass
class Outcome:
    """A line of the table.

    Attributes:
        event: What was done.
        noticed: Seconds until the table of jobs, or a server, said so; None: nothing to notice.
        resumed: Seconds until the job went on, or its end; None: nothing to resume.
        job_id: The training that it was done to.
        told: What else was seen.
    """

    event: str
    noticed: float | None = None
    resumed: float | None = None
    job_id: str | None = None
    told: str = ""


@dataclass
class Stage:
    """The cluster, the data set on it, and an image of it."""

    cluster: Cluster
    dataset: str
    image: bytes
    epochs: int
    submitted: list[str] = field(default_factory=list)

    def submit(self, server: Service, epochs: int | None = None) -> str:
        """Submit a training on the shared data set; returns the id of the job."""
        hyper = {"workers": 0, "optimizer": "AdamW", "lr0": 2e-3, "warmup_epochs": 1}
        body = {"task": "classify", "model_type": "n", "data_path": self.dataset, "imgsz": 64}
        body |= {"epochs": epochs or self.epochs, "batch": 8, "patience": 0, "name": "clustered"}
        answer = server.ask("POST", "/api/training/regular", json=body | {"hyper": hyper})
        self.submitted.append(str(answer["task_id"]))
        return self.submitted[-1]

    def trained(self, job_id: str) -> Seen:
        """Wait until a training has a checkpoint, and does not end soon."""
        row = self.cluster.recorder.wait(
            job_id,
            lambda row: row.status in FINAL or (row.status == "running" and row.checkpoint >= 1),
            "it has a checkpoint",
        )
        if row.status in FINAL:
            raise Failed(f"Job {job_id} has ended before anything happened to it: {row}")
        return row

    def ended(self, job_id: str) -> Seen:
        """The last row of a job.

        Raises:
            Failed: It does not end, or has failed.
        """
        recorder = self.cluster.recorder
        row = recorder.wait(job_id, lambda row: row.status in FINAL, "it has ended")
        if row.status == "failed":
            raise Failed(f"Job {job_id} has failed: {row.error}")
        return row

    def predicts(self, server: Service, model_id: str) -> float:
        """Seconds until a server that may not have a model yet has predicted with it."""
        began = time.monotonic()
        sent = {"files": {"image": self.image}, "data": {"model_id": model_id}}
        if not server.ask("POST", "/infer", **sent)["predictions"]:
            raise Failed(f"{model_id} predicts nothing.")
        return time.monotonic() - began


FINAL = ("stopped", "completed", "failed")


def prepare(cluster: Cluster, epochs: int) -> Stage:
    """Upload a small data set to the first server."""
    data = write_shapes(cluster.folder / "shapes", "classify", 48, 12, 64)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for file in sorted(path for path in data.rglob("*") if path.is_file()):
            archive.write(file, file.relative_to(data))
    sent = {"file": ("shapes.zip", packed.getvalue())}
    made = cluster.first.ask("POST", "/api/datasets", files=sent)
    image = sorted((data / "val").rglob("*.jpg"))[0]
    return Stage(cluster, str(made["id"]), Path(image).read_bytes(), epochs)


def trainings_on_both_nodes(stage: Stage) -> Outcome:
    """Two trainings, each submitted to another server, at the same time."""
    cluster = stage.cluster
    began = time.monotonic()
    listed = cluster.second.ask("GET", "/api/datasets")["datasets"]
    if stage.dataset not in [one["id"] for one in listed]:
        raise Failed(f"The second server does not list the data set {stage.dataset}.")
    jobs = [stage.submit(cluster.first), stage.submit(cluster.second)]
    nodes: set[str] = set()

    def on_both() -> bool:
        nodes.update(node for job in jobs if (node := cluster.node_of(job)))
        return len(nodes) == len(jobs) or all(_is_final(stage, job) for job in jobs)

    until(on_both, READY, "each training has a node of its own")
    rows = [stage.ended(job) for job in jobs]
    seconds = stage.predicts(cluster.second, str(rows[0].model_id))
    told = f"nodes {', '.join(sorted(nodes))}; the other server predicts {seconds:.1f} s later"
    return Outcome("two trainings", None, time.monotonic() - began, jobs[0], told)


def promotion_under_load(stage: Stage) -> Outcome:
    """Promote a version on one server, while both answer requests for its name."""
    cluster = stage.cluster
    versions = [row.model_id for job in stage.submitted if (row := stage.ended(job)).model_id]
    chosen = str(versions[-1])
    failures: list[str] = []
    answers: list[tuple[float, int, str]] = []  # moment of the request, server, version
    over = threading.Event()

    def ask(number: int, server: Service) -> None:
        with httpx.Client(timeout=30) as client:
            while not over.is_set():
                began = time.monotonic()
                try:
                    answer = client.post(
                        server.url + "/infer",
                        files={"image": stage.image},
                        data={"model_id": "clustered"},
                    )
                    if answer.status_code == 200:
                        answers.append((began, number, answer.json()["model_id"]))
                    else:
                        failures.append(f"{answer.status_code} {answer.text[:200]}")
                except httpx.HTTPError as error:
                    failures.append(repr(error))

    promote = {"force": True}
    other = str(versions[0])
    cluster.first.ask("POST", f"/models/{other}/promote", json=promote)
    for server in cluster.servers:
        for model_id in (other, chosen):
            stage.predicts(server, model_id)
        until(partial(_serves, stage, server, other), READY, "the first promotion is seen")
    threads = [
        threading.Thread(target=ask, args=(number, server))
        for number, server in enumerate(cluster.servers)
    ]
    for thread in threads:
        thread.start()
    time.sleep(LOAD / 4)
    cluster.first.ask("POST", f"/models/{chosen}/promote", json=promote)
    promoted = time.monotonic()
    time.sleep(LOAD)
    over.set()
    for thread in threads:
        thread.join()
    late = [
        max(
            (at for at, number, model in answers if number == n and model == other),
            default=promoted,
        )
        for n in range(len(cluster.servers))
    ]
    if failures:
        raise Failed(f"{len(failures)} of {len(answers)} requests failed: {failures[0]}")
    lags = [max(0.0, at - promoted) for at in late]
    told = f"{len(answers)} requests without an error; after it the old version answered "
    told += " and ".join(f"{lag:.2f} s" for lag in lags) + " (first and second server)"
    return Outcome("promotion on the first server", max(lags), None, None, told)


def cancellation(stage: Stage) -> Outcome:
    """Cancel a training on the server that does not lead."""
    job = stage.submit(stage.cluster.second)
    stage.trained(job)
    asked = time.monotonic()
    stage.cluster.second.ask("POST", f"/jobs/{job}/cancel")
    row = stage.ended(job)
    if row.status != "stopped":
        raise Failed(f"The cancelled job {job} is {row.status}.")
    return Outcome("cancel", None, row.at - asked, job)


def worker_killed(stage: Stage) -> Outcome:
    """SIGKILL to the worker of a training."""
    job = stage.submit(stage.cluster.first)
    stage.trained(job)
    process = stage.cluster.worker(job)
    if process is None:
        raise Failed(f"Job {job} has no worker.")
    killed = time.monotonic()
    process.kill()
    return _lost(stage, "kill -9 of a worker", job, killed)


def node_lost(stage: Stage) -> Outcome:
    """SIGKILL to all processes of the node on which a training runs, the raylet included."""
    job = stage.submit(stage.cluster.first)
    stage.trained(job)
    node = until(lambda: stage.cluster.node_of(job), READY, "the worker's node is found")
    killed = time.monotonic()
    stage.cluster.ray.kill_node(node)
    lost = _lost(stage, "kill -9 of a node", job, killed)
    stage.cluster.start_node()
    return lost


def raylet_lost(stage: Stage) -> Outcome:
    """SIGKILL to the raylet only: the worker lives on, and nobody reaches it."""
    job = stage.submit(stage.cluster.first, 3 * stage.epochs)
    stage.trained(job)
    worker = stage.cluster.worker(job)
    node = stage.cluster.node_of(job)
    if worker is None or node is None:
        raise Failed(f"Job {job} has no worker.")
    killed = time.monotonic()
    stage.cluster.ray.kill_raylet(node)
    try:
        lost = _lost(stage, "kill -9 of a raylet", job, killed)
        until(lambda: not worker.is_running(), READY, "the old worker has ended")
        lost.told = "the old worker has ended itself"
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()
    stage.cluster.start_node()
    return lost


def leader_killed(stage: Stage) -> Outcome:
    """SIGKILL to every process of the leading server: the other one leads."""
    cluster = stage.cluster
    job = stage.submit(cluster.second)
    before = stage.trained(job)
    killed = time.monotonic()
    cluster.first.kill_all()
    after = stage.submit(cluster.second)
    began = cluster.recorder.wait(after, lambda row: row.claim is not None, "the next job starts")
    row = stage.ended(job)
    if row.attempts != before.attempts:
        raise Failed(f"Job {job} was started again, though its worker lived: {row}")
    stage.ended(after)
    cluster.first.start()
    cluster.servers.reverse()
    told = "the training was not interrupted; noticed: the other server started the next job"
    return Outcome("kill -9 of the leading server", began.at - killed, None, job, told)


def database_lost(stage: Stage) -> Outcome:
    """SIGKILL to PostgreSQL, which is back after a while."""
    cluster = stage.cluster
    job = stage.submit(cluster.first)
    stage.trained(job)
    killed = time.monotonic()
    cluster.database.kill()
    # Predictions need no database while it is away.
    model = next(
        row.model_id
        for one in stage.submitted
        if (row := cluster.recorder.last(one)) and row.model_id
    )
    for server in cluster.servers:
        stage.predicts(server, str(model))
    left = AWAY - (time.monotonic() - killed)
    time.sleep(max(0.0, left))
    cluster.database.start()
    back = time.monotonic()
    for server in cluster.servers:
        until(server.is_ready, READY, "the server is ready again")
    ready = time.monotonic() - back
    row = cluster.recorder.wait(
        job, lambda row: row.status in FINAL or row.progress > 0, "the job goes on", since=back
    )
    told = f"both servers ready {ready:.1f} s after its return, {AWAY:g} s after the kill"
    return Outcome("kill -9 of PostgreSQL", None, row.at - back, job, told)


def _lost(stage: Stage, event: str, job: str, killed: float) -> Outcome:
    """Wait until a job whose worker is gone goes on in another one."""
    recorder = stage.cluster.recorder
    before = next(row for row in reversed(recorder.seen[job]) if row.at <= killed)
    noticed = recorder.wait(
        job,
        lambda row: row.claim != before.claim or row.status in FINAL,
        "the loss is noticed",
        killed,
    )
    resumed = recorder.wait(
        job,
        lambda row: (
            (row.attempts > before.attempts and row.progress > noticed.progress)
            or row.status in FINAL
        ),
        "it goes on",
        noticed.at,
    )
    stage.ended(job)  # the next event finds free nodes
    return Outcome(event, noticed.at - killed, resumed.at - killed, job)


def _is_final(stage: Stage, job: str) -> bool:
    row = stage.cluster.recorder.last(job)
    return row is not None and row.status in FINAL


def _serves(stage: Stage, server: Service, model_id: str) -> bool:
    sent: dict[str, Any] = {"files": {"image": stage.image}, "data": {"model_id": "clustered"}}
    with contextlib.suppress(Failed):
        return bool(server.ask("POST", "/infer", **sent)["model_id"] == model_id)
    return False


EVENTS = (
    trainings_on_both_nodes,
    promotion_under_load,
    cancellation,
    worker_killed,
    node_lost,
    raylet_lost,
    leader_killed,
    database_lost,
)
