"""The supervisor obeys nobody else, and starts again what has ended; clients do not notice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import httpx
import psutil
import pytest

from serving import supervisor
from serving.gateways.peers import has_ended
from serving.supervisor import LONGEST, PREFIX, QUICK, Restarts, control_folder
from tests.support.patience import PATIENCE, wait_until
from tests.support.serving import Server

NOBODY = 65534
ANNOTATE = "/api/auto_annotate"
CONNECT = """
import os, sys, zmq
os.setgroups([]); os.setgid({user}); os.setuid({user})
control = zmq.Context.instance().socket(zmq.DEALER)
control.linger = 0
control.connect("ipc://{path}")
control.send_json({{"id": "1", "command": "numwatchers", "properties": {{}}}})
print(control.poll({patience} * 1000) and control.recv().decode())
"""


def test_a_process_that_ends_is_due_at_once_unless_it_does_so_again_and_again() -> None:
    restarts = Restarts(started=0.0)
    waits = []
    now = 0.0
    for _ in range(9):
        now += 1.0
        restarts.ended(now)
        restarts.ended(now + 0.1)  # seen again by the next check
        assert restarts.due is not None
        waits.append(restarts.due - now)
        assert not restarts.is_due(restarts.due - 0.01)
        now = restarts.due
        assert restarts.is_due(now)
        restarts.restarted(now)
        assert not restarts.is_due(now + 100)
    assert waits == [0, 0, 1, 2, 4, 8, LONGEST, LONGEST, LONGEST]
    restarts.ended(now + QUICK)
    assert restarts.due == now + QUICK


class Watcher:
    """What circus has for a service, without processes."""

    name = "VisionLoop"

    def __init__(self, numprocesses: int) -> None:
        self.numprocesses = numprocesses
        self.processes = list(range(numprocesses))

    def is_active(self) -> bool:
        return True

    def spawn_process(self) -> None:
        self.processes.append(len(self.processes))


def test_processes_of_a_service_that_ended_together_are_started_together() -> None:
    watcher = Watcher(8)
    arbiter = SimpleNamespace(
        _stopping=False,
        _exclusive_running_command=None,
        restarts={},
        reap_processes=lambda: None,
        iter_watchers=lambda: [watcher],
    )
    del watcher.processes[1:]
    supervisor._restart_ended(arbiter)
    assert len(watcher.processes) == 8
    assert arbiter.restarts["VisionLoop"].quick <= 1


def test_the_folder_of_a_killed_supervisor_is_swept_and_that_of_a_living_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    living, descriptor = control_folder()
    left, other = control_folder()
    os.close(other)  # as the system does when a process ends
    (left / "control").touch()
    link = tmp_path / f"{PREFIX}{os.getuid()}-link"
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    link.symlink_to(target)
    new, third = control_folder()
    assert living.exists()
    assert new.exists()
    assert new.stat().st_mode & 0o777 == 0o700
    assert not left.exists()
    assert target.exists()
    supervisor._remove(living, descriptor)
    supervisor._remove(new, third)
    assert not list(tmp_path.glob(f"{PREFIX}{os.getuid()}-????????"))


class Contained(Server):
    """A server that believes to be in a container, with temporary files of its own."""

    def __init__(self, home: Path) -> None:
        self.temporary = Path(tempfile.mkdtemp(prefix="vl-"))  # a socket's path is short
        super().__init__(home, BENTOML_CONTAINERIZED="1", TMPDIR=str(self.temporary))

    def control(self) -> list[Path]:
        return list(self.temporary.glob(f"{PREFIX}*"))


@pytest.fixture(scope="module")
def contained(new_home: Callable[[], Path]) -> Iterator[Contained]:
    server = Contained(new_home())
    try:
        server.start()
        yield server
    finally:
        server.stop()
        assert not server.control()
        for left in server.temporary.iterdir():
            left.rmdir()
        server.temporary.rmdir()


def test_no_process_of_the_service_listens_beside_its_port(contained: Contained) -> None:
    assert contained.listening() == {contained.port}


def test_the_control_socket_is_of_its_user_only(contained: Contained) -> None:
    (folder,) = contained.control()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in folder.iterdir()} == {"control", "events"}

    def answer(user: int, patience: float) -> str:
        code = CONNECT.format(user=user, path=folder / "control", patience=patience)
        command = [sys.executable, "-c", code]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    assert '"numwatchers": 4' in answer(0, PATIENCE)
    contained.temporary.chmod(0o755)
    assert answer(NOBODY, 3) == "0\n"  # not reached


@pytest.mark.parametrize("name", ["Annotator", "Trainer", "VisionLoop"])
def test_in_a_container_too_a_killed_process_is_started_again_beside_the_others(
    contained: Contained, name: str
) -> None:
    before = contained.workers()
    before[name].send_signal(signal.SIGKILL)

    def again() -> bool:
        now = contained.workers()
        return now.keys() == before.keys() and now[name].pid != before[name].pid

    wait_until(again)
    contained.wait_until_ready()
    after = contained.workers()
    assert {one for one in before if after[one].pid != before[one].pid} == {name}


def test_while_the_gateway_is_away_requests_wait_and_none_is_refused(
    contained: Contained, picture: Callable[..., bytes]
) -> None:
    """Only the requests that it was working on are lost."""
    gateway = contained.workers()["VisionLoop"]
    gateway.send_signal(signal.SIGKILL)
    wait_until(lambda: has_ended(gateway.pid))

    async def ask(index: int) -> int:
        async with httpx.AsyncClient(base_url=contained.url, timeout=PATIENCE) as client:
            await asyncio.sleep(index * 0.05)
            answer = await client.post("/infer", files={"image": image})
            return answer.status_code

    async def run() -> list[int]:
        return await asyncio.gather(*map(ask, range(40)))

    image = picture()
    assert asyncio.run(run()) == [200] * 40


class Load:
    """Clients that predict and annotate without pause; keeps the status of every response."""

    def __init__(self, server: Server, image: bytes) -> None:
        self.server = server
        self.image = image
        self.statuses: list[tuple[str, int | str]] = []
        self.slowest = 0.0
        self.over = False

    async def __aenter__(self) -> Load:
        self._clients = [
            asyncio.create_task(self._ask(path)) for path in ["/infer"] * 6 + [ANNOTATE, "/readyz"]
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.over = True
        await asyncio.gather(*self._clients)

    async def _ask(self, path: str) -> None:
        async with httpx.AsyncClient(base_url=self.server.url, timeout=PATIENCE) as client:
            while not self.over:
                began = time.monotonic()
                if path == "/readyz":
                    answer = await client.get(path)
                    await asyncio.sleep(0.05)
                else:
                    fields = {"tool": "object_detection"} if path == ANNOTATE else {}
                    answer = await client.post(path, files={"image": self.image}, data=fields)
                self.slowest = max(self.slowest, time.monotonic() - began)
                self.statuses.append((path, answer.status_code))

    async def more(self, count: int = 20) -> None:
        """Return once so many more requests have been answered."""
        enough = len(self.statuses) + count
        while len(self.statuses) < enough:
            for client in self._clients:
                if client.done():
                    client.result()
            await asyncio.sleep(0.02)


def is_back(server: Server, name: str, before: int) -> bool:
    found = server.workers().get(name)
    return found is not None and found.pid != before


@pytest.mark.parametrize("name", ["Detector", "Annotator"])
def test_no_client_notices_that_a_runner_was_killed(
    contained: Contained, picture: Callable[..., bytes], name: str
) -> None:
    async def run() -> Load:
        async with Load(contained, picture()) as load:
            for _ in range(2):
                await load.more()
                before = contained.workers()[name]
                before.send_signal(signal.SIGKILL)
                await load.more()
                await asyncio.to_thread(wait_until, partial(is_back, contained, name, before.pid))
                await load.more(100)
        return load

    load = asyncio.run(run())
    print(f"{len(load.statuses)} responses, the slowest after {load.slowest:.1f} s")
    assert {status for _, status in load.statuses} == {200}
    assert {path for path, _ in load.statuses} == {"/infer", ANNOTATE, "/readyz"}


def test_an_image_that_ends_two_processes_is_refused(
    contained: Contained, picture: Callable[..., bytes]
) -> None:
    """A process is killed while it works on the image, twice: it cannot tell what ended it."""
    image = picture(3000, 3000, seed=1)
    answers: list[httpx.Response] = []

    def ask() -> httpx.Response:
        return httpx.post(
            f"{contained.url}{ANNOTATE}",
            files={"image": image},
            data={"tool": "object_detection", "tiles": "8"},
            timeout=PATIENCE,
        )

    def kill_the_one_that_works(candidates: list[str]) -> None:
        workers = contained.workers()
        begun = {name: sum(workers[name].cpu_times()[:2]) for name in candidates}

        def working() -> psutil.Process | None:
            assert not answers, answers[0].text
            for name in candidates:
                if sum(workers[name].cpu_times()[:2]) > begun[name] + 0.5:
                    return workers[name]
            return None

        wait_until(working, 0.01).send_signal(signal.SIGKILL)

    asking = threading.Thread(target=lambda: answers.append(ask()))
    asking.start()
    kill_the_one_that_works(["Annotator"])
    kill_the_one_that_works(["Detector"])
    asking.join()
    assert answers[0].status_code == 500
    assert answers[0].json()["code"] == "PROCESSING_ERROR"
    contained.wait_until_ready()
    wait_until(lambda: {"Detector", "Annotator"} <= contained.workers().keys())
    before = contained.workers()
    again, first = ask().json(), answers[0].json()
    assert again | {"request_id": first["request_id"]} == first
    assert contained.workers() == before
    fields = {"tool": "object_detection"}
    other = httpx.post(
        f"{contained.url}{ANNOTATE}", files={"image": picture()}, data=fields, timeout=PATIENCE
    )
    assert other.status_code == 200
