"""What a job resumes from, and what is kept of it, on another machine than the one that ran it."""

from __future__ import annotations

import select
import shutil
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from database import Database
from errors import StoreUnavailable
from jobs import worker
from jobs.artifacts import CHECKPOINTS, best_weights, note_best
from jobs.logs.shared_logs import SharedLogs
from jobs.lost_jobs import delete_lost_job, lost_jobs
from jobs.shared_folders import JobFolders
from jobs.store import JobStore
from settings import Settings
from storage import object_trees
from storage.place import open_trees
from tests.support.dispatching import begin
from tests.support.object_store import StoreServer, free_port
from tests.support.patience import PATIENCE, wait_until
from tests.support.two_machines import machine_settings

JOB = "0" * 32


class Machine:
    def __init__(self, folder: Path, name: str, store_url: str) -> None:
        self.settings = machine_settings(folder, name, store_url)
        self.folders = JobFolders(self.settings)
        self.folder = self.settings.paths.jobs / JOB

    def train(self, epoch: int) -> None:
        """Write what a trainer has written after an epoch."""
        checkpoints = self.folder / CHECKPOINTS
        checkpoints.mkdir(parents=True, exist_ok=True)
        (checkpoints / "last.pt").write_text(f"epoch {epoch}")
        (checkpoints / "best.pt").write_text(f"best {epoch}")
        note_best(checkpoints, epoch)
        (self.folder / "run").mkdir(exist_ok=True)
        (self.folder / "run" / "results.csv").write_text("\n".join(map(str, range(epoch))))
        (self.folder / "run" / "args.yaml").write_text("not kept")
        (self.folder / "data").mkdir(exist_ok=True)
        (self.folder / "data" / "0.png").write_text("a link of the view")

    @property
    def last(self) -> str:
        return (self.folder / CHECKPOINTS / "last.pt").read_text()

    def attempt(self, number: int, epoch: int) -> None:
        """Begin an attempt, train until an epoch and save it."""
        self.folders.begin(JOB, number, resuming=number > 1)
        self.train(epoch)
        self.folders.save(JOB, number)

    @property
    def keys(self) -> list[str]:
        return [key.rpartition("/")[2] for key in open_trees(self.settings).list(f"jobs/{JOB}")]


@pytest.fixture
def machine(tmp_path: Path, store_url: str) -> Callable[[str], Machine]:
    return lambda name: Machine(tmp_path, name, store_url)


def test_another_machine_has_what_was_saved(machine: Callable[[str], Machine]) -> None:
    a, b = machine("a"), machine("b")
    assert not a.folders.begin(JOB, 1, resuming=False)
    a.train(1)
    a.folders.save(JOB, 1)
    a.train(2)  # killed before it was saved
    assert b.folders.begin(JOB, 2, resuming=True)
    assert b.last == "epoch 1"
    assert (b.folder / "run" / "results.csv").is_file()
    assert not (b.folder / "run" / "args.yaml").exists()
    assert not (b.folder / "data").exists()


def test_the_machine_that_ran_it_last_keeps_what_it_has(machine: Callable[[str], Machine]) -> None:
    a = machine("a")
    a.attempt(1, epoch=1)
    a.train(2)
    assert a.folders.begin(JOB, 2, resuming=True)
    assert a.last == "epoch 2"


def test_what_a_machine_has_of_an_older_attempt_is_replaced(
    machine: Callable[[str], Machine],
) -> None:
    a, b = machine("a"), machine("b")
    a.attempt(1, epoch=1)
    b.attempt(2, epoch=5)
    assert a.folders.begin(JOB, 3, resuming=True)
    assert a.last == "epoch 5"


def test_a_worker_that_was_given_up_does_not_replace_its_successors_checkpoint(
    machine: Callable[[str], Machine],
) -> None:
    a, b = machine("a"), machine("b")
    a.attempt(1, epoch=1)
    b.attempt(2, epoch=2)
    a.train(9)
    a.folders.save(JOB, 1)
    c = machine("c")
    assert c.folders.begin(JOB, 3, resuming=True)
    assert c.last == "epoch 2"


def test_a_checkpoint_that_is_nowhere_begins_anew(machine: Callable[[str], Machine]) -> None:
    assert not machine("b").folders.begin(JOB, 2, resuming=True)


@pytest.mark.parametrize("completed", [True, False])
def test_what_is_kept_is_kept_for_all(machine: Callable[[str], Machine], completed: bool) -> None:
    a, leader, reader = machine("a"), machine("leader"), machine("reader")
    a.folders.begin(JOB, 1, resuming=False)
    a.train(3)
    a.folders.save(JOB, 1)
    leader.folders.settle(JOB, completed=completed)
    assert a.keys == ["kept"]
    reader.folders.have_kept(JOB)
    assert (reader.folder / "run" / "results.csv").is_file()
    best = best_weights(reader.folder)
    assert (best is None) == completed
    if best is not None:
        assert (best.epoch, best.path.read_text()) == (3, "best 3")
    assert not (reader.folder / CHECKPOINTS / "last.pt").exists()


