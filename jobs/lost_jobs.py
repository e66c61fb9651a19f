"""What is left of jobs whose rows are gone: folders, objects, pieces of a log."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Sequence

from sqlalchemy import select

from database import Database
from jobs.job import Job
from jobs.logs.shared_logs import LogPiece, delete_log
from storage.deletion import delete_each
from storage.place import open_trees

JOBS = "jobs"  # first word of the keys of objects of jobs: jobs/ID/…
JOB_ID = re.compile(r"[0-9a-f]{32}")


def lost_jobs(database: Database, min_age: float) -> Sequence[str]:
    """With an object store: ids of jobs without a row that have files here, objects or a log.

    They were deleted on another machine, or while the store could not be reached, or output of
    their worker arrived late.

    Args:
        database: Has the rows.
        min_age: Age in seconds from which a folder is not one of a job that is being made.
    """
    trees = open_trees(database.settings)
    if not trees.shared:
        return []
    found = {key.split("/")[1] for key in trees.list(JOBS)}
    for folder in database.settings.paths.jobs.glob("*/"):
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
            old = time.time() - folder.stat().st_mtime > min_age
            if old and JOB_ID.fullmatch(folder.name):
                found.add(folder.name)
    with database.read() as session:  # after the files: each job had its row before them
        found |= set(session.scalars(select(LogPiece.job_id).distinct()))
        return sorted(found - set(session.scalars(select(Job.id))))


def delete_lost_job(database: Database, job_id: str) -> None:
    """Delete what is left of one of `lost_jobs`."""
    with database.write() as session:
        delete_log(session, job_id)
    shutil.rmtree(database.settings.paths.jobs / job_id, ignore_errors=True)
    delete_objects(database, job_id)


def delete_objects(database: Database, job_id: str) -> None:
    """Delete the objects of a job, as many as can be.

    Raises:
        StoreUnavailable, StoreRefused: Some stay; the message says how many.
    """
    trees = open_trees(database.settings)
    delete_each(trees.list(f"{JOBS}/{job_id}"), trees.delete)
