"""The named tokens and the sessions in memory, as every request is checked against them.

They follow changes of other processes of this machine at once, and of other machines within a
second, or when a token is not known.
"""

from __future__ import annotations

import hmac
import logging
import threading
import time
from collections.abc import Callable

from access.sessions import COOKIE_LENGTH, BrowserSession, hash_of
from access.tokens import TOKEN, Snapshot, Token, TokenStore, digest_of
from database import FAILURES

log = logging.getLogger("visionloop")

REFRESH_SECONDS = 1.0
REFRESH_PATIENCE = 0.05  # seconds to wait for a locked database
MISS_SECONDS = 0.05  # shortest time between two reads because of unknown tokens
USED_STEP = 600.0  # seconds after which a token that is used again is noted again


class LiveTokens:
    """Tokens and sessions of a snapshot that follows the database; for several threads.

    Args:
        store: Where the tokens are.
        note_used: Called with the id of a token that is used, at most once per USED_STEP.
        refresh_seconds: Age from which the snapshot is read again from a SQLite file.
    """

    def __init__(
        self,
        store: TokenStore,
        note_used: Callable[[str], None],
        refresh_seconds: float = REFRESH_SECONDS,
    ) -> None:
        self.store = store
        self.note_used = note_used
        self._refresh_seconds = refresh_seconds
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._by_id: dict[str, Token] = {}
        self._sessions: dict[str, BrowserSession] = {}  # hash of the cookie → its session
        self._checked = -refresh_seconds
        self._forced = False  # whether it is to be read now
        self._change = 0  # of the database, when the snapshot was read
        self._missed = -MISS_SECONDS
        self._used: dict[str, float] = {}  # id → when its use was noted

    @property
    def closed(self) -> bool:
        """Whether every request needs a token, whatever the settings say.

        Raises:
            SQLAlchemyError, DatabaseBusy: They were never read, and cannot be read now.
        """
        return self._current().closed

    def find(self, text: str) -> Token | None:
        """The token of this text, also if it is revoked or has expired; None if it is unknown.

        Raises:
            SQLAlchemyError, DatabaseBusy: They were never read, and cannot be read now.
        """
        form = TOKEN.fullmatch(text)
        if form is None:
            return None
        found = self.by_id(form[1])
        if found is None and self._read_again():
            found = self._by_id.get(form[1])
        if found is None or not hmac.compare_digest(digest_of(text), found.digest):
            return None
        return found

    def by_id(self, identity: str) -> Token | None:
        """The token of this id, as `find` returns it."""
        self._current()
        return self._by_id.get(identity)

    def session(self, cookie: str) -> BrowserSession | None:
        """The session of this cookie; None if there is none, or it has ended.

        Raises:
            SQLAlchemyError, DatabaseBusy: They were never read, and cannot be read now.
        """
        if len(cookie) != COOKIE_LENGTH:
            return None
        self._current()
        found = self._sessions.get(hash_of(cookie))
        if found is None and self._read_again():
            found = self._sessions.get(hash_of(cookie))
        return None if found is None or found.expired else found

    @property
    def any_valid(self) -> bool:
        """Whether a named token is valid."""
        return any(token.state == "valid" for token in self._current().tokens)

    def used(self, token: Token) -> None:
        """Note that a token has just been used."""
        moment = time.monotonic()
        if moment - self._used.get(token.id, -USED_STEP) >= USED_STEP:
            self._used[token.id] = moment
            self.note_used(token.id)

    def refresh(self) -> None:
        """Read the tokens now, if they have changed."""
        self._forced = True
        self._current()

    def _read_again(self) -> bool:
        """Read because something is unknown, unless that was done just now. Returns whether."""
        if time.monotonic() - self._missed < MISS_SECONDS or not self.store.database.answers:
            return False
        self._missed = time.monotonic()
        self.refresh()
        return True

    def _current(self) -> Snapshot:
        snapshot, change = self._snapshot, self.store.database.change()
        # A server may answer late or never, and requests wait here in the event loop: only its
        # changes, which a thread follows, are a reason to ask it.
        young = self.store.database.is_shared or (
            time.monotonic() - self._checked < self._refresh_seconds
        )
        if snapshot is not None and young and not self._forced and change == self._change:
            return snapshot
        with self._lock:
            started = time.monotonic()
            last = self._snapshot
            try:
                # Requests read this in the event loop, so they use the last snapshot at once.
                patience = None if last is None else REFRESH_PATIENCE
                found = self.store.snapshot(last or Snapshot(), patience)
            except FAILURES as error:
                if last is None:
                    raise
                log.warning("The tokens cannot be read; using those of before: %s", error)
                found = last
            if found is not last:
                self._by_id = {token.id: token for token in found.tokens}
                self._sessions = {session.hash: session for session in found.sessions}
                self._snapshot = found
            self._checked, self._change, self._forced = started, change, False
            return found
