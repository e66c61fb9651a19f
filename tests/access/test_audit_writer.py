"""The thread that writes the audit trail."""

from __future__ import annotations

import logging

import pytest

from access.audit import AuditLog
from access.audit_writer import AuditWriter
from access.entry import Entry
from access.tokens import TokenStore
from database import Database
from tests.support.locked_database import locked
from tests.support.patience import wait_until

OLD = "2020-01-01T00:00:00.000+00:00"


def test_what_is_waiting_is_written_before_the_end(trail: AuditLog, tokens: TokenStore) -> None:
    token, _ = tokens.create("a", "use", "tests")
    writer = AuditWriter(trail, tokens, days=365)
    for number in range(1200):
        writer.add(Entry("a", "/x", str(number)))
    writer.used(token.id)
    writer.stop()
    assert [entry.what for entry in trail.list(limit=2000)] == [str(n) for n in range(1199, -1, -1)]
    assert tokens.list()[0].last_used_at is not None
    writer.add(Entry("a", "/x", "again"))
    writer.stop()
    assert trail.list(limit=1)[0].what == "again"


def test_old_entries_are_deleted_at_the_start(trail: AuditLog, tokens: TokenStore) -> None:
    trail.add([Entry("a", "/x", "old", at=OLD), Entry("a", "/x", "new")])
    writer = AuditWriter(trail, tokens, days=1)
    writer.start()
    wait_until(lambda: len(trail.list()) == 1)
    writer.stop()


@pytest.mark.sqlite
def test_a_locked_database_delays_an_entry(
    database: Database, trail: AuditLog, tokens: TokenStore, caplog: pytest.LogCaptureFixture
) -> None:
    writer = AuditWriter(trail, tokens, days=0, pause=0.05)
    with locked(database.settings.paths.database):
        writer.add(Entry("a", "/x", "late"))
    wait_until(trail.list)
    writer.stop()
    assert caplog.text == ""


@pytest.mark.sqlite
def test_what_cannot_be_written_is_in_the_log_without_its_secrets(
    database: Database, trail: AuditLog, tokens: TokenStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "visionloop")
    _, secret = tokens.create("a", "use", "tests")
    writer = AuditWriter(trail, tokens, days=0, pause=0.0)
    with locked(database.settings.paths.database):
        writer.add(Entry("a", "/tokens/x", f"the lost one {secret}"))
        wait_until(lambda: "the lost one" in caplog.text)
    writer.stop()
    assert secret not in caplog.text
