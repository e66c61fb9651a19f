"""The tokens in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from access.live_tokens import LiveTokens
from access.tokens import TokenStore
from database import FAILURES, Database
from tests.support.patience import wait_until


def live(tokens: TokenStore, refresh_seconds: float = 0) -> LiveTokens:
    return LiveTokens(tokens, lambda _: None, refresh_seconds)


def test_a_change_of_another_process_is_seen(database: Database, tokens: TokenStore) -> None:
    ours = live(tokens)
    other = TokenStore(Database(database.settings))
    assert not ours.closed
    _, secret = other.create("a", "train", "tests")
    found = ours.find(secret)
    assert found is not None
    assert (found.name, found.state) == ("a", "valid")
    assert ours.closed
    other.revoke("a", "tests")
    found = ours.find(secret)
    assert found is not None
    assert found.state == "revoked"
    other.database.close()


def test_a_new_token_is_known_at_once_though_the_snapshot_is_young(tokens: TokenStore) -> None:
    ours = live(tokens, refresh_seconds=3600)
    assert not ours.closed
    _, secret = tokens.create("a", "use", "tests")
    assert wait_until(lambda: ours.find(secret))


def test_a_wrong_secret_is_unknown(tokens: TokenStore) -> None:
    ours = live(tokens)
    _, secret = tokens.create("a", "use", "tests")
    other = "b" if secret[-1] == "a" else "a"
    for wrong in (secret[:-1] + other, secret[:-1], secret + "a", secret.upper(), "", "vl_"):
        assert ours.find(wrong) is None
    assert ours.find(secret) is not None


@contextmanager
def unreadable(database: Database) -> Iterator[None]:
    """While the block runs, the database's file cannot be opened."""
    file = database.settings.paths.database
    database.engine.dispose()
    moved = file.rename(file.with_suffix(".away"))
    file.mkdir()
    try:
        yield
    finally:
        file.rmdir()
        moved.rename(file)


@pytest.mark.sqlite
def test_a_database_that_cannot_be_read_locks_nobody_out(
    database: Database, tokens: TokenStore
) -> None:
    ours = live(tokens)
    _, secret = tokens.create("a", "use", "tests")
    assert ours.find(secret)
    with unreadable(database):
        assert ours.find(secret)
        assert ours.closed


@pytest.mark.sqlite
def test_tokens_that_were_never_read_let_nobody_in(database: Database, tokens: TokenStore) -> None:
    tokens.create("a", "use", "tests")
    with unreadable(database), pytest.raises(FAILURES):
        assert live(tokens).closed


def test_the_use_of_a_token_is_noted_once_in_a_while(tokens: TokenStore) -> None:
    noted: list[str] = []
    ours = LiveTokens(tokens, noted.append)
    token, _ = tokens.create("a", "use", "tests")
    other, _ = tokens.create("b", "use", "tests")
    for _ in range(3):
        ours.used(token)
        ours.used(other)
    assert noted == [token.id, other.id]
