"""`/webhooks` of an application whose settings name two receivers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobs.webhooks.deliveries import DeliveryStore, enqueue, target_of
from tests.support.clock import next_instant
from tests.support.hooked_service import hooked_service
from tests.support.training_app import Service
from tests.support.webhook_receiver import SECRET, Receiver, always, receiving

Call = Callable[..., httpx.Response]
ADMIN = {"Authorization": "Bearer admin"}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def hooked(tmp_path: Path, drawn_yaml: Path, call: Call, receiver: Receiver) -> Iterator[Service]:
    with hooked_service(tmp_path / "home", drawn_yaml, call, receiver) as found:
        yield found


def test_only_the_admin_may(hooked: Service, call: Call) -> None:
    for method, path in (("GET", "/webhooks/deliveries"), ("POST", "/webhooks/test")):
        use = {"Authorization": "Bearer use"}
        assert call(hooked.app, method, path, headers=use).status_code == 403


def test_a_test_answers_what_the_receivers_said(
    hooked: Service, call: Call, receiver: Receiver
) -> None:
    receiver.reply = lambda _: always(
        410 if receiver.requests[-1].path.endswith("/gone") else 200, b"x" * 5000
    )(0)
    answered = call(hooked.app, "POST", "/webhooks/test", headers=ADMIN)
    assert answered.status_code == 200
    first, second = answered.json()["results"]
    assert (first["delivered"], first["status"], first["answer"]) == (True, 200, "x" * 1024)
    assert (second["delivered"], second["status"]) == (False, 410)
    assert second["error"] == "The receiver answered 410 Gone."
    assert "hunter2" not in answered.text
    bodies = [json.loads(one.body) for one in receiver.requests]
    assert {one["id"] for one in bodies} == {first["id"], second["id"]}
    assert all(one["event"] == "test" and one["job"] is None for one in bodies)


def test_a_test_without_an_address_names_the_settings(service: Service, call: Call) -> None:
    answered = call(service.app, "POST", "/webhooks/test")
    assert answered.status_code == 409
    assert "VISIONLOOP_WEBHOOK_URL" in answered.json()["message"]


def test_deliveries_are_listed_without_secrets(hooked: Service, call: Call) -> None:
    job = hooked.gateway.jobs.create("training", config={}, recipe={})
    hooked.gateway.jobs.request_cancel(job.id)

    def listed(query: str = "") -> Any:
        return call(hooked.app, "GET", f"/webhooks/deliveries{query}", headers=ADMIN)

    answered = listed()
    newest, older = answered.json()["deliveries"]
    assert (newest["event"], newest["job_id"], newest["state"]) == (
        "job.cancelled", job.id, "pending",
    )  # fmt: skip
    assert "hunter2" not in answered.text
    assert SECRET not in answered.text
    store = DeliveryStore(hooked.gateway.registry.database)
    store.delivered(store.list()[0], 204)
    assert [one["id"] for one in listed("?state=delivered").json()["deliveries"]] == [newest["id"]]
    assert [one["id"] for one in listed("?limit=1").json()["deliveries"]] == [newest["id"]]
    before = listed(f"?before={newest['id']}").json()["deliveries"]
    assert [one["id"] for one in before] == [older["id"]]
    assert listed("?before=nothing").status_code == 404
    assert listed("?state=lost").status_code == 400


def test_a_delivery_is_sent_again(hooked: Service, call: Call) -> None:
    database = hooked.gateway.registry.database
    store = DeliveryStore(database)
    addresses = (*hooked.gateway.settings.webhook_url[:1], "http://gone.example/")
    with database.write() as session:
        enqueue(session, addresses, "a" * 32, "completed", {"job_id": "a" * 32})
    gone, kept = store.list()
    before = kept.created_at
    store.failed(kept, 500, "The receiver answered 500.")

    def resend(delivery_id: str) -> httpx.Response:
        path = f"/webhooks/deliveries/{delivery_id}/resend"
        return call(hooked.app, "POST", path, headers=ADMIN)

    next_instant()
    answered = resend(kept.id)
    assert (answered.status_code, answered.json()["state"]) == (202, "pending")
    assert "hunter2" not in answered.text
    [due] = store.claim(target_of(addresses[0]), 5, timedelta(seconds=60))
    assert (due.id, due.body, due.attempts) == (kept.id, kept.body, 1)
    assert due.created_at > before, "tried for a day from now on"
    refused = resend(gone.id)
    assert refused.status_code == 409
    assert "no longer in VISIONLOOP_WEBHOOK_URL" in refused.json()["message"]
    assert resend("f" * 32).status_code == 404
