"""Sessions of browsers in the table, and in memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, update

from access.control import AccessControl
from access.live_tokens import LiveTokens
from access.sessions import LIFETIME, MOST_SESSIONS, SessionStore, binding_of, hash_of
from access.tables import AccessSession
from access.tokens import TokenStore, digest_of
from database import Database
from settings import Settings
from tests.support.locked_database import locked

DIGEST = digest_of("of the environment")
PAST = "2020-01-01T00:00:00.000+00:00"


@pytest.fixture
def sessions(database: Database) -> SessionStore:
    return SessionStore(database)


def rows(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(AccessSession)) or 0


def test_the_table_has_neither_the_cookie_nor_the_token(
    database: Database, sessions: SessionStore
) -> None:
    cookie, found = sessions.open(None, DIGEST)
    assert found.hash == hash_of(cookie)
    assert found.binding == binding_of(cookie, DIGEST)
    with database.read() as session:
        (row,) = session.scalars(select(AccessSession))
    stored = " ".join(str(value) for value in vars(row).values())
    assert cookie not in stored
    assert DIGEST.hex() not in stored


def test_a_session_ends_after_a_week_and_no_later_than_its_token(sessions: SessionStore) -> None:
    _, found = sessions.open("0" * 12, DIGEST)
    left = datetime.fromisoformat(found.expires_at) - datetime.now(UTC)
    assert timedelta(0) < LIFETIME - left < timedelta(minutes=1)
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="milliseconds")
    _, found = sessions.open("0" * 12, DIGEST, until=soon)
    assert found.expires_at == soon


def test_expired_sessions_are_removed(database: Database, sessions: SessionStore) -> None:
    for _ in range(3):
        sessions.open(None, DIGEST)
    with database.write() as session:
        session.execute(update(AccessSession).values(expires_at=PAST))
    sessions.open(None, DIGEST)
    assert rows(database) == 1
    with database.write() as session:
        session.execute(update(AccessSession).values(expires_at=PAST))
    assert sessions.prune() == 1
    assert rows(database) == 0


def test_the_oldest_sessions_of_a_token_end_when_there_are_too_many(
    database: Database, sessions: SessionStore
) -> None:
    live = LiveTokens(TokenStore(database), lambda _: None)
    other, _ = sessions.open("b" * 12, DIGEST)
    first, _ = sessions.open("a" * 12, DIGEST)
    with database.write() as session:  # so that it is the oldest, however fast this machine is
        of_first = AccessSession.hash == hash_of(first)
        session.execute(update(AccessSession).where(of_first).values(created_at=PAST))
    for _ in range(MOST_SESSIONS):
        last, _ = sessions.open("a" * 12, DIGEST)
    assert rows(database) == MOST_SESSIONS + 1
    assert live.session(first) is None
    assert live.session(last) is not None
    assert live.session(other) is not None


def test_two_gateways_on_one_database_know_the_same_sessions(database: Database) -> None:
    ours = AccessControl(database)
    other = AccessControl.open(Settings(home=database.settings.home))
    assert other.live.session("x" * 43) is None
    cookie, found = ours.sessions.open(None, DIGEST)
    assert other.live.session(cookie) == found
    assert other.sessions.end([found.hash]) == 1
    assert ours.live.session(cookie) is None
    assert other.live.session(cookie) is None
    other.tokens.database.close()


def test_a_session_survives_a_restart(database: Database, sessions: SessionStore) -> None:
    cookie, found = sessions.open(None, DIGEST)
    after = AccessControl.open(Settings(home=database.settings.home))
    assert after.live.session(cookie) == found
    after.tokens.database.close()


def test_a_session_that_expires_in_memory_is_none(
    database: Database, sessions: SessionStore
) -> None:
    cookie, _ = sessions.open(None, DIGEST)
    live = LiveTokens(TokenStore(database), lambda _: None, refresh_seconds=3600)
    assert live.session(cookie) is not None
    with database.write() as session:
        session.execute(update(AccessSession).values(expires_at=PAST))
    live.refresh()  # nothing tells of a change: the snapshot stays, and has the time of before
    again = LiveTokens(TokenStore(database), lambda _: None)
    assert again.session(cookie) is None


@pytest.mark.parametrize("cookie", ["", "x", "x" * 43, "x" * 44, "ü" * 43, "\udcff" * 43])
def test_what_is_no_cookie_of_ours_is_no_session(database: Database, cookie: str) -> None:
    live = LiveTokens(TokenStore(database), lambda _: None, refresh_seconds=0)
    assert live.session(cookie) is None


@pytest.mark.sqlite
def test_who_has_no_session_does_not_wait_for_the_database(
    database: Database, sessions: SessionStore
) -> None:
    with locked(database.settings.paths.database):
        assert sessions.end([]) == 0
        assert sessions.end([hash_of("x" * 43)]) == 0
