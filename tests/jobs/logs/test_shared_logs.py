"""Logs that several machines show: the same bytes at the same places, from several writers."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.event import listen

from database import Database
from errors import DatabaseBusy
from jobs.logs.log_file import LogWriter, read_lines
from jobs.logs.shared_logs import Chunk, LogPiece, SharedLogs, SharedLogWriter
from jobs.store import JobStore
from settings import Settings
from tests.support.patience import PATIENCE, wait_until
from tests.support.two_machines import Stores


def text(store: JobStore, job_id: str) -> list[str]:
    return [line.partition("] ")[2] for _, line in read_lines(store.log_to_read(job_id))]


def test_output_is_on_the_other_machine_without_being_flushed(two: Stores) -> None:
    a, b = two
    writer = a.log_writer("j")
    writer.feed(b"one\ntwo\nthr")
    wait_until(lambda: text(b, "j") == ["one", "two"])
    writer.feed(b"ee\n", ended=True)
    assert text(b, "j") == ["one", "two", "three"]
    assert a.log_to_read("j").read_bytes() == b.log_to_read("j").read_bytes()


def test_writers_on_both_machines_lose_nothing(two: Stores) -> None:
    def write(number: int) -> None:
        two[number % 2].log_writer("j").say(f"line {number}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(40)))
    found = [text(store, "j") for store in two]
    assert found[0] == found[1]
    assert sorted(found[0]) == sorted(f"line {number}" for number in range(40))


def test_a_client_continues_on_the_other_machine(two: Stores) -> None:
    a, b = two
    writer = a.log_writer("j")
    writer.say("one")
    [(offset, _)] = read_lines(a.log_to_read("j"))
    writer.say("two")
    [(_, line)] = read_lines(b.log_to_read("j"), offset)
    assert line.endswith("two")


def test_what_the_database_refuses_is_written_later(
    two: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = two
    writer = a.log_writer("j")
    with monkeypatch.context() as patch:

        def fail(*_: Any) -> int:
            raise DatabaseBusy("no", 1.0)

        patch.setattr(SharedLogs, "append", fail)
        writer.say("one")
        assert text(b, "j") == []
    wait_until(lambda: text(b, "j") == ["one"])


def test_an_event_loop_does_not_wait_for_a_database_that_hangs(
    two: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = two
    writer = a.log_writer("j")
    append, asked, answer = SharedLogs.append, threading.Event(), threading.Event()

    def hang(*arguments: Any) -> Any:
        asked.set()
        answer.wait(PATIENCE)
        return append(*arguments)

    monkeypatch.setattr(SharedLogs, "append", hang)
    writer.say_soon("one")
    assert asked.wait(PATIENCE)
    loop = threading.Thread(target=writer.say_soon, args=["two"])
    loop.start()
    loop.join(PATIENCE)
    assert not loop.is_alive()
    assert text(b, "j") == []
    answer.set()
    wait_until(lambda: text(b, "j") == ["one", "two"])


def test_a_copy_that_was_cut_off_is_completed(two: Stores) -> None:
    a, b = two
    for line in ("one", "two", "three"):
        a.log_writer("j").say(line)
    whole = b.log_to_read("j").read_bytes()
    for size in range(0, len(whole), 7):
        b.log("j").write_bytes(whole[:size])
        assert b.log_to_read("j").read_bytes() == whole


def test_a_full_log_takes_no_more_output(two: Stores) -> None:
    a, b = two
    writer = SharedLogWriter(SharedLogs(a.database), "j", a.log("j"), limit=100)
    for number in range(20):
        writer.feed(b"x" * 20 + b"%d\n" % number)
    writer.say("an end")
    lines = text(b, "j")
    assert len(lines) < 8
    assert lines[-1] == "an end"
    again = SharedLogWriter(SharedLogs(b.database), "j", b.log("j"), limit=100)
    again.feed(b"more\n", ended=True)
    assert text(a, "j") == lines


def test_a_deleted_jobs_log_is_deleted(two: Stores) -> None:
    a, b = two
    job = a.create("training", config={}, recipe={})
    a.log_writer(job.id).say("one")
    a.request_cancel(job.id)
    a.delete(job.id)
    assert text(b, job.id) == []


def test_without_a_store_a_log_is_a_file(tmp_path: Path) -> None:
    store = JobStore(Database(Settings(home=tmp_path)))
    try:
        assert type(store.log_writer("j")) is LogWriter
        store.log_writer("j").say("one")
        assert text(store, "j") == ["one"]
        assert store.log_to_read("j") == store.log("j")
    finally:
        store.database.close()


def test_a_long_log_is_not_read_through_for_its_next_piece(two: Stores) -> None:
    """An append holds the writers' lock of all machines, and a long job makes 100,000 pieces."""
    a, b = two
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    for store in two:
        listen(
            store.database.engine,
            "checkout",
            lambda connection, *_: connection.set_progress_handler(count, 1),
        )

    def one_more(job_id: str) -> int:
        """How many instructions SQLite executes to append a piece, and to copy it."""
        before = steps
        SharedLogs(a.database).append(job_id, [Chunk(b"next\n")])
        b.log_to_read(job_id)
        return steps - before

    pieces = 2000
    with a.database.write() as session:
        session.add(LogPiece(job_id="short", start=0, data=b"one\n"))
        session.add_all(
            LogPiece(job_id="long", start=4 * place, data=b"one\n") for place in range(pieces)
        )
    for job_id in ("short", "long"):
        b.log_to_read(job_id)
    assert one_more("long") < one_more("short") + pieces
    assert b.log_to_read("long").read_bytes() == b"one\n" * pieces + b"next\n"
