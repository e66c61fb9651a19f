"""Database tables of the named tokens, of browsers' sessions and of the audit trail.

The names of tables and columns are stored data; migrations refer to them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Integer, String, event
from sqlalchemy.orm import Mapped, mapped_column

from database import Base, now

LONGEST_NAME = 60  # characters of a token's name
LONGEST_WHAT = 400


class AccessToken(Base):
    """A named token. Only the hash of its secret is stored. Revoked tokens keep their rows."""

    __tablename__ = "access_tokens"

    id: Mapped[str] = mapped_column(String(12), primary_key=True)  # a part of the token itself
    name: Mapped[str] = mapped_column(String(LONGEST_NAME))
    # The name in lower case while the token is not revoked: no two of these have the same.
    living_name: Mapped[str | None] = mapped_column(String(LONGEST_NAME), unique=True)
    scope: Mapped[str] = mapped_column(String(20))
    hash: Mapped[str] = mapped_column(String(64))  # SHA-256 of the whole token
    created_at: Mapped[str] = mapped_column(String(40), default=now)
    created_by: Mapped[str] = mapped_column(String(80))
    expires_at: Mapped[str | None] = mapped_column(String(40))
    last_used_at: Mapped[str | None] = mapped_column(String(40))  # behind by up to USED_STEP
    revoked_at: Mapped[str | None] = mapped_column(String(40))
    revoked_by: Mapped[str | None] = mapped_column(String(80))


class AccessSession(Base):
    """A browser's session: a cookie that stands for a token. See `access.sessions`."""

    __tablename__ = "access_sessions"

    hash: Mapped[str] = mapped_column(String(64), primary_key=True)  # SHA-256 of the cookie
    token_id: Mapped[str | None] = mapped_column(String(12))  # None: a token of the environment
    binding: Mapped[str | None] = mapped_column(String(64))  # to such a token, which it hides
    created_at: Mapped[str] = mapped_column(String(40), default=now)
    expires_at: Mapped[str] = mapped_column(String(40))


class AuditEntry(Base):
    """One change, or one refused request. Rows are added and, when old, deleted; never changed."""

    __tablename__ = "audit"
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012

    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    at: Mapped[str] = mapped_column(String(40), default=now, index=True)
    who: Mapped[str] = mapped_column(String(80), index=True)
    address: Mapped[str | None] = mapped_column(String(80))  # None: a shell command
    request_id: Mapped[str | None] = mapped_column(String(200))
    method: Mapped[str | None] = mapped_column(String(10))
    route: Mapped[str] = mapped_column(String(200))
    target: Mapped[str | None] = mapped_column(String(200))
    status: Mapped[int | None] = mapped_column(Integer)
    what: Mapped[str] = mapped_column(String(LONGEST_WHAT), default="")


@event.listens_for(AuditEntry, "before_update")
def _refuse_changes(*_: Any) -> None:
    """Keep every part of this program from changing an entry.

    A trigger of the database would do more, but `upkeep.restore` refuses databases with triggers.
    """
    raise AssertionError("the audit trail is never changed")
