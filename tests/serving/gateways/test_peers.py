"""What gateway processes tell each other: as objects, and as processes of a few lines."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from errors import VisionLoopError
from inference.prediction import InferenceItem
from serving.failover import Trials
from serving.gateways import peers as module
from serving.gateways.fair_accept import FairListener
from serving.gateways.one_process import Leadership, OneAtATime
from serving.gateways.peers import CALLS, CONNECTIONS, Peers
from serving.idle import IdleTracker
from tests.support.patience import PATIENCE, until, wait_until
from tests.support.serving import ROOT

WRITER = """
import sys
from pathlib import Path
from serving.gateways.peers import Peers
peers = Peers(Path(sys.argv[1]))
peers.add(2, 3)
peers.set_gauges([1.5, 2])
print("there", flush=True)
sys.stdin.read()
"""
LEADER = """
import asyncio, sys
from pathlib import Path
from serving.gateways.one_process import Leadership
leadership = Leadership(Path(sys.argv[1]))
asyncio.run(leadership.wait())
print("leads", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def process(code: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    started = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert started.stdout is not None
        assert started.stdout.readline().strip()
        yield started
    finally:
        started.kill()
        started.communicate()


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Peers, Peers]:
    """Two gateway processes in one; the second has the id of a process that lives."""
    monkeypatch.setattr(module, "LOOK", 0.0)
    return Peers(tmp_path), Peers(tmp_path, pid=1)


def run(story: Any) -> None:
    asyncio.run(asyncio.wait_for(story, PATIENCE))


def test_numbers_of_another_process_are_seen_until_it_is_killed(tmp_path: Path) -> None:
    here = Peers(tmp_path)
    here.set_gauges([10, 20])
    assert here.total(CALLS) == 0
    with process(WRITER, tmp_path) as other:
        wait_until(lambda: here.total(CALLS) == 3)
        assert here.gauges(2) == [1.5, 2]
        other.kill()
        wait_until(lambda: here.total(CALLS) == 0)
        assert here.gauges(2) == [0, 0]
        assert len(list(tmp_path.iterdir())) == 1
    here.close()
    assert not list(tmp_path.iterdir())


def test_without_other_processes_there_is_no_file() -> None:
    alone = Peers()
    alone.add(CALLS, 1)
    assert alone.alone
    assert (alone.total(CALLS), alone.idle_since()) == (0, float("-inf"))
    assert not alone.has_more_than_others(CALLS)


def test_background_work_waits_for_the_requests_of_all_processes(
    pair: tuple[Peers, Peers],
) -> None:
    here, there = IdleTracker(pair[0]), IdleTracker(pair[1])

    async def story() -> None:
        await here.wait_idle(0.0)
        with there.busy():
            waiting = asyncio.create_task(here.wait_idle(0.01))
            await here.wait_busy()
            await asyncio.sleep(0.05)
            assert not waiting.done()
        await waiting
        with here.busy():
            await here.wait_busy()

    run(story())


def test_images_wait_for_trials_of_another_process_which_refuse_for_all(
    pair: tuple[Peers, Peers],
) -> None:
    item = InferenceItem(b"poison", "a:1")

    async def story() -> None:
        here, there = Trials(pair[0]), Trials(pair[1])
        assert here.refusal(item) is None
        with there.pending():
            async with there.turn:
                trial = asyncio.create_task(here.turn.acquire())
                waiting = asyncio.create_task(here.wait_until_over())
                await asyncio.sleep(0.2)
                assert not waiting.done()
                assert not trial.done()
                there.refuse(item)
            await trial
            here.turn.release()
        await waiting
        assert isinstance(here.refusal(item), VisionLoopError)
        assert here.refusal(InferenceItem(b"other", "a:1")) is None

    run(story())


def test_the_next_process_leads_when_the_leader_is_killed(tmp_path: Path) -> None:
    with process(LEADER, tmp_path) as leader:

        async def story() -> None:
            follower = Leadership(tmp_path, poll=0.01)
            waiting = asyncio.create_task(follower.wait())
            await asyncio.sleep(0.1)
            assert not waiting.done()
            leader.kill()
            await waiting
            late = asyncio.create_task(Leadership(tmp_path, poll=0.01).wait())
            await asyncio.sleep(0.05)
            assert not late.done()
            follower.stop()
            await late

        run(story())


def test_a_lock_whose_file_cannot_be_made_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a full disk; background work begins when there is room."""
    folder = tmp_path / "locks"
    folder.write_text("in the way")

    async def story() -> None:
        lock, leadership = OneAtATime("x", folder), Leadership(folder, poll=0.01)
        for _ in range(2):
            with pytest.raises(OSError, match="exists"):
                await lock.try_acquire()
        waiting = [asyncio.create_task(leadership.wait()) for _ in range(3)]
        await until(lambda: "not fetched" in caplog.text)
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in waiting)
        folder.unlink()
        await asyncio.gather(*waiting)
        assert await lock.try_acquire()
        lock.release()
        leadership.stop()

    run(story())
    assert caplog.text.count("not fetched") == 1


def test_one_at_a_time_in_order_and_without_waiting_on_request(tmp_path: Path) -> None:
    async def story() -> None:
        here, there = OneAtATime("x", tmp_path), OneAtATime("x", tmp_path)
        done = []

        async def work(name: str, lock: OneAtATime) -> None:
            async with lock:
                done.append(name)

        async with here:
            assert not await here.try_acquire()
            assert not await there.try_acquire()
            tasks = [asyncio.create_task(work(n, here)) for n in "abc"]
            leaving = asyncio.create_task(there.acquire())
            await asyncio.sleep(0.05)
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
        await asyncio.gather(*tasks)
        assert done == ["a", "b", "c"]
        assert await there.try_acquire()
        there.release()

    run(story())


class Kept(asyncio.Protocol):
    """A connection that stays open."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport


def test_connections_are_distributed_evenly(pair: tuple[Peers, Peers]) -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        other_end = listening.dup()
        # as two processes: each has its descriptor of the one socket
        listeners = [
            FairListener(loop, Kept, one, peers)
            for one, peers in zip((listening, other_end), pair, strict=True)
        ]

        def counts() -> list[float]:
            return [peers._own[CONNECTIONS] for peers in pair]

        address = listening.getsockname()
        clients = [socket.create_connection(address) for _ in range(20)]
        await until(lambda: sum(counts()) == 20)
        assert counts() == [10, 10]
        listeners[0].close()
        clients += [socket.create_connection(address) for _ in range(5)]
        await until(lambda: counts()[1] == 15)
        for client in clients:
            client.close()
        await until(lambda: counts()[1] == 0)
        listeners[1].close()
        for listener in listeners:
            await listener.wait_closed()
        listening.close()
        other_end.close()

    run(story())
