"""The counter in the table `state` that tells processes to read tokens and sessions again."""

from __future__ import annotations

from sqlalchemy.orm import Session

from database import CHANGED, State

GENERATION = "tokens"  # its key


def raise_generation(session: Session) -> None:
    """Increment the counter, so that other processes reload their tokens."""
    session.info[CHANGED] = True
    row = session.get(State, GENERATION, with_for_update=True)
    if row is None:
        session.add(State(key=GENERATION, number=1))
    else:
        row.number += 1
