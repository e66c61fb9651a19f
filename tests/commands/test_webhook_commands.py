"""`visionloop webhooks`, asked of an application that has two receivers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from commands import webhooks
from jobs.webhooks.deliveries import DeliveryStore
from tests.support.hooked_service import hooked_service
from tests.support.served_app import served
from tests.support.training_app import Call, Service
from tests.support.webhook_receiver import Receiver, always, receiving

Command = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def hooked(tmp_path: Path, drawn_yaml: Path, call: Call, receiver: Receiver) -> Iterator[Service]:
    with hooked_service(tmp_path / "home", drawn_yaml, call, receiver) as found:
        yield found


@pytest.fixture
def command(
    hooked: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """A command line; returns the exit code, stdout and stderr."""

    def run(line: str) -> tuple[int, str, str]:
        code = webhooks.main(line.split())
        read = capsys.readouterr()
        return code, read.out, read.err

    with served(hooked.app) as url:
        monkeypatch.setenv("VISIONLOOP_URL", url)
        monkeypatch.setenv("VISIONLOOP_ADMIN_TOKEN", "admin")
        yield run


@pytest.fixture
def deliveries(hooked: Service) -> DeliveryStore:
    """Two deliveries of a cancelled job; the newest is given up."""
    job = hooked.gateway.jobs.create("training", config={}, recipe={})
    hooked.gateway.jobs.request_cancel(job.id)
    store = DeliveryStore(hooked.gateway.registry.database)
    assert store.failed(store.list()[0], 410, "The receiver answered 410 Gone.")
    return store


def test_no_delivery_is_a_sentence(command: Command) -> None:
    assert command("list") == (0, "No deliveries. They are kept for some days.\n", "")
    assert command("list --json") == (0, "[]\n", "")


def test_the_deliveries_are_listed_with_their_reason(
    command: Command, deliveries: DeliveryStore
) -> None:
    newest, older = deliveries.list()
    code, text, _ = command("list")
    heading, first, second = text.splitlines()
    assert code == 0
    assert heading.split() == ["ID", "EVENT", "JOB", "STATE", "ATTEMPTS", "CREATED", "ADDRESS"]
    assert first.split()[:5] == [newest.id, "job.cancelled", newest.job_id, "failed", "0"]
    assert first.endswith(f"{newest.address}  The receiver answered 410 Gone.")
    assert second.split()[:4] == [older.id, "job.cancelled", older.job_id, "pending"]
    assert "hunter2" not in text
    only_failed = json.loads(command("list --state failed --json")[1])
    assert [one["id"] for one in only_failed] == [newest.id]


def test_a_delivery_is_sent_again(command: Command, deliveries: DeliveryStore) -> None:
    newest, _ = deliveries.list()
    code, text, _ = command(f"resend {newest.id}")
    said = f"Delivery {newest.id} (job.cancelled) is sent to {newest.address}.\n"
    assert (code, text) == (0, said)
    assert {one.state for one in deliveries.list()} == {"pending"}
    code, text, _ = command(f"resend {newest.id} --json")
    assert (code, json.loads(text)["id"]) == (0, newest.id)


def test_a_receiver_that_refuses_the_test_is_code_1(command: Command, receiver: Receiver) -> None:
    gone = always(410)
    receiver.reply = lambda number: (
        gone(number) if receiver.requests[number - 1].path.endswith("/gone") else (200, {}, b"")
    )
    code, text, _ = command("test")
    first, second = text.splitlines()
    assert code == 1
    assert first == f"{receiver.url}?…: delivered"
    assert second == f"{receiver.url}/gone: not delivered: The receiver answered 410 Gone."
    receiver.reply = always(200)
    code, text, _ = command("test --json")
    assert (code, [one["delivered"] for one in json.loads(text)]) == (0, [True, True])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("list --state lost", "'state' must be one of pending, delivered, failed; got 'lost'."),
        ("resend " + "f" * 32, "GET /webhooks/deliveries lists them."),
        ("list --url http://127.0.0.1:1", "No server answers at http://127.0.0.1:1"),
    ],
)
def test_refusals_are_one_line(command: Command, line: str, words: str) -> None:
    code, text, error = command(line)
    assert (code, text) == (1, "")
    assert error.startswith("error: ")
    assert words in error
    assert error.count("\n") == 1


def test_they_need_the_admins_token(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISIONLOOP_ADMIN_TOKEN", "use")
    for line in ("list", "test", "resend " + "f" * 32):
        code, _, error = command(line)
        assert code == 1
        assert error.startswith("error: ")
