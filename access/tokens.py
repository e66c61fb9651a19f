"""Named tokens: created, listed, revoked; and whether this server is closed to callers without one.

A token is `vl_ID_SECRET`. The id finds its row, the secret has 256 random bits, and the row has the
SHA-256 of the whole token. A slow hash would protect weak secrets only, and cost each request.

The first named token closes the server: every request needs a token from then on. It stays closed
when the last token is revoked or expires; `reopen`, which only the shell calls, opens it again.
"""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from access.generation import GENERATION, raise_generation
from access.scopes import ADMIN, ORDER, ScopeName, including
from access.sessions import BrowserSession, all_sessions
from access.tables import LONGEST_NAME, AccessToken
from database import Database, State, now
from errors import Conflict, NotFound, ValidationFailed

PREFIX = "vl_"
TOKEN = re.compile(r"vl_([0-9a-f]{12})_[A-Za-z0-9]{43}", re.ASCII)
ALPHABET = string.ascii_letters + string.digits  # a double click selects the whole token
SECRET_LENGTH = 43  # characters of the alphabet: 256 bits
NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_NAME - 1}}}", re.ASCII)
ID = re.compile(r"[0-9a-f]{12}", re.ASCII)
RESERVED = frozenset({"open", "self", "unknown"})  # words of the audit trail and of a path
MOST_LIVING = 1000

CLOSED = "closed"  # a key of the table `state`

_NOT_REVOKED = select(AccessToken).where(AccessToken.revoked_at.is_(None))


