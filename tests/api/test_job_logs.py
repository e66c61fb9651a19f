"""The logs of jobs: listed, followed, ended."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from api.job_logs import events
from jobs.logs.log_file import LogWriter
from tests.support.patience import PATIENCE, until
from tests.support.training_app import Service


class Follower:
    """Reads a job's log as server-sent events."""

    def __init__(self, service: Service, job_id: str, offset: int = 0) -> None:
        self.text = ""
        self._events = events(
            service.gateway, job_id, offset, lambda job: job.status, heartbeat=0.0, poll=0.02
        )

    def has(self, text: str) -> bool:
        return text in self.text

    async def read(self) -> str:
        async for piece in self._events:
            self.text += piece
        return self.text


def test_logs_are_listed_with_their_times(service: Service) -> None:
    job = service.start()
    LogWriter(service.jobs.log(job.id)).say("Epoch 1/50")
    for path in (f"/api/training/tasks/{job.id}/logs", f"/jobs/{job.id}/logs"):
        *_, last = service.get(path)["logs"]
        assert last.startswith("[20")
        assert last.endswith("] Epoch 1/50")


def test_followed_logs_come_whole_and_end_with_the_job(service: Service) -> None:
    job = service.start()
    writer = LogWriter(service.jobs.log(job.id))

    async def story() -> str:
        follower = Follower(service, job.id)
        following = asyncio.create_task(follower.read())
        for number in range(20):
            writer.say(f"line {number}")
            await until(partial(follower.has, f"line {number}\n"))
        await until(lambda: follower.text.endswith(": heartbeat\n\n"))
        assert not following.done()
        writer.say("the last word")
        service.jobs.finish(job.id, "failed", "It broke.")
        return await asyncio.wait_for(following, PATIENCE)

    text = asyncio.run(story())
    lines = [line.partition("] ")[2] for line in text.splitlines() if line.startswith("data: [")]
    assert lines[2:] == [f"line {number}" for number in range(20)] + ["the last word"]
    assert text.endswith('event: end\ndata: {"status": "failed"}\n\n')
    assert ": heartbeat\n\n" in text
    ids = [int(line[4:]) for line in text.splitlines() if line.startswith("id: ")]
    assert ids[-1] == writer.path.stat().st_size
    assert asyncio.run(Follower(service, job.id, ids[-2]).read()).count("data: [") == 1


def test_a_follower_that_has_everything_is_told_not_to_come_again(service: Service) -> None:
    job = service.start()
    service.jobs.finish(job.id, "stopped")
    path = f"/api/training/tasks/{job.id}/logs?follow=true"
    answer = service.call(service.app, "GET", path)
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert 'data: {"status": "cancelled"}' in answer.text
    size = str(service.jobs.log(job.id).stat().st_size)
    again = service.call(service.app, "GET", path, headers={"Last-Event-ID": size})
    assert again.status_code == 204
    odd = service.call(service.app, "GET", path, headers={"Last-Event-ID": "-3; DROP"})
    assert odd.text == answer.text


def test_a_stream_ends_when_the_server_does(service: Service) -> None:
    job = service.start()

    async def story() -> str:
        follower = Follower(service, job.id)
        following = asyncio.create_task(follower.read())
        await until(lambda: "data: [" in follower.text)
        service.gateway.shutdown.set()
        return await asyncio.wait_for(following, PATIENCE)

    assert "event: end" not in asyncio.run(story())


@pytest.mark.parametrize("last", ["9" * 5000, "-1", "x", "٣"])
def test_a_strange_place_to_go_on_from_is_the_beginning(service: Service, last: str) -> None:
    job = service.start()
    service.jobs.finish(job.id, "stopped")
    path = f"/jobs/{job.id}/logs?follow=true"
    headers = {"Last-Event-ID": last.encode()}
    answer = service.call(service.app, "GET", path, headers=headers)
    assert answer.text.count("data: [") == 2
