"""What a server needs of this package: tokens and sessions in memory, the trail with its writer."""

from __future__ import annotations

from access.audit import AuditLog
from access.audit_writer import AuditWriter
from access.live_tokens import LiveTokens
from access.sessions import SessionStore
from access.tokens import TokenStore
from database import Database
from settings import Settings


class AccessControl:
    """The tokens, sessions and audit trail of a process that answers requests."""

    def __init__(self, database: Database) -> None:
        self.tokens = TokenStore(database)
        self.sessions = SessionStore(database)
        self.trail = AuditLog(database)
        self.writer = AuditWriter(
            self.trail,
            self.tokens,
            database.settings.audit_days,
            also_prune=self.sessions.prune,
        )
        self.live = LiveTokens(self.tokens, self.writer.used)

    @classmethod
    def open(cls, settings: Settings) -> AccessControl:
        """Open the database of a process that has none yet."""
        return cls(Database(settings))

    def start(self) -> None:
        """Read the tokens, and start the writer."""
        self.live.refresh()
        self.writer.start()

    def stop(self) -> None:
        """Write what is waiting."""
        self.writer.stop()
