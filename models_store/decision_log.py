"""The log of promotion decisions: promoted, refused, rolled back, deleted, with reasons.

Rows are never changed; a rollback reads the previous promotions from them. Each row is written in
the transaction that changes the promotion.
"""

from __future__ import annotations

import contextlib
import getpass
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import JSON, Boolean, Integer, String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from database import Base, now
from errors import Conflict
from models_store.maintenance import set_promoted
from models_store.tables import Promotion, PublishedModel, raise_generation

Action = Literal["promoted", "refused", "rolled_back", "deleted"]

LISTED = 200  # newest decisions in a listing


class Decision(Base):
    """One decision on the promotion of a name."""

    __tablename__ = "decisions"
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012

    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(String(63), index=True)
    version: Mapped[str] = mapped_column(String(63))  # version decided on
    previous: Mapped[str | None] = mapped_column(String(63))  # the promoted version before it
    action: Mapped[str] = mapped_column(String(20))
    by: Mapped[str] = mapped_column(String(80))
    reasons: Mapped[list[str]] = mapped_column(JSON, default=list)
    regressed: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))  # classes
    forced: Mapped[bool] = mapped_column(Boolean, default=False)
    gate: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    evaluations: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    job_id: Mapped[str | None] = mapped_column(String(32))
    at: Mapped[str] = mapped_column(String(40), default=now)

    def to_json(self) -> dict[str, Any]:
        """The decision in a REST response."""
        return {
            "model_id": f"{self.name}:{self.version}",
            "previous": f"{self.name}:{self.previous}" if self.previous else None,
            "action": self.action,
            "by": self.by,
            "reasons": self.reasons,
            "regressed": self.regressed or [],
            "forced": self.forced,
            "gate": self.gate,
            "evaluations": self.evaluations,
            "job_id": self.job_id,
            "at": self.at,
        }


@dataclass(frozen=True)
class DecisionReason:
    """Who decided, and why.

    Attributes:
        by: A caller of the API, the command line, or a job.
        reasons: Sentences.
        regressed: The classes that regressed by more than the gate allows, the worst first.
        gate: The gate's conditions.
        evaluations: The ids of the two evaluations that were compared: `candidate`, `promoted`.
        forced: Whether the gate was overruled.
        job_id: The job that made the decision.
    """

    by: str = "command line"
    reasons: Sequence[str] = ()
    gate: Mapping[str, Any] | None = None
    evaluations: Mapping[str, Any] | None = None
    forced: bool = False
    job_id: str | None = None
    regressed: Sequence[str] = ()


COMMAND = DecisionReason()


def by_user() -> DecisionReason:
    """The reason of a shell command: the name of the user, if known."""
    with contextlib.suppress(KeyError, OSError):
        return DecisionReason(by=f"command line, {getpass.getuser()}")
    return COMMAND


def record(
    session: Session, action: Action, name: str, version: str, why: DecisionReason
) -> Decision:
    """Add a decision to the log; call it before the promotion changes."""
    promotion = session.get(Promotion, name)
    decision = Decision(
        name=name,
        version=version,
        previous=promotion.version if promotion else None,
        action=action,
        by=why.by[:80],
        reasons=list(why.reasons),
        regressed=list(why.regressed) or None,
        forced=why.forced,
        gate=dict(why.gate) if why.gate is not None else None,
        evaluations=dict(why.evaluations) if why.evaluations is not None else None,
        job_id=why.job_id,
    )
    session.add(decision)
    return decision


def decisions(session: Session, name: str) -> list[Decision]:
    """The decisions on a name, the newest first."""
    query = select(Decision).where(Decision.name == name)
    return list(session.scalars(query.order_by(Decision.number.desc()).limit(LISTED)))


def before(session: Session, name: str) -> str:
    """The version that a rollback of `name` would promote: the previously promoted one.

    A second rollback goes one step further back. After a new promotion, a rollback returns to the
    version that was promoted just before it.

    Raises:
        Conflict: Nothing was promoted before, or that version was deleted.
    """
    path = _path(session, name)
    promotion = session.get(Promotion, name)
    if promotion is not None and path[-1:] == [promotion.version]:
        path.pop()
    if not path:
        raise Conflict(
            f"There is nothing to roll back to: no version of {name!r} was promoted before the "
            "current one."
            if promotion is not None
            else f"There is nothing to roll back: no version of {name!r} was ever promoted."
        )
    if session.get(PublishedModel, (name, path[-1])) is None:
        raise Conflict(
            f"The version promoted before, '{name}:{path[-1]}', was deleted. Promote another one "
            f"by its id: POST /models/{name}:VERSION/promote."
        )
    return path[-1]


def step_back(session: Session, name: str, why: DecisionReason) -> str:
    """Promote the version that `before` finds; returns it. Raises as `before`."""
    version = before(session, name)
    record(session, "rolled_back", name, version, why)
    set_promoted(session, name, version)
    raise_generation(session)
    return version


def _path(session: Session, name: str) -> list[str]:
    """The history of promoted versions, the present one last, without those rolled back.

    A promotion older than this table is taken from the `previous` of the first decision after it.
    """
    path: list[str] = []
    rows = session.scalars(select(Decision).where(Decision.name == name).order_by(Decision.number))
    for row in rows:
        if row.action == "refused":
            continue
        if row.previous is not None and path[-1:] != [row.previous]:
            path.append(row.previous)
        if row.action == "promoted" and path[-1:] != [row.version]:
            path.append(row.version)
        elif row.action == "rolled_back":
            while path and path[-1] != row.version:
                path.pop()
        elif row.action == "deleted" and path[-1:] == [row.version]:
            path.pop()
    promotion = session.get(Promotion, name)
    if promotion is not None and path[-1:] != [promotion.version]:
        path.append(promotion.version)
    return path
