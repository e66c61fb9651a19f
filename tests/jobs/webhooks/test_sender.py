"""Webhooks from the end of a job to a receiver, which may refuse, hang or vanish."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from api.routes.jobs import JobView
from database import Database
from jobs.job import Job
from jobs.store import JobStore
from jobs.webhooks.deliveries import KEPT, NOT_SET, Delivery, DeliveryStore, target_of
from jobs.webhooks.event import MAX_BODY, OMITTED, signature
from jobs.webhooks.post import Answer, client, post
from jobs.webhooks.sender import Timing, WebhookSender, wait_before
from settings import Settings
from tests.support.clock import next_instant
from tests.support.dispatching import CLAIM, begin
from tests.support.patience import wait_until
from tests.support.serving import ROOT
from tests.support.webhook_receiver import SECRET, Receiver, Reply, always, receiving

QUICK = Timing(poll=0.01, first=0.01, longest=0.02)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def settings(home: Path, *urls: str) -> Settings:
    return Settings.model_validate(
        {"home": home, "webhook_url": urls, "webhook_secret": SECRET} if urls else {"home": home}
    )


@contextmanager
def store_of(chosen: Settings) -> Iterator[JobStore]:
    store = JobStore(Database(chosen))
    try:
        yield store
    finally:
        store.database.close()


@pytest.fixture
def store(tmp_path: Path, receiver: Receiver) -> Iterator[JobStore]:
    with store_of(settings(tmp_path, receiver.url)) as found:
        yield found


def end(store: JobStore, status: str = "completed") -> Job:
    job = store.create("training", config={"epochs": 3}, recipe={}, model_name="cats")
    begin(store, job.id)
    if status == "completed":
        store.finish(job.id, "completed", model_id="cats:1")
    elif status == "failed":
        store.finish(job.id, "failed", "no space")
    else:
        store.finish(job.id, "stopped")
    return store.get(job.id)


@contextmanager
def sending(
    store: JobStore, timing: Timing = QUICK, outcomes: list[str] | None = None
) -> Iterator[DeliveryStore]:
    deliveries = DeliveryStore(store.database)
    note: Callable[[str], None] = (outcomes if outcomes is not None else []).append
    sender = WebhookSender(deliveries, store.database.settings, note, timing)
    sender.start()
    try:
        yield deliveries
    finally:
        sender.stop()


def only(deliveries: DeliveryStore) -> Delivery:
    (found,) = deliveries.list()
    return found


def state(deliveries: DeliveryStore) -> str:
    return only(deliveries).state


@pytest.mark.parametrize(
    ("status", "event"),
    [("completed", "job.completed"), ("failed", "job.failed"), ("stopped", "job.cancelled")],
)
def test_the_receiver_gets_the_job_signed(
    store: JobStore, receiver: Receiver, status: str, event: str
) -> None:
    job, outcomes = end(store, status), list[str]()
    with sending(store, outcomes=outcomes) as deliveries:
        wait_until(lambda: state(deliveries) == "delivered")
    (request,) = receiver.requests
    content, delivery = json.loads(request.body), only(deliveries)
    assert set(content) == {"event", "id", "time", "job"}
    assert (content["event"], content["id"]) == (event, delivery.id)
    assert set(content["job"]) == set(JobView.model_fields) - set(OMITTED)
    assert content["job"]["status"] == status
    assert content["job"]["model_id"] == job.model_id
    assert content["job"]["error"] == job.error
    stamp = request.headers["VisionLoop-Timestamp"]
    assert request.headers["VisionLoop-Delivery"] == delivery.id
    assert request.headers["VisionLoop-Signature"] == signature(SECRET, int(stamp), request.body)
    assert (delivery.attempts, delivery.last_status, delivery.last_error) == (1, 200, None)
    assert outcomes == ["delivered"]


def test_a_job_cancelled_in_the_queue_is_announced_too(store: JobStore, receiver: Receiver) -> None:
    job = store.create("training", config={}, recipe={})
    store.request_cancel(job.id)
    with sending(store) as deliveries:
        wait_until(lambda: state(deliveries) == "delivered")
    assert only(deliveries).event == "job.cancelled"


def test_a_job_that_cannot_be_announced_has_not_ended(store: JobStore) -> None:
    job = store.create("training", config={}, recipe={})
    begin(store, job.id)
    with store.database.write() as session:
        session.connection().exec_driver_sql("ALTER TABLE webhook_deliveries RENAME TO away")
    with pytest.raises(Exception, match="webhook_deliveries"):
        store.finish(job.id, "completed")
    assert store.get(job.id).status == "running"


def test_a_server_error_is_tried_again_with_the_same_id(
    store: JobStore, receiver: Receiver
) -> None:
    receiver.reply = lambda number: (500 if number < 3 else 204, {}, b"")
    outcomes: list[str] = []
    end(store)
    with sending(store, outcomes=outcomes) as deliveries:
        wait_until(lambda: state(deliveries) == "delivered")
    assert len({one.headers["VisionLoop-Delivery"] for one in receiver.requests}) == 1
    assert only(deliveries).attempts == len(receiver.requests) == 3
    assert outcomes == ["retried", "retried", "delivered"]


def test_a_deleted_job_is_still_announced(store: JobStore, receiver: Receiver) -> None:
    job = end(store)
    store.delete(job.id)
    with sending(store) as deliveries:
        wait_until(lambda: state(deliveries) == "delivered")
    assert json.loads(receiver.requests[0].body)["job"]["job_id"] == job.id


def test_a_receiver_that_hangs_is_given_up_for_now(store: JobStore, receiver: Receiver) -> None:
    receiver.reply = receiver.hang
    end(store)
    with sending(store, replace(QUICK, timeout=0.1)) as deliveries:
        wait_until(lambda: only(deliveries).last_error)
    assert only(deliveries).last_error == "No answer within 0.1 s."
    assert state(deliveries) == "pending"


def test_a_receiver_that_is_not_there_is_tried_again(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound, but not listening: refuses connections
        taken.bind(("127.0.0.1", 0))
        url = f"http://user:pass@127.0.0.1:{taken.getsockname()[1]}/?key=k"
        with store_of(settings(tmp_path, url)) as store:
            end(store)
            with sending(store) as deliveries:
                wait_until(lambda: only(deliveries).attempts > 1)
            found = only(deliveries)
    assert found.last_error is not None
    assert found.last_error.startswith("ConnectError")
    assert "pass" not in found.last_error + found.address + found.target
    assert "key" not in found.address


def test_retry_after_is_honoured(store: JobStore, receiver: Receiver) -> None:
    receiver.reply = always(503, retry_after="600")
    end(store)
    with sending(store) as deliveries:
        wait_until(lambda: only(deliveries).last_status == 503)
    next_attempt = only(deliveries).next_attempt_at
    assert next_attempt is not None
    remaining = datetime.fromisoformat(next_attempt) - datetime.now(UTC)
    assert timedelta(seconds=60) < remaining <= timedelta(seconds=600)


@pytest.mark.parametrize(
    "when", ["x", "", "9" * 5000, "Mon, 01 Jan 2024 00:00:00 +" + "9" * 20, "Mon, 32 Jan 99999"]
)
def test_a_retry_after_that_is_none_is_ignored(
    store: JobStore, receiver: Receiver, when: str
) -> None:
    receiver.reply = always(503, retry_after=when)
    end(store)
    with sending(store) as deliveries:
        wait_until(lambda: only(deliveries).last_status == 503)
    assert only(deliveries).last_error == "The receiver answered 503 Service Unavailable."


def test_no_control_character_of_a_receiver_reaches_the_log(receiver: Receiver) -> None:
    async def sent() -> Answer:
        async with client() as http:
            return await post(http, receiver.url, SECRET, "test", "1", "{}")

    receiver.phrase = "\x1b[31mred"
    receiver.reply = always(500)
    assert asyncio.run(sent()).error == "The receiver answered 500 [31mred."


def test_410_stops(store: JobStore, receiver: Receiver) -> None:
    receiver.reply = always(410)
    outcomes: list[str] = []
    end(store)
    with sending(store, outcomes=outcomes) as deliveries:
        wait_until(lambda: state(deliveries) == "failed")
    assert only(deliveries).last_error == "The receiver answered 410 Gone."
    assert outcomes == ["failed"]


def test_a_redirect_is_not_followed(store: JobStore, receiver: Receiver) -> None:
    receiver.reply = always(307, location="/elsewhere")
    end(store)
    with sending(store) as deliveries:
        wait_until(lambda: only(deliveries).attempts > 1)
    assert {one.path for one in receiver.requests} == {"/hook"}
    assert "Redirects are not followed" in str(only(deliveries).last_error)


def test_a_delivery_is_given_up_after_a_day(store: JobStore, receiver: Receiver) -> None:
    receiver.reply = always(500)
    end(store)
    with sending(store, replace(QUICK, give_up=0.0)) as deliveries:
        wait_until(lambda: state(deliveries) == "failed")
    assert only(deliveries).attempts == 1


def test_waits_double_up_to_a_limit() -> None:
    waits = [wait_before(attempt, Timing(), 0.5) for attempt in range(1, 14)]
    assert waits[:4] == [5, 10, 20, 40]
    assert waits[-1] == 3600
    assert wait_before(1, Timing(), 0.0) < 5 < wait_before(1, Timing(), 1.0)
    assert wait_before(10_000, Timing(), 0.5) == 3600


def test_every_address_gets_its_own_delivery_and_a_dead_one_delays_no_other(
    tmp_path: Path, receiver: Receiver
) -> None:
    with receiving() as dead:
        dead.reply = dead.hang
        with store_of(settings(tmp_path, dead.url, receiver.url)) as store:
            for _ in range(20):
                end(store)
            with sending(store) as deliveries:
                wait_until(lambda: len(deliveries.list("delivered")) == 20)
                dead.released.set()
        assert {json.loads(one.body)["id"] for one in receiver.requests} == {
            one.id for one in deliveries.list() if one.address == receiver.url
        }


class CountedClaims(DeliveryStore):
    """A delivery store that counts how often it was asked for what is due."""

    claims = 0

    def claim(self, *args: Any) -> Sequence[Delivery]:
        self.claims += 1
        return super().claim(*args)


def test_a_delivery_is_in_flight_once_though_two_send(store: JobStore, receiver: Receiver) -> None:
    receiver.reply = receiver.hang
    end(store)
    asked = [CountedClaims(store.database) for _ in range(2)]
    senders = [WebhookSender(one, store.database.settings, timing=QUICK) for one in asked]
    try:
        for sender in senders:
            sender.start()
        wait_until(lambda: receiver.requests and all(one.claims > 3 for one in asked))
        assert len(receiver.requests) == only(asked[0]).attempts == 1
    finally:
        receiver.released.set()
        for sender in senders:
            sender.stop()


def test_a_delivery_in_flight_at_a_stop_is_sent_again_at_the_start(
    store: JobStore, receiver: Receiver
) -> None:
    receiver.reply = receiver.hang
    end(store)
    with sending(store) as deliveries:
        wait_until(lambda: receiver.requests)
    assert state(deliveries) == "pending"
    receiver.reply = always(200)
    with sending(store):
        wait_until(lambda: state(deliveries) == "delivered")
    assert only(deliveries).attempts == 2


def test_a_sender_that_is_killed_loses_nothing(
    tmp_path: Path, store: JobStore, receiver: Receiver
) -> None:
    receiver.reply = receiver.hang
    end(store)
    code = (
        "import time\n"
        "from database import Database\nfrom settings import Settings\n"
        "from jobs.webhooks.deliveries import DeliveryStore\n"
        "from jobs.webhooks.sender import WebhookSender\n"
        f"s = Settings(home={str(tmp_path)!r}, webhook_url=({receiver.url!r},), "
        f"webhook_secret={SECRET!r})\n"
        "WebhookSender(DeliveryStore(Database(s)), s).start()\ntime.sleep(600)\n"
    )
    killed = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        wait_until(lambda: receiver.requests)
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    deliveries = DeliveryStore(store.database)
    assert (state(deliveries), only(deliveries).attempts) == ("pending", 1)
    receiver.reply = always(200)
    deliveries.release(only(deliveries))  # as if the lease were over
    with sending(store):
        wait_until(lambda: state(deliveries) == "delivered")
    assert only(deliveries).attempts == 2


@pytest.mark.parametrize("status", [410, 500])
def test_an_attempt_that_fails_says_nothing_about_a_delivery_sent_again_meanwhile(
    store: JobStore, receiver: Receiver, status: int
) -> None:
    answers: dict[int, Reply] = {1: (status, {}, b""), 2: (200, {}, b"")}

    def reply(number: int) -> Reply:
        if number == 1:  # answered after the second attempt has begun
            wait_until(lambda: len(receiver.requests) == 2)
            receiver.released.wait(10)
        return answers[number]

    receiver.reply = reply
    end(store)
    outcomes: list[str] = []
    targets = [target_of(address) for address in store.database.settings.webhook_url]
    with sending(store, replace(QUICK, give_up=0.0), outcomes) as deliveries:
        wait_until(lambda: receiver.requests)
        deliveries.resend(only(deliveries).id, targets)
        wait_until(lambda: state(deliveries) == "delivered")
        receiver.released.set()
        wait_until(lambda: len(outcomes) == 2)
    assert outcomes == ["delivered", "retried"]
    assert (state(deliveries), only(deliveries).last_status) == ("delivered", 200)


@pytest.mark.parametrize("claimed_again", [False, True])
def test_the_end_of_an_older_attempt_leaves_a_delivery_sent_again_pending(
    store: JobStore, claimed_again: bool
) -> None:
    end(store)
    deliveries = DeliveryStore(store.database)
    (target,) = (target_of(address) for address in store.database.settings.webhook_url)
    (older,) = deliveries.claim(target, 1, timedelta(seconds=60))
    next_instant()
    deliveries.resend(older.id, [target])
    if claimed_again:
        deliveries.claim(target, 1, timedelta(seconds=60))
    before = only(deliveries).next_attempt_at
    assert not deliveries.failed(older, 410, "The receiver answered 410 Gone.")
    deliveries.retry(older, 500, "no", datetime.now(UTC) + timedelta(hours=1))
    deliveries.release(older)
    assert (state(deliveries), only(deliveries).next_attempt_at) == ("pending", before)
    deliveries.delivered(older, 200)  # it has arrived
    assert state(deliveries) == "delivered"


def test_a_body_is_bounded(store: JobStore, receiver: Receiver) -> None:
    job = store.create("training", config={"x": "y" * MAX_BODY}, recipe={})
    begin(store, job.id)
    store.note(job.id, CLAIM, metrics={f"metric {n}": n / 3 for n in range(10_000)})
    store.finish(job.id, "completed")
    content = only(DeliveryStore(store.database)).body
    assert len(content) <= MAX_BODY
    assert json.loads(content)["job"]["metrics"] == {}


def test_old_rows_go_and_orphans_are_given_up(store: JobStore, tmp_path: Path) -> None:
    deliveries = DeliveryStore(store.database)
    for age in (KEPT + timedelta(hours=1), timedelta(days=2), timedelta(0)):
        end(store)
        _age(store, deliveries.list()[0].id, age)
    deliveries.delivered(deliveries.list()[2], 200)
    _age(store, deliveries.list()[2].id, KEPT + timedelta(hours=1))
    assert deliveries.clean_up([]) == 1
    newest, older = deliveries.list()
    assert (newest.state, older.state) == ("pending", "failed")
    assert older.last_error == NOT_SET


def _age(store: JobStore, delivery_id: str, age: timedelta) -> None:
    then = (datetime.now(UTC) - age).isoformat(timespec="milliseconds")
    values = {"created_at": then, "finished_at": then}
    with store.database.write() as session:
        session.execute(update(Delivery).where(Delivery.id == delivery_id).values(**values))


def test_without_an_address_nothing_is_queued(tmp_path: Path) -> None:
    with store_of(settings(tmp_path)) as store:
        end(store)
        with sending(store) as deliveries:
            assert deliveries.list() == []
