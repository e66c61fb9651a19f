"""The table of webhook deliveries, which is also their queue.

A delivery's state is `pending`, and finally `delivered` or `failed`. The transaction that ends a
job adds its deliveries, so that a crash loses none of them, and deleting the job does not either:
a delivery contains what it sends. One that is being sent is pending with its next attempt after the
lease, so that a crash in between only delays it. That time also tells its attempt from others: an
attempt that failed says nothing about a delivery that was claimed or sent again meanwhile.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, cast

from sqlalchemy import CursorResult, Index, Integer, String, Text, delete, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from database import Base, Database, now
from errors import Conflict, NotFound
from jobs.webhooks.event import EVENTS, body
from setting_values import without_credentials

State = Literal["pending", "delivered", "failed"]

STATES: tuple[State, ...] = ("pending", "delivered", "failed")
LISTED = 1000  # maximum number of deliveries in a listing
LONGEST_ERROR = 300  # maximum number of characters of an error
KEPT = timedelta(days=7)  # how long deliveries that have ended stay in the table
GIVEN_UP_AFTER = timedelta(hours=24)
NOT_SET = "Given up: its address is no longer in VISIONLOOP_WEBHOOK_URL."


class Delivery(Base):
    """One event for one address. Rows that the store returns are detached copies."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index("ix_webhook_deliveries_due", "state", "target", "next_attempt_at"),
        {"sqlite_autoincrement": True},
    )

    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    id: Mapped[str] = mapped_column(String(32), unique=True)
    event: Mapped[str] = mapped_column(String(30))
    job_id: Mapped[str] = mapped_column(String(32))
    target: Mapped[str] = mapped_column(String(64))  # digest of the address
    address: Mapped[str] = mapped_column(String(2100))  # without credentials
    body: Mapped[str] = mapped_column(Text)  # what is sent
    state: Mapped[str] = mapped_column(String(12), default="pending")
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    next_attempt_at: Mapped[str | None] = mapped_column(String(40))
    last_status: Mapped[int | None] = mapped_column(Integer)  # of the last response
    last_error: Mapped[str | None] = mapped_column(String(LONGEST_ERROR))
    created_at: Mapped[str] = mapped_column(String(40), default=now)
    finished_at: Mapped[str | None] = mapped_column(String(40))


def enqueue(
    session: Session, addresses: Iterable[str], job_id: str, status: str, job: Mapping[str, Any]
) -> None:
    """Add a delivery for each address, in the transaction of the caller that ends the job.

    Args:
        session: The transaction.
        addresses: VISIONLOOP_WEBHOOK_URL.
        job_id: The job that has ended.
        status: Its final status.
        job: The job in the form of `GET /jobs/{job_id}`.
    """
    for address in addresses:
        delivery_id, time, event = uuid.uuid4().hex, now(), EVENTS[status]
        session.add(
            Delivery(
                id=delivery_id,
                event=event,
                job_id=job_id,
                target=target_of(address),
                address=without_credentials(address),
                body=body(event, delivery_id, time, job),
                created_at=time,
                next_attempt_at=time,
            )
        )


