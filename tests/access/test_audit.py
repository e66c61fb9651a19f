"""The table of the audit trail."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from access.audit import AuditLog, to_json
from access.entry import Entry, without_secrets
from access.expiry import after, since
from access.tables import AuditEntry
from access.tokens import TokenStore
from database import Database, now
from errors import ValidationFailed


def entries(trail: AuditLog, **wanted: object) -> list[str]:
    return [entry.what for entry in trail.list(**wanted)]  # type: ignore[arg-type]


def test_entries_are_found_by_who_what_and_when(trail: AuditLog) -> None:
    trail.add(
        [
            Entry("anna", "/models/{model_id}/promote", "first", "signs:2", "::1", "POST", 200,
                  at="2026-01-01T00:00:00.000+00:00"),
            Entry("Bert", "/train", "50% done", "job", "::1", "POST", 200, "order-7"),
            Entry("command line, root", "models_store promote", "third", "signs:3"),
        ]
    )  # fmt: skip
    assert entries(trail) == ["third", "50% done", "first"]
    assert entries(trail, who="bert") == ["50% done"]
    assert entries(trail, what="PROMOTE") == ["third", "first"]
    assert entries(trail, what="signs:3") == ["third"]
    assert entries(trail, what="0%") == ["50% done"], "% is no wildcard"
    assert entries(trail, what="order-7") == ["50% done"]
    assert entries(trail, since="2026-02-01") == ["third", "50% done"]
    assert entries(trail, limit=1) == ["third"]
    assert entries(trail, before=trail.list(limit=1)[0].number) == ["50% done", "first"]


def test_a_promotion_refers_to_its_decision(trail: AuditLog) -> None:
    trail.add(
        [
            Entry("a", "/models/{model_id}/promote", "", "signs:2", "::1", "POST", 200),
            Entry("a", "models_store rollback", "", "signs:1"),
            Entry("a", "/models/{model_id}/promote", "refused", "signs:2", "::1", "POST", 403),
            Entry("a", "/train", "", "job", "::1", "POST", 200),
        ]
    )
    shown = [to_json(entry)["decisions"] for entry in trail.list()]
    assert shown == [None, None, "/models/signs/decisions", "/models/signs/decisions"]


def test_old_entries_are_deleted_and_none_without_a_limit(trail: AuditLog) -> None:
    trail.add(
        [Entry("a", "/x", "old", at="2020-01-01T00:00:00.000+00:00"), Entry("a", "/x", "new")]
    )
    assert trail.prune(0) == 0
    assert trail.prune(30) == 1
    assert entries(trail) == ["new"]


def test_an_entry_cannot_be_changed(database: Database, trail: AuditLog) -> None:
    trail.add([Entry("a", "/x", "as it was")])
    with pytest.raises(AssertionError, match="never changed"), database.write() as session:
        session.scalars(select(AuditEntry)).one().what = "forged"
    assert entries(trail) == ["as it was"]


def test_an_entry_holds_no_secret_and_forges_no_line(tokens: TokenStore, trail: AuditLog) -> None:
    _, secret = tokens.create("a", "admin", "tests")
    trail.add([Entry("a", f"/tokens/{secret}", f"x\n{secret}\udcff", "t" * 500)])
    entry = trail.list()[0]
    assert entry.route == "/tokens/vl_…"
    assert entry.what == "x\ufffdvl_…\\udcff"
    assert len(entry.target or "") == 200
    assert without_secrets("/tokens/hunter22", ["hunter22"]) == "/tokens/…"


@pytest.mark.parametrize("text", ["90d", "12 h", "2w", "2999-01-01", "2999-01-01T00:00:00+02:00"])
def test_times_to_come_are_stored_in_utc(text: str) -> None:
    stored = after(text, "expires")
    assert stored > now()
    assert stored.endswith("+00:00")
    assert len(stored) == len(now())


@pytest.mark.parametrize("text", ["", "soon", "0d", "-1d", "90", "999999w", "2020-01-01"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(ValidationFailed, match="'expires'"):
        after(text, "expires")


def test_a_time_before_now() -> None:
    assert since("7d", "since") < now()
    assert since("2026-01-01", "since") == "2026-01-01T00:00:00.000+00:00"