@dataclass(frozen=True, slots=True)
class Token:
    """A named token, without its secret.

    Attributes:
        digest: SHA-256 of the whole token.
    """

    id: str
    name: str
    scope: ScopeName
    digest: bytes
    created_at: str
    created_by: str
    expires_at: str | None = None
    last_used_at: str | None = None
    revoked_at: str | None = None
    revoked_by: str | None = None

    @property
    def state(self) -> str:
        """`valid`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now() else "valid"

    @property
    def scopes(self) -> frozenset[str]:
        return including(self.scope)

    def to_json(self) -> dict[str, Any]:
        """The token in responses and listings."""
        return {
            "id": self.id,
            "name": self.name,
            "scope": self.scope,
            "state": self.state,
            "created_at": self.created_at,
            "created_by": self.created_by,
            "expires_at": self.expires_at,
            "last_used_at": self.last_used_at,
            "revoked_at": self.revoked_at,
            "revoked_by": self.revoked_by,
        }


@dataclass(frozen=True)
class Renewed:
    """A token that has got a new text.

    Attributes:
        token: The new one.
        text: Its secret text, which nothing can show again.
        older: Those of its name that could be used before, the newest first, as they are now.
        old_ends: When they end at the latest; None: they have ended.
    """

    token: Token
    text: str
    older: tuple[Token, ...]
    old_ends: str | None

    @property
    def ends(self) -> str:
        """What becomes of the older texts, in words."""
        many = len(self.older) > 1
        which = f"its {len(self.older)} older texts" if many else "the old text"
        if self.old_ends is None:
            return f"{which} {'have' if many else 'has'} ended"
        return f"{which} {'end' if many else 'ends'} at {self.old_ends[:16]} UTC at the latest"


@dataclass(frozen=True)
class Snapshot:
    """All tokens, all sessions, and whether the server is closed, at one time."""

    generation: int = -1
    closed: bool = False
    tokens: tuple[Token, ...] = ()
    sessions: tuple[BrowserSession, ...] = ()


def digest_of(token: str) -> bytes:
    """The SHA-256 of a token."""
    return sha256(token.encode("utf-8", "surrogateescape")).digest()


class TokenStore:
    """Reads and changes the named tokens; safe to use from several threads and processes."""

    def __init__(self, database: Database) -> None:
        self.database = database

    # --- reading

    def list(self) -> list[Token]:
        """Every token, those that are valid first, then the newest first."""
        with self.database.read() as session:
            found = _all(session)
        return sorted(found, key=lambda token: token.state != "valid")

    def snapshot(self, last: Snapshot, patience: float | None = None) -> Snapshot:
        """The present tokens and sessions; `last` if nothing has changed since."""
        with self.database.read(patience) as session:
            numbers = {
                row.key: row.number
                for row in session.scalars(select(State).where(State.key.in_((GENERATION, CLOSED))))
            }
            generation = numbers.get(GENERATION, 0)
            if generation == last.generation:
                return last
            closed = numbers.get(CLOSED, 0) > 0
            return Snapshot(generation, closed, tuple(_all(session)), all_sessions(session))

    # --- changing

    def create(
        self, name: str, scope: str, by: str, expires_at: str | None = None
    ) -> tuple[Token, str]:
        """Create a token, and close the server to callers without one.

        Returns:
            The token, and its secret text, which nothing can show again.

        Raises:
            ValidationFailed: The name or the scope is not allowed.
            Conflict: Another valid token has the name, or there are too many.
        """
        name = _checked_name(name)
        if scope not in ORDER:
            raise ValidationFailed(f"No scope {scope[:40]!r}. The scopes: {', '.join(ORDER)}.")
        row, text = _new(name, scope, by, expires_at)
        taken = Conflict(
            f"There is a token {name!r} already. Choose another name, or revoke it first: "
            f"DELETE /tokens/{name}, or visionloop tokens revoke {name}."
        )
        try:
            with self.database.write() as session:
                living = session.scalars(_NOT_REVOKED).all()
                for other in living:
                    if other.name.lower() != row.living_name:
                        continue
                    if _token(other).state == "valid":
                        raise taken
                    other.living_name = None  # it has expired: its name is free
                if sum(_token(other).state == "valid" for other in living) >= MOST_LIVING:
                    raise Conflict(f"There are {MOST_LIVING} tokens already. Revoke some first.")
                session.flush()
                session.add(row)
                _set(session, CLOSED, 1)
                raise_generation(session)
        except IntegrityError:  # another process was faster
            raise taken from None
        return _token(row), text

    def renew(
        self, name_or_id: str, by: str, expires_at: str | None = None, old_ends: str | None = None
    ) -> Renewed:
        """Create a token with the name and the scope of another, and end all that the name has.

        Args:
            name_or_id: The token that is renewed.
            by: Who renews it.
            expires_at: When the new one expires; None: after as long as the other was valid for.
            old_ends: When the older ones end at the latest; None: now, even those that an earlier
                renewal let work until later. They have no name by which they are found then.

        Raises:
            NotFound: There is none that is not revoked.
            Conflict: It was renewed before, and ends by itself.
        """
        with self.database.write() as session:
            old = _living(session, name_or_id, "renewed")
            if old.living_name is None and _named(session, old.name.lower()) is not None:
                raise Conflict(
                    f"The token with the id {old.id} is not the newest of its name: renew it by "
                    f"the name, {old.name!r}."
                )
            row, text = _new(old.name, old.scope, by, expires_at or _as_long(old))
            others = [one for one in _valid(session, old.name) if one is not old]
            for one in (old, *others):
                one.living_name = None
                if old_ends is None:
                    one.revoked_at, one.revoked_by = now(), by[:80]
                else:
                    one.expires_at = min(old_ends, one.expires_at or old_ends)
            session.flush()
            session.add(row)
            raise_generation(session)
        return Renewed(_token(row), text, tuple(map(_token, (old, *others))), old_ends)

    def revoke(self, name_or_id: str, by: str) -> Token:
        """Revoke a token by its name or id.

        By the name, so are the texts that it had before it was renewed and that work still.

        Returns:
            The token; by the name, the newest.

        Raises:
            NotFound: There is none that is not revoked.
        """
        with self.database.write() as session:
            row = _living(session, name_or_id, "revoked")
            others = [] if row.id == name_or_id.strip() else _valid(session, row.name)
            for one in {row, *others}:
                one.revoked_at, one.revoked_by, one.living_name = now(), by[:80], None
            raise_generation(session)
        return _token(row)

    def reopen(self) -> bool:
        """Let callers without a token in again, if no named token is valid.

        Whether they need one then depends on the settings, as before the first named token.

        Returns:
            Whether the server was closed.

        Raises:
            Conflict: A token is valid.
        """
        with self.database.write() as session:
            valid = [token.name for token in _all(session) if token.state == "valid"]
            if valid:
                raise Conflict(
                    f"These tokens are valid: {', '.join(valid[:10])}. Revoke them first; while "
                    "one is, every request needs a token."
                )
            row = session.get(State, CLOSED)
            if row is None or not row.number:
                return False
            row.number = 0
            raise_generation(session)
        return True

    def note_used(self, identities: Sequence[str]) -> None:
        """Store that tokens have been used now."""
        with self.database.write() as session:
            session.execute(
                update(AccessToken).where(AccessToken.id.in_(identities)).values(last_used_at=now())
            )


def _new(name: str, scope: str, by: str, expires_at: str | None) -> tuple[AccessToken, str]:
    """The row of a new token, and its secret text."""
    identity = secrets.token_hex(6)
    secret = "".join(secrets.choice(ALPHABET) for _ in range(SECRET_LENGTH))
    text = f"{PREFIX}{identity}_{secret}"
    row = AccessToken(
        id=identity,
        name=name,
        living_name=name.lower(),
        scope=scope,
        hash=digest_of(text).hex(),
        created_at=now(),
        created_by=by[:80],
        expires_at=expires_at,
    )
    return row, text


def _as_long(old: AccessToken) -> str | None:
    """When a token expires that is valid from now on for as long as another; None: never."""
    if old.expires_at is None:
        return None
    began, end = map(datetime.fromisoformat, (old.created_at, old.expires_at))
    try:
        span = datetime.now(UTC) + (end - began)
    except OverflowError:  # "never" as a date: the year 9999
        span = end
    return span.isoformat(timespec="milliseconds")


def _living(session: Session, name_or_id: str, what: str) -> AccessToken:
    """The row of a token that is not revoked. Raises NotFound; `what` is to become of it."""
    key = name_or_id.strip()
    row = session.get(AccessToken, key) if ID.fullmatch(key) else None
    if row is None:
        row = _named(session, key.lower()) or next(iter(_valid(session, key)), None)
    if row is None or row.revoked_at is not None:
        raise NotFound(f"No token {_shown(key)!r} that can be {what}. {_known(session)}")
    return row


def _named(session: Session, living_name: str) -> AccessToken | None:
    """The newest token of a name; None if it was revoked, or its name is free again."""
    return session.scalar(_NOT_REVOKED.where(AccessToken.living_name == living_name))


def _valid(session: Session, name: str) -> list[AccessToken]:
    """The tokens of a name that can be used, the newest first; renewed ones may be."""
    found = session.scalars(_NOT_REVOKED.order_by(AccessToken.created_at.desc()))
    same = (row for row in found if row.name.lower() == name.lower())
    return [row for row in same if _token(row).state == "valid"]


def lacks_admin(tokens: Sequence[Token]) -> bool:
    """Whether none of the tokens is valid for administration."""
    return not any(token.scope == ADMIN and token.state == "valid" for token in tokens)


def _checked_name(name: str) -> str:
    name = name.strip()
    if not NAME.fullmatch(name):
        raise ValidationFailed(
            f"A token's name has 1 to {LONGEST_NAME} letters, digits, '.', '_' and '-', and begins "
            f"with a letter or digit; got {_shown(name)!r}."
        )
    if name.lower() in RESERVED or ID.fullmatch(name) or name.startswith(PREFIX):
        raise ValidationFailed(
            f"{_shown(name)!r} cannot be a token's name: it reads as a token, as a token's id or "
            "as a word of the audit trail. Choose another."
        )
    return name


def _shown(text: str) -> str:
    """A name in a message: short, and not a token that was sent in its place."""
    return f"{PREFIX}…" if text.startswith(PREFIX) else text[:80]


def _known(session: Session) -> str:
    names = [token.name for token in _all(session) if token.revoked_at is None]
    return f"Known: {', '.join(names[:20])}." if names else "There are none."


def _all(session: Session) -> list[Token]:
    rows = session.scalars(select(AccessToken).order_by(AccessToken.created_at.desc()))
    return [_token(row) for row in rows]


def _token(row: AccessToken) -> Token:
    scope: Any = row.scope
    return Token(
        id=row.id,
        name=row.name,
        scope=scope,
        digest=bytes.fromhex(row.hash),
        created_at=row.created_at,
        created_by=row.created_by,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
        revoked_by=row.revoked_by,
    )


def _set(session: Session, key: str, number: int) -> None:
    session.merge(State(key=key, number=number))