class DeliveryStore:
    """Reads and changes deliveries; thread- and process-safe, blocking."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def list(
        self, state: str | None = None, limit: int = LISTED, before: str | None = None
    ) -> list[Delivery]:
        """Deliveries, the newest first.

        Args:
            state: Only deliveries in this state.
            limit: Maximum number of deliveries.
            before: Id of a delivery: only deliveries older than it.

        Raises:
            NotFound: There is no delivery with the id `before`.
        """
        query = select(Delivery).order_by(Delivery.number.desc()).limit(limit)
        if state is not None:
            query = query.where(Delivery.state == state)
        with self.database.read() as session:
            if before is not None:
                last = session.scalar(select(Delivery).where(Delivery.id == before))
                if last is None:
                    raise NotFound(
                        f"No delivery {before[:80]!r}. GET /webhooks/deliveries lists them."
                    )
                query = query.where(Delivery.number < last.number)
            return list(session.scalars(query))

    def claim(self, target: str, limit: int, lease: timedelta) -> Sequence[Delivery]:
        """Deliveries to an address that are due; nobody else gets them within the lease.

        Counts the attempt that follows.
        """
        time, until = now(), later(lease)
        due = (
            select(Delivery)
            .where(
                Delivery.state == "pending",
                Delivery.target == target,
                Delivery.next_attempt_at <= time,
            )
            .order_by(Delivery.next_attempt_at, Delivery.number)
            .limit(limit)
        )
        with self.database.read() as session:  # most calls find none, and need not lock the file
            if session.scalar(due.limit(1)) is None:
                return []
        claimed = []
        with self.database.write() as session:
            for found in session.scalars(due).all():
                same = (Delivery.id == found.id, Delivery.next_attempt_at == found.next_attempt_at)
                attempts = found.attempts + 1
                session.expunge(found)
                values = {"next_attempt_at": until, "attempts": attempts}
                if _execute(session, update(Delivery).where(*same).values(**values)):
                    found.attempts, found.next_attempt_at = attempts, until
                    claimed.append(found)
        return claimed

    def delivered(self, delivery: Delivery, status: int) -> None:
        """Record that the receiver has accepted a delivery, whichever attempt it was."""
        self._end(delivery, "delivered", False, last_status=status, last_error=None)

    def failed(self, delivery: Delivery, status: int | None, error: str) -> bool:
        """Record that a delivery is given up. False: another attempt has taken its place."""
        reason = error[:LONGEST_ERROR]
        return self._end(delivery, "failed", True, last_status=status, last_error=reason)

    def retry(
        self, delivery: Delivery, status: int | None, error: str, next_attempt_at: datetime
    ) -> None:
        """Record a failed attempt, and when the next one follows."""
        self._set(
            delivery,
            True,
            last_status=status,
            last_error=error[:LONGEST_ERROR],
            next_attempt_at=next_attempt_at.isoformat(timespec="milliseconds"),
        )

    def release(self, delivery: Delivery) -> None:
        """Make a claimed delivery due now: its attempt was interrupted by the server's stop."""
        self._set(delivery, True, next_attempt_at=now())

    def resend(self, delivery_id: str, targets: Iterable[str]) -> Delivery:
        """Send a delivery again, or a pending one now; it is tried for a day from now on.

        Args:
            delivery_id: The delivery.
            targets: Of the addresses that are set.

        Raises:
            NotFound: There is none with this id; they are kept for some days.
            Conflict: Its address is not set any more.
        """
        with self.database.write() as session:
            found = session.scalar(select(Delivery).where(Delivery.id == delivery_id))
            if found is None:
                raise NotFound(
                    f"No delivery {delivery_id[:80]!r}. GET /webhooks/deliveries lists them."
                )
            if found.target not in targets:
                raise Conflict(
                    f"The address of this delivery ({found.address}) is no longer in "
                    "VISIONLOOP_WEBHOOK_URL. Set it again, and start the server anew."
                )
            found.state, found.finished_at = "pending", None
            found.created_at = found.next_attempt_at = now()
        return found

    def clean_up(self, targets: Iterable[str]) -> int:
        """Give up old deliveries to addresses that are not set any more; delete ended ones.

        Args:
            targets: Of the addresses that are set.

        Returns:
            The number of deliveries that were given up.
        """
        with self.database.write() as session:
            orphaned = update(Delivery).where(
                Delivery.state == "pending",
                Delivery.target.not_in(list(targets)),
                Delivery.created_at < later(-GIVEN_UP_AFTER),
            )
            values = {"state": "failed", "next_attempt_at": None, "finished_at": now()}
            given_up = _execute(session, orphaned.values(last_error=NOT_SET, **values))
            ended = Delivery.finished_at < later(-KEPT)
            session.execute(delete(Delivery).where(Delivery.state != "pending", ended))
            return given_up

    def _end(self, delivery: Delivery, state: State, only_its_own: bool, **values: Any) -> bool:
        ended = {"state": state, "next_attempt_at": None, "finished_at": now()}
        return self._set(delivery, only_its_own, **ended, **values)

    def _set(self, delivery: Delivery, only_its_own: bool, **values: Any) -> bool:
        """Change a pending delivery. Returns whether it was changed.

        Args:
            delivery: As it was claimed.
            only_its_own: Leave it alone if it was claimed again or sent again since then.
            values: The columns to set.
        """
        pending = [Delivery.id == delivery.id, Delivery.state == "pending"]
        if only_its_own:
            pending.append(Delivery.next_attempt_at == delivery.next_attempt_at)
        with self.database.write() as session:
            return _execute(session, update(Delivery).where(*pending).values(**values)) > 0


def target_of(address: str) -> str:
    """The key by which a delivery refers to an address, so that the table contains no secret."""
    return hashlib.sha256(address.encode()).hexdigest()


def later(delay: timedelta) -> str:
    """The time after `delay`, in the form of `database.now`."""
    return (datetime.now(UTC) + delay).isoformat(timespec="milliseconds")


def _execute(session: Session, statement: Any) -> int:
    """Execute a statement. Returns the number of changed rows."""
    return cast("CursorResult[Any]", session.execute(statement)).rowcount
