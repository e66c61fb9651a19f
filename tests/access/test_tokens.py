"""Named tokens: what is stored, and what closes and opens a server."""

from __future__ import annotations

from hashlib import sha256

import pytest
from sqlalchemy import text

from access.scopes import ORDER, highest, including
from access.tokens import TOKEN, Snapshot, TokenStore, digest_of
from database import Database, now
from errors import Conflict, NotFound, ValidationFailed
from tests.support.clock import next_instant

PAST = "2020-01-01T00:00:00.000+00:00"


def test_each_scope_includes_those_before_it() -> None:
    assert [sorted(including(scope)) for scope in ORDER] == [
        ["use"],
        ["annotate", "use"],
        ["annotate", "train", "use"],
        ["admin", "annotate", "train", "use"],
    ]
    assert [highest(including(scope)) for scope in ORDER] == list(ORDER)
    assert highest(frozenset()) is None


@pytest.mark.sqlite
def test_a_copy_of_the_database_reveals_no_token(database: Database, tokens: TokenStore) -> None:
    secrets = [tokens.create(f"t{n}", "admin", "tests")[1] for n in range(3)]
    with database.engine.connect() as connection:
        connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
    copied = b"".join(
        path.read_bytes() for path in database.settings.home.rglob("*") if path.is_file()
    )
    for secret in secrets:
        assert TOKEN.fullmatch(secret)
        assert secret.rpartition("_")[2].encode() not in copied
        assert sha256(secret.encode()).hexdigest().encode() in copied
    assert len({secret.rpartition("_")[2] for secret in secrets}) == 3


@pytest.mark.parametrize(
    "name", ["", "-a", "a b", "ä", "a" * 61, "a/b", "open", "Self", "0123456789ab", "vl_x"]
)
def test_names_that_cannot_be_told_from_something_else_are_refused(
    tokens: TokenStore, name: str
) -> None:
    with pytest.raises(ValidationFailed, match="name"):
        tokens.create(name, "use", "tests")


def test_an_unknown_scope_is_refused(tokens: TokenStore) -> None:
    with pytest.raises(ValidationFailed, match="use, annotate, train, admin"):
        tokens.create("a", "root", "tests")


def test_a_name_is_free_once_its_token_cannot_be_used(tokens: TokenStore) -> None:
    tokens.create("Anna", "use", "tests")
    with pytest.raises(Conflict, match="revoke anna"):
        tokens.create("anna", "use", "tests")
    tokens.revoke("anna", "tests")
    second, _ = tokens.create("anna", "train", "tests", PAST)
    third, _ = tokens.create("anna", "admin", "tests")  # the second has expired
    states = {token.id: token.state for token in tokens.list()}
    assert (states[second.id], states[third.id]) == ("expired", "valid")
    assert tokens.list()[0].id == third.id, "valid ones come first"


def test_a_token_is_revoked_by_name_or_by_id(tokens: TokenStore) -> None:
    first, second = (tokens.create(name, "use", "tests")[0] for name in ("a", "b"))
    assert tokens.revoke("A", "anna").revoked_by == "anna"
    assert tokens.revoke(second.id, "anna").revoked_at is not None
    for gone in ("a", first.id, "never"):
        with pytest.raises(NotFound, match="There are none"):
            tokens.revoke(gone, "tests")


def test_a_renewed_token_has_the_name_and_scope_of_the_old_one(tokens: TokenStore) -> None:
    old, first = tokens.create("Anna", "train", "tests")
    renewed = tokens.renew("anna", "olga")
    new, second = renewed.token, renewed.text
    assert (new.name, new.scope, new.created_by, new.expires_at) == ("Anna", "train", "olga", None)
    assert new.id != old.id
    assert digest_of(second) == new.digest != digest_of(first)
    states = {token.id: token.state for token in tokens.list()}
    assert states == {old.id: "revoked", new.id: "valid"}
    with pytest.raises(NotFound, match="renewed"):
        tokens.renew(old.id, "olga")
    assert tokens.revoke("anna", "olga").id == new.id, "the name is the new one's"


def test_the_old_text_ends_at_a_given_time(tokens: TokenStore) -> None:
    old, _ = tokens.create("anna", "use", "tests", "2999-01-11T00:00:00.000+00:00")
    later = "2998-01-01T00:00:00.000+00:00"
    new = tokens.renew(old.id, "olga", old_ends=later).token
    found = {token.id: token for token in tokens.list()}
    assert (found[old.id].state, found[old.id].expires_at) == ("valid", later)
    assert new.expires_at is not None
    assert new.expires_at > "2999-01-10", "valid for as long as the old one"
    with pytest.raises(Conflict, match="by the name, 'anna'"):
        tokens.renew(old.id, "olga")
    third = tokens.renew("anna", "olga", later, old_ends="2999-12-31").token
    assert third.expires_at == later
    assert {token.id: token for token in tokens.list()}[new.id].expires_at == new.expires_at
    assert tokens.revoke(old.id, "olga").state == "revoked"


