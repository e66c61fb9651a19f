"""Who works on which image of the queue, and which images were skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from annotation.draft_tables import Claim, Draft, Skip
from database import Database, now

LEASE = 600.0  # seconds for which an image is claimed; every draft write begins them again


@dataclass(frozen=True)
class Overlay:
    """What people are doing with images of the queue.

    Attributes:
        claims: SHA-256 of an image → its claim that has not expired.
        skips: SHA-256 → who skipped it, when and why; in order of time.
        accepted: SHA-256 → author of an accepted draft, which waits for its commit.
    """

    claims: Mapping[str, Claim] = field(default_factory=dict)
    skips: Mapping[str, Skip] = field(default_factory=dict)
    accepted: Mapping[str, str] = field(default_factory=dict)


class ClaimStore:
    """Reads and changes claims and skips; safe to share between threads and processes."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def overlay(self) -> Overlay:
        with self.database.read() as session:
            return _overlay(session)

    def claim(self, author: str, choose: Callable[[Overlay], Sequence[str]]) -> list[str]:
        """Claim images, in one transaction: nobody else can claim them meanwhile.

        Args:
            author: The person.
            choose: The SHA-256 of the images to claim; never those that others have claimed.
        """
        try:
            return self._claim(author, choose)
        except IntegrityError:  # a database with several writers: another one was first
            return self._claim(author, choose)

    def _claim(self, author: str, choose: Callable[[Overlay], Sequence[str]]) -> list[str]:
        with self.database.write() as session:
            session.execute(delete(Claim).where(Claim.until <= now()))
            chosen = list(choose(_overlay(session)))
            for content in chosen:
                session.merge(Claim(content=content, author=author, until=_until()))
        return chosen

    def renew(self, author: str, content: str) -> None:
        """Claim an image for whoever draws on it, unless another person has claimed it."""
        with self.database.write() as session:
            found = session.get(Claim, content)
            if found is None or found.author == author or found.until <= now():
                session.merge(Claim(content=content, author=author, until=_until()))

    def release(self, author: str, contents: Iterable[str]) -> int:
        """Give up a person's claims. Returns how many there were."""
        with self.database.write() as session:
            mine = Claim.content.in_(list(contents)), Claim.author == author
            return session.execute(delete(Claim).where(*mine)).rowcount  # type: ignore[attr-defined]

    def skip(self, author: str, content: str, reason: str) -> None:
        """Put an image at the end of the queue, and give up the person's claim."""
        with self.database.write() as session:
            session.merge(Skip(content=content, author=author, reason=reason, skipped_at=now()))
            mine = Claim.content == content, Claim.author == author
            session.execute(delete(Claim).where(*mine))

    def bring_back(self, contents: Iterable[str]) -> int:
        """Put skipped images back in their places. Returns how many there were."""
        with self.database.write() as session:
            found = delete(Skip).where(Skip.content.in_(list(contents)))
            return session.execute(found).rowcount  # type: ignore[attr-defined]


def _overlay(session: Session) -> Overlay:
    claims = session.scalars(select(Claim).where(Claim.until > now()))
    skips = session.scalars(select(Skip).order_by(Skip.skipped_at))
    accepted = select(Draft.content, Draft.author).where(Draft.state == "accepted")
    return Overlay(
        {claim.content: claim for claim in claims},
        {skip.content: skip for skip in skips},
        {row.content: row.author for row in session.execute(accepted)},
    )


def _until() -> str:
    return (datetime.now(UTC) + timedelta(seconds=LEASE)).isoformat(timespec="milliseconds")
