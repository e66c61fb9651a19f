"""A small HTTP server that answers as the jobs API of Ray 2.60 did, when its answers were recorded.

The recorded cases: a job that ended by itself, was killed, was stopped while it ran and while it
waited, one whose node was lost, an id that is submitted twice, an unknown id, a wrong token, and a
head that has died while its dashboard still answers.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "token-of-the-cluster"
NOT_STARTED = (
    "Job has not started yet. It may be waiting for resources (CPUs, GPUs, memory, custom "
    "resources) to become available."
)
NODE_LOST = (
    "Job supervisor actor died: The actor died unexpectedly before finishing this task.\n"
    "\tclass_name: JobSupervisor\n\tip: 127.0.0.3\n"
    "The actor died because its node has died. Node Id: a4a3e192f707ab5795fbb45bc1673325"
)
NO_ROOM = (
    "Job supervisor actor failed to start within 900.0 seconds. This job may be waiting for "
    "resources."
)
TRACEBACK = (
    "Traceback (most recent call last):\n"
    '  File "ray/dashboard/modules/job/job_head.py", line 419, in submit_job\n'
    "    resp = await job_agent_client.submit_job_internal(submit_request)\n"
)


class FakeRay:
    """The state of the cluster.

    Attributes:
        url: Its address.
        jobs: What `GET /api/jobs/ID` answers, by id.
        logs: The output of the jobs by id; None: their node does not answer.
        submitted: The bodies of all accepted submissions.
        stops: The ids that were asked to stop.
        broken: Whether the head is dead: the dashboard answers 500.
        losing: Whether a submission arrives, but its answer is lost.
        looks: How often `GET /api/jobs/ID` was answered, by id.
    """

    def __init__(self) -> None:
        self.url = ""
        self.jobs: dict[str, dict[str, Any]] = {}
        self.logs: dict[str, str | None] = {}
        self.submitted: list[dict[str, Any]] = []
        self.stops: list[str] = []
        self.broken = False
        self.losing = False
        self.looks: dict[str, int] = {}

    def submit(self, body: dict[str, Any]) -> tuple[int, Any]:
        name = body["submission_id"]
        if name in self.jobs:
            return 500, (
                f"{TRACEBACK}ValueError: Job with submission_id {name} already exists. Please use "
                "a different submission_id.\n.\n"
            )
        self.submitted.append(body)
        self.logs[name] = ""
        self.set(name, "PENDING", message=NOT_STARTED)
        return 200, {"job_id": name, "submission_id": name}

    def set(self, name: str, status: str, **values: Any) -> None:
        """Have a job be in a state."""
        empty = {"message": "", "error_type": None, "driver_exit_code": None}
        head = {"type": "SUBMISSION", "job_id": None, "submission_id": name, "status": status}
        self.jobs[name] = head | empty | values

    def run(self, name: str, output: str = "") -> None:
        self.logs[name] = (self.logs.get(name) or "") + output
        self.set(name, "RUNNING", message="Job is currently running.")

    def exit(self, name: str, code: int) -> None:
        """Have a worker end by itself, or by a signal."""
        if code == 0:
            self.set(name, "SUCCEEDED", message="Job finished successfully.", driver_exit_code=0)
            return
        self.set(
            name,
            "FAILED",
            message=f"Job entrypoint command failed with exit code {code}, last available logs",
            error_type="JOB_ENTRYPOINT_COMMAND_ERROR",
            driver_exit_code=code,
        )

    def lose_node(self, name: str) -> None:
        self.logs[name] = None
        self.set(name, "FAILED", message=NODE_LOST, error_type="JOB_SUPERVISOR_ACTOR_DIED")

    def stop(self, name: str) -> tuple[int, Any]:
        if name not in self.jobs:
            return 404, f"Job {name} does not exist"
        self.stops.append(name)
        if self.jobs[name]["status"] == "RUNNING":  # one that waits stays as it is
            self.set(name, "STOPPED", message="Job was intentionally stopped.")
        return 200, {"stopped": True}

    def lose_head(self) -> None:
        """Have the head be started anew: without the jobs."""
        self.jobs.clear()
        self.logs.clear()

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if self.broken:
            return 500, "Traceback (most recent call last):\nRpcError: failed to connect\n"
        parts = path.strip("/").split("/")[2:]
        if method == "POST" and not parts:
            return self.submit(body)
        name = parts[0]
        if method == "POST" and parts[1:] == ["stop"]:
            return self.stop(name)
        if name not in self.jobs:
            return 404, f"Job {name} does not exist"
        if parts[1:] == ["logs"]:
            logs = self.logs[name]
            if logs is None:
                return 500, f"{TRACEBACK}ClientConnectorError: Cannot connect to host 127.0.0.3\n"
            return 200, {"logs": logs}
        self.looks[name] = self.looks.get(name, 0) + 1
        return 200, self.jobs[name]


@contextmanager
def fake_ray() -> Iterator[FakeRay]:
    """A cluster on a free port of this machine."""
    ray = FakeRay()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            sent = self.headers.get("Authorization")
            if sent is None:
                status, content = 401, "Unauthorized: Missing authentication token"
            elif sent != f"Bearer {TOKEN}":
                status, content = 403, "Forbidden: Invalid authentication token"
            else:
                status, content = ray.answer(self.command, self.path, body)
            if ray.losing and self.command == "POST":
                self.connection.close()
                return
            data = content if isinstance(content, str) else json.dumps(content)
            self.send_response(status)
            self.send_header("Content-Length", str(len(data.encode())))
            self.end_headers()
            self.wfile.write(data.encode())

        do_GET = do_POST = _serve

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    ray.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield ray
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
