"""Sessions of browsers: a cookie that stands for a token, for the console.

A page's `<img>`, `EventSource` and downloads cannot send a token in a header, but the browser sends
a cookie with each. The cookie is no token: it has 256 random bits of its own. The table has its
SHA-256, and which token it stands for: a named one by its id; one of the environment by an HMAC of
the token's digest with the cookie as the key, so that the database tells nothing about it. A
session is worth what its token is worth at the moment: it ends with it.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, cast

from sqlalchemy import CursorResult, delete, select
from sqlalchemy.orm import Session

from access.generation import raise_generation
from access.tables import AccessSession
from database import Database, now

LIFETIME = timedelta(days=7)
MOST_SESSIONS = 100  # of a named token, and of those of the environment; older ones end
COOKIE_BYTES = 32
COOKIE_LENGTH = 43  # characters of `secrets.token_urlsafe(COOKIE_BYTES)`


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """A session, without its cookie.

    Attributes:
        hash: SHA-256 of the cookie, in hexadecimal.
        token_id: Id of the named token that it stands for; None: one of the environment.
        binding: For a token of the environment: see `binding_of`.
    """

    hash: str
    token_id: str | None
    binding: str | None
    expires_at: str

    @property
    def expired(self) -> bool:
        return self.expires_at <= now()


def hash_of(cookie: str) -> str:
    """The hash by which the table knows a cookie."""
    return sha256(cookie.encode("utf-8", "surrogateescape")).hexdigest()


def binding_of(cookie: str, digest: bytes) -> str:
    """Proof that the session of `cookie` was opened with the token of `digest`."""
    return hmac.new(cookie.encode("utf-8", "surrogateescape"), digest, sha256).hexdigest()


def all_sessions(session: Session) -> tuple[BrowserSession, ...]:
    """Every session that has not expired."""
    rows = session.scalars(select(AccessSession).where(AccessSession.expires_at > now()))
    return tuple(BrowserSession(r.hash, r.token_id, r.binding, r.expires_at) for r in rows)


class SessionStore:
    """Opens and ends sessions; safe to use from several threads and processes."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def open(
        self, token_id: str | None, digest: bytes, until: str | None = None
    ) -> tuple[str, BrowserSession]:
        """Open a session, and remove those that have expired.

        Args:
            token_id: Id of the named token; None: it is one of the environment.
            digest: SHA-256 of the token.
            until: When the token expires; the session ends no later.

        Returns:
            The cookie, which nothing can show again, and the session.
        """
        cookie = secrets.token_urlsafe(COOKIE_BYTES)
        end = (datetime.now(UTC) + LIFETIME).isoformat(timespec="milliseconds")
        row = AccessSession(
            hash=hash_of(cookie),
            token_id=token_id,
            binding=None if token_id else binding_of(cookie, digest),
            created_at=now(),
            expires_at=min(end, until) if until else end,
        )
        with self.database.write() as session:
            session.execute(delete(AccessSession).where(AccessSession.expires_at <= now()))
            same = AccessSession.token_id
            older = session.scalars(
                select(AccessSession)
                .where(same.is_(None) if token_id is None else same == token_id)
                .order_by(AccessSession.created_at.desc(), AccessSession.hash)
                .offset(MOST_SESSIONS - 1)
            )
            for one in older:
                session.delete(one)
            session.add(row)
            raise_generation(session)
        return cookie, BrowserSession(row.hash, row.token_id, row.binding, row.expires_at)

    def end(self, hashes: list[str]) -> int:
        """End the sessions of these hashes, if they are there. Returns their number."""
        named = AccessSession.hash.in_(hashes)
        with self.database.read() as session:  # strangers may ask: they do not lock the database
            if session.scalar(select(AccessSession.hash).where(named).limit(1)) is None:
                return 0
        with self.database.write() as session:
            ended = session.execute(delete(AccessSession).where(named))
            count = cast("CursorResult[Any]", ended).rowcount
            if count:
                raise_generation(session)
        return count

    def end_all(self) -> None:
        """End every session, for a database that was restored: some of these were ended since."""
        with self.database.write() as session:
            session.execute(delete(AccessSession))
            raise_generation(session)

    def prune(self) -> int:
        """Remove the sessions that have expired. Returns their number."""
        with self.database.write() as session:
            gone = session.execute(delete(AccessSession).where(AccessSession.expires_at <= now()))
            return cast("CursorResult[Any]", gone).rowcount