def test_renewing_at_once_ends_every_older_text(tokens: TokenStore) -> None:
    far = "2998-01-01T00:00:00.000+00:00"
    first, _ = tokens.create("Anna", "use", "tests")
    tokens.create("bob", "use", "tests")
    second = tokens.renew("anna", "olga", old_ends=far).token
    renewed = tokens.renew("anna", "olga")
    assert [(one.id, one.state) for one in renewed.older] == [
        (second.id, "revoked"), (first.id, "revoked"),
    ]  # fmt: skip
    assert renewed.ends == "its 2 older texts have ended"
    valid = {token.id for token in tokens.list() if token.state == "valid" and token.name != "bob"}
    assert valid == {renewed.token.id}


def test_a_given_end_is_that_of_every_older_text(tokens: TokenStore) -> None:
    first, _ = tokens.create("anna", "use", "tests")
    tokens.renew("anna", "olga", old_ends="2998-01-01T00:00:00.000+00:00")
    sooner = "2997-01-01T00:00:00.000+00:00"
    renewed = tokens.renew("anna", "olga", old_ends=sooner)
    assert {one.expires_at for one in renewed.older} == {sooner}
    assert first.id in {one.id for one in renewed.older}
    assert renewed.ends == "its 2 older texts end at 2997-01-01T00:00 UTC at the latest"


def test_revoking_a_name_ends_the_texts_that_it_had_before(tokens: TokenStore) -> None:
    far = "2998-01-01T00:00:00.000+00:00"
    old, _ = tokens.create("Anna", "use", "tests")
    tokens.create("bob", "use", "tests")
    new = tokens.renew("anna", "olga", old_ends=far).token
    assert tokens.revoke("anna", "olga").id == new.id
    states = {token.id: token.state for token in tokens.list() if token.name == "Anna"}
    assert states == {old.id: "revoked", new.id: "revoked"}
    assert [token.name for token in tokens.list() if token.state == "valid"] == ["bob"]


def test_a_name_is_not_free_while_a_text_of_it_works(tokens: TokenStore) -> None:
    old, _ = tokens.create("anna", "use", "tests")
    new = tokens.renew("anna", "olga", old_ends="2998-01-01T00:00:00.000+00:00").token
    assert tokens.revoke(new.id, "olga").id == new.id
    assert {token.id: token.state for token in tokens.list()}[old.id] == "valid", "by its id alone"
    with pytest.raises(Conflict, match="already"):
        tokens.create("anna", "admin", "somebody else")
    third = tokens.renew("anna", "olga").token
    assert {token.id: token.state for token in tokens.list()}[old.id] == "revoked"
    assert tokens.revoke("anna", "olga").id == third.id
    tokens.create("anna", "use", "tests")


def test_a_token_until_the_end_of_all_dates_is_renewed(tokens: TokenStore) -> None:
    last = "9999-12-31T23:59:59.999+00:00"
    tokens.create("anna", "use", "tests", last)
    next_instant()
    assert tokens.renew("anna", "olga").token.expires_at == last


def test_an_expired_token_is_renewed_as_well(tokens: TokenStore) -> None:
    old, _ = tokens.create("anna", "use", "tests", now())
    next_instant()
    new = tokens.renew("anna", "olga", "2999-01-01T00:00:00.000+00:00", "2998-01-01").token
    states = {token.id: token.state for token in tokens.list()}
    assert states == {old.id: "expired", new.id: "valid"}


def test_a_secret_that_is_sent_as_a_name_is_not_repeated(tokens: TokenStore) -> None:
    _, secret = tokens.create("a", "use", "tests")
    with pytest.raises(NotFound) as refused:
        tokens.revoke(secret, "tests")
    assert secret[15:] not in refused.value.message


def test_the_server_stays_closed_until_the_operator_opens_it(tokens: TokenStore) -> None:
    def closed() -> bool:
        return tokens.snapshot(Snapshot()).closed

    assert not closed()
    assert not tokens.reopen()
    tokens.create("a", "use", "tests")
    assert closed()
    with pytest.raises(Conflict, match="a"):
        tokens.reopen()
    tokens.revoke("a", "tests")
    assert closed(), "the last token's end opens nothing"
    tokens.create("b", "use", "tests", PAST)
    assert closed(), "nor does its expiry"
    assert tokens.reopen()
    assert not closed()


def test_a_snapshot_is_read_again_only_after_a_change(tokens: TokenStore) -> None:
    first = tokens.snapshot(Snapshot())
    assert tokens.snapshot(first) is first
    token, secret = tokens.create("a", "use", "tests")
    second = tokens.snapshot(first)
    assert [one.digest for one in second.tokens] == [digest_of(secret)]
    tokens.note_used([token.id])
    assert tokens.snapshot(second) is second
    assert tokens.list()[0].last_used_at is not None


def test_a_token_expires_at_its_time(tokens: TokenStore) -> None:
    token, _ = tokens.create("a", "use", "tests", now())
    next_instant()
    assert token.state == "expired"
