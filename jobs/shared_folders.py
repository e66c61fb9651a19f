"""Folders of jobs in the object store: what a job resumes from, and what is kept after its end.

Each attempt of a job has an object of its own, which it replaces at each checkpoint: a worker on a
lost node, which still runs, cannot replace that of its successor. Once the job has ended, the files
that are kept have an object, and those of the attempts are deleted.
The keys are jobs/ID/state-ATTEMPT and jobs/ID/kept.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterable
from pathlib import Path

from errors import VisionLoopError
from files import PARTIAL
from jobs.artifacts import CHECKPOINTS, KEPT, clear
from jobs.lost_jobs import JOBS
from settings import Settings
from storage.deletion import delete_each
from storage.place import open_trees
from storage.trees import TreeNotFound

log = logging.getLogger(__name__)

RUN = "run"  # subfolder of a job's folder with its results.csv and plots
MARK = ".attempt"  # file of a job's folder: the attempt that wrote it


class JobFolders:
    """Uploads and downloads folders of jobs; does nothing where there is no object store.

    All methods block. Those that read or write objects raise StoreUnavailable or StoreRefused.
    """

    def __init__(self, settings: Settings) -> None:
        self._trees = open_trees(settings)
        self._folder = settings.paths.jobs

    @property
    def shared(self) -> bool:
        """Whether there is an object store."""
        return self._trees.shared

    def begin(self, job_id: str, attempt: int, resuming: bool) -> bool:
        """Have what the former attempt left in the job's folder, and mark it as this attempt's.

        Args:
            job_id: The job.
            attempt: Number of this attempt, from 1.
            resuming: Whether the row says that there is a checkpoint.

        Returns:
            Whether there is what to resume from.
        """
        if not self.shared:
            return resuming
        folder = self._folder / job_id
        folder.mkdir(parents=True, exist_ok=True)
        found = resuming
        if resuming and self._marked(folder) != attempt - 1:  # another machine was the last one
            found = self._fetch_newest(job_id, folder)
        (folder / MARK).write_text(str(attempt))
        return found

    def save(self, job_id: str, attempt: int) -> None:
        """Upload the checkpoint; call it before the row says that there is one."""
        if not self.shared:
            return
        folder, mine = self._folder / job_id, state_key(job_id, attempt)
        files = list(resumed_from(folder))
        if not files:
            return
        self._trees.put(folder, mine, files)
        delete_each([key for key in self._states(job_id) if key < mine], self._trees.delete)

    def settle(self, job_id: str, *, completed: bool) -> None:
        """Keep what is kept of a job that has ended; the arguments are those of `clear`.

        The folder here is cleared, too. If the store cannot be reached, the objects stay as they
        are.
        """
        folder = self._folder / job_id
        if not self.shared:
            clear(folder, completed=completed)
            return
        try:
            states = self._states(job_id)
            if states and f"{self._marked(folder):06}" != states[-1].rpartition("-")[2]:
                self._fetch_newest(job_id, folder)
            clear(folder, completed=completed)
            kept = list(resumed_from(folder))
            if kept:
                self._trees.put(folder, kept_key(job_id), kept)
            delete_each(states, self._trees.delete)
        except VisionLoopError as error:
            log.warning("What is kept of the job %s could not be stored: %s", job_id, error.message)

    def have_kept(self, job_id: str) -> None:
        """Have in the folder here what is kept of a job that has ended."""
        folder = self._folder / job_id
        if not self.shared or (folder / CHECKPOINTS).is_dir():
            return
        with contextlib.suppress(TreeNotFound):
            self._fetch(kept_key(job_id), folder)
            return
        self._fetch_newest(job_id, folder)

    def _fetch_newest(self, job_id: str, folder: Path) -> bool:
        for key in reversed(self._states(job_id)):
            with contextlib.suppress(TreeNotFound):  # replaced this moment by the next attempt's
                self._fetch(key, folder)
                return True
        return False

    def _fetch(self, key: str, folder: Path) -> None:
        fetched = folder / f"{PARTIAL}state"
        try:
            self._trees.get(key, fetched)
            for name in (CHECKPOINTS, RUN):
                shutil.rmtree(folder / name, ignore_errors=True)
                if (fetched / name).is_dir():
                    (fetched / name).rename(folder / name)
        finally:
            shutil.rmtree(fetched, ignore_errors=True)

    def _states(self, job_id: str) -> list[str]:
        """The keys of the attempts' objects, the newest last."""
        found = self._trees.list(f"{JOBS}/{job_id}")
        return [key for key in found if key.startswith(state_key(job_id, 0)[:-6])]

    def _marked(self, folder: Path) -> int:
        with contextlib.suppress(OSError, ValueError):
            return int((folder / MARK).read_text())
        return 0


def state_key(job_id: str, attempt: int) -> str:
    return f"{JOBS}/{job_id}/state-{attempt:06}"


def kept_key(job_id: str) -> str:
    return f"{JOBS}/{job_id}/kept"


def resumed_from(folder: Path) -> Iterable[str]:
    """The checkpoints, and what a run keeps: paths in the job's folder."""
    for top in (CHECKPOINTS, RUN):
        for path in sorted((folder / top).rglob("*")):
            inside = path.relative_to(folder)
            if any(part.startswith(PARTIAL) for part in inside.parts) or not path.is_file():
                continue
            if top == CHECKPOINTS or path.suffix in KEPT:
                yield inside.as_posix()