def test_a_store_that_fails_at_the_end_loses_nothing(
    machine: Callable[[str], Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, leader, reader = machine("a"), machine("leader"), machine("reader")
    a.folders.begin(JOB, 1, resuming=False)
    a.train(3)
    a.folders.save(JOB, 1)
    with monkeypatch.context() as patch:

        def fail(*_: Any) -> None:
            raise StoreUnavailable("no", 1.0)

        patch.setattr(open_trees(a.settings), "put", fail)
        leader.folders.settle(JOB, completed=False)
    assert a.keys == ["state-000001"]
    reader.folders.have_kept(JOB)
    assert best_weights(reader.folder) is not None


def test_without_a_store_nothing_is_copied(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    folders = JobFolders(settings)
    assert folders.begin(JOB, 2, resuming=True)
    folders.save(JOB, 2)
    folders.have_kept(JOB)
    assert not settings.paths.jobs.exists()


def test_what_is_left_of_a_deleted_job_is_found_and_deleted(tmp_path: Path, store_url: str) -> None:
    settings = [machine_settings(tmp_path, name, store_url) for name in "ab"]
    a, b = (JobStore(Database(of)) for of in settings)
    with closing(a.database), closing(b.database):
        kept, gone = (a.create("training", config={}, recipe={}) for _ in range(2))
        trees = open_trees(settings[0])
        for job in (kept, gone):
            b.log_writer(job.id).say("read on another machine")
            (a.folder(job.id) / "last.pt").write_text("weights")
            trees.put(a.folder(job.id), f"jobs/{job.id}/state-000001")
            b.log_to_read(job.id)
            a.request_cancel(job.id)
        with pytest.MonkeyPatch.context() as patch:

            def unreachable(*_: object) -> None:
                raise StoreUnavailable("no", 1.0)

            patch.setattr(type(trees), "list", unreachable)
            a.delete(gone.id)
        assert lost_jobs(a.database, min_age=3600) == [gone.id]  # its object
        delete_lost_job(b.database, gone.id)
        assert not b.folder(gone.id).exists()
        assert trees.list("jobs") == [f"jobs/{kept.id}/state-000001"]
        b.folder(gone.id).mkdir()
        assert lost_jobs(b.database, min_age=3600) == []
        assert lost_jobs(b.database, min_age=-60) == [gone.id]
        assert b.folder(kept.id).exists()
        delete_lost_job(b.database, gone.id)
        b.log_writer(gone.id).say("late output")
        shutil.rmtree(b.folder(gone.id))
        assert lost_jobs(b.database, min_age=3600) == [gone.id]
        delete_lost_job(b.database, gone.id)
        assert SharedLogs(a.database).size(gone.id) == 0


def test_without_a_store_no_job_is_lost(tmp_path: Path) -> None:
    store = JobStore(Database(Settings(home=tmp_path)))
    with closing(store.database):
        store.folder(JOB).mkdir(parents=True)
        assert lost_jobs(store.database, min_age=-60) == []


@contextmanager
def opened(port: int, server: StoreServer) -> Iterator[None]:
    """A port that leads to a server, as when that is started."""
    host, _, other = server.address.rpartition("/")[2].partition(":")

    class Passing(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection((host, int(other))) as there:
                ways = {self.request: there, there: self.request}
                while True:
                    for source in select.select(list(ways), [], [])[0]:
                        if not (data := source.recv(65536)):
                            return
                        ways[source].sendall(data)

    class Listening(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True
        block_on_close = False

    with Listening(("127.0.0.1", port), Passing) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield
        listening.shutdown()
        thread.join()


def test_a_job_waits_for_the_store_and_goes_on(
    moto: StoreServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(object_trees.RETRIES, "max_retries", 0)
    monkeypatch.setattr(worker, "STORE_POLL", 0.05)
    port = free_port()
    environment = moto.environment | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    url = moto.new_url()
    database = Database(machine_settings(tmp_path, "a", url))
    try:
        store = JobStore(database)
        job = store.create("training", config={}, recipe={})
        begin(store, job.id)
        running = worker.WorkerJob(store, store.get(job.id))
        with ThreadPoolExecutor(1) as pool:
            trees = open_trees(database.settings)
            waiting = pool.submit(running.patiently, lambda: trees.list("jobs"))
            told: list[str] = []

            def waits() -> bool:
                told.append(capsys.readouterr().out)
                return "The job waits for it." in "".join(told)

            wait_until(waits)
            assert not waiting.done()
            with opened(port, moto):
                assert waiting.result(PATIENCE) == []
    finally:
        database.close()
