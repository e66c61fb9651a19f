"""How many jobs of one caller may wait or run."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from errors import RateLimited
from jobs.job import Job
from jobs.states import LIVE

FULL_QUEUE = 60.0  # seconds of `Retry-After` when a caller has too many jobs


def refuse_too_many(session: Session, caller: str | None, most: int) -> None:
    """Refuse a further job of a caller that has as many as allowed.

    Args:
        session: Of the transaction that adds the job.
        caller: See `jobs.caller`; None: nobody is counted.
        most: VISIONLOOP_JOBS_PER_TOKEN; 0: any number.

    Raises:
        RateLimited: The caller's jobs that have not ended are `most` or more.
    """
    if caller is None or not most:
        return
    mine = (Job.caller == caller, Job.status.in_(("queued", *LIVE)))
    count = session.scalar(select(func.count()).where(*mine)) or 0
    if count >= most:
        newest = session.scalar(select(Job.id).where(*mine).order_by(Job.number.desc()).limit(1))
        raise RateLimited(
            f"{count} jobs of yours wait or run, and {most} are allowed "
            "(VISIONLOOP_JOBS_PER_TOKEN). Wait for one to end, or cancel one that you do not "
            f"need, such as the newest: POST /jobs/{newest}/cancel.",
            FULL_QUEUE,
        )
