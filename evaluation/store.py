"""Store of evaluations: each has a table row and a folder with report, plots and predictions.

Evaluating a model again adds an evaluation. A model's evaluations are deleted with the model. If
the model was deleted on the command line, they are deleted at the server's next start.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Integer, String, Text, delete, event, select
from sqlalchemy.orm import Mapped, QueryContext, mapped_column
from sqlalchemy.orm.attributes import set_committed_value

from database import HOME, Base, Database, blocks, now
from errors import VisionLoopError
from evaluation.letterbox import letterbox_of
from evaluation.target import EvaluationTarget
from jobs.home_references import referring, resolved
from models_store.names import split_tag
from storage.copies import copied
from storage.deletion import LATER, delete_each
from storage.place import open_trees

log = logging.getLogger(__name__)

REPORT = "report.json"
PLOTS = "plots"
PREDICTIONS = "predictions.npz"
WORST = "worst"
EVALUATIONS = "evaluations"  # first word of the keys: evaluations/ID
ABANDONED = 3600.0  # seconds after which a folder without a row is deleted


class EvaluationRow(Base):
    """One evaluation of a model version. Rows that the store returns are detached copies."""

    __tablename__ = "evaluations"
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012

    number: Mapped[int] = mapped_column(Integer, primary_key=True)  # ascending with time
    id: Mapped[str] = mapped_column(String(32), unique=True)
    name: Mapped[str] = mapped_column(String(63), index=True)
    version: Mapped[str] = mapped_column(String(63))
    dataset: Mapped[str] = mapped_column(String(400))  # display name
    dataset_path: Mapped[str] = mapped_column(Text)  # with a store as in recipes, read as a path
    fingerprint: Mapped[str] = mapped_column(String(64), index=True)
    split: Mapped[str] = mapped_column(String(20))
    letterbox: Mapped[str | None] = mapped_column(String(20))  # as in the report
    figures: Mapped[dict[str, Any]]
    job_id: Mapped[str | None] = mapped_column(String(32), index=True)
    created_at: Mapped[str] = mapped_column(String(40), default=now)

    @property
    def model_id(self) -> str:
        return f"{self.name}:{self.version}"


@event.listens_for(EvaluationRow, "load")
def _loaded(row: EvaluationRow, context: QueryContext) -> None:
    if (home := context.session.info.get(HOME)) is not None:
        path = resolved({"path": row.dataset_path}, home)["path"]
        set_committed_value(row, "dataset_path", path)


@event.listens_for(EvaluationRow, "refresh")
def _refreshed(row: EvaluationRow, context: QueryContext, names: Collection[str] | None) -> None:
    if names is None or "dataset_path" in names:
        _loaded(row, context)


class EvaluationStore:
    """Adds, finds and deletes evaluations; safe to share between threads and processes."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._root = database.settings.paths.evaluations
        self._locks = database.settings.paths.locks
        self._trees = open_trees(database.settings)

    def add(
        self,
        target: EvaluationTarget,
        folder: Path,
        metrics: Mapping[str, float],
        letterbox: str | None,
        job_id: str | None,
    ) -> EvaluationRow:
        """Move the output of `evaluate` into the store and add its row.

        The row is written last, so that every listed evaluation has its files.

        Args:
            target: The evaluated model and split; `model_id` is an exact `name:version`.
            folder: The output folder, on the file system of VISIONLOOP_HOME.
            metrics: `Evaluation.metrics`.
            letterbox: The letterbox of the report.
            job_id: The job that made the evaluation.
        """
        self._clear_abandoned()
        name, version = split_tag(target.model_id)
        assert version is not None, "An evaluation must have exactly one version."
        path = str(target.dataset_path or target.dataset.root)
        row = EvaluationRow(
            id=uuid.uuid4().hex,
            name=name,
            version=version,
            dataset=target.dataset_name[:400],
            dataset_path=self._stored(path),
            fingerprint=target.dataset.fingerprint,
            split=target.split,
            letterbox=letterbox,
            figures=dict(metrics),
            job_id=job_id,
        )
        self._root.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        os.replace(folder, self.folder(row))
        self.share(row)
        with self.database.write() as session:
            session.add(row)
        set_committed_value(row, "dataset_path", path)
        return row

    def _stored(self, path: str) -> str:
        """A path as rows have it: with an object store, for machines of other homes."""
        settings = self.database.settings
        if settings.store_url is None:
            return path
        return str(referring({"path": path}, settings.home)["path"])

    def latest(
        self, model_id: str, fingerprint: str, split: str, letterbox: str | None
    ) -> EvaluationRow | None:
        """The newest complete evaluation of an exact `name:version`.

        Args:
            model_id: The version.
            fingerprint: Only evaluations on the dataset with this fingerprint.
            split: Only evaluations on this split.
            letterbox: Only evaluations with this letterbox; None: of a classifier.
        """
        found = (
            row
            for row in self.history(model_id)
            if (row.fingerprint, row.split, row.letterbox) == (fingerprint, split, letterbox)
            and self.is_complete(row)
        )
        return next(found, None)

    def history(self, model_id: str) -> list[EvaluationRow]:
        """All evaluations of an exact `name:version`, the newest first."""
        name, version = split_tag(model_id)
        query = (
            select(EvaluationRow)
            .where(EvaluationRow.name == name, EvaluationRow.version == version)
            .order_by(EvaluationRow.number.desc())
        )
        with self.database.read() as session:
            return list(session.scalars(query))

    def of_job(self, job_id: str, model_id: str) -> EvaluationRow | None:
        """The first evaluation of a model by a job; later ones by the same job are auxiliary."""
        rows = [row for row in self.history(model_id) if row.job_id == job_id]
        return rows[-1] if rows else None

    def is_complete(self, row: EvaluationRow) -> bool:
        """Whether the evaluation's report file exists, here or in the object store."""
        return (self.folder(row) / REPORT).is_file() or self._trees.exists(_key(row.id))

    def folder(self, row: EvaluationRow) -> Path:
        """The place of its files on this machine, see `files`."""
        return self._root / row.id

    def files(self, row: EvaluationRow) -> Path:
        """The folder of its report.json, plots/, worst/ and predictions.npz.

        From an object store it is downloaded first: not on the event loop.

        Raises:
            BackendUnavailable: The store cannot be used now.
            NotFound: The evaluation has been deleted.
        """
        return copied(self._trees, _key(row.id), self.folder(row), self._locks)

    def share(self, row: EvaluationRow) -> None:
        """Store the files for other machines, after they were written or added to."""
        self._trees.put(self.folder(row), _key(row.id))

    def report(self, row: EvaluationRow) -> dict[str, Any]:
        """The content of report.json.

        Raises:
            OSError: The file cannot be read.
            BackendUnavailable, NotFound: As `files`.
        """
        return report_in(self.files(row))

    def delete_for(self, model_id: str) -> int:
        """Delete the evaluations of a deleted `name:version`. Returns their number."""
        return self._delete(self.history(model_id))

    def keep_only(self, models: Collection[str]) -> int:
        """Delete the evaluations of all other models. Returns their number.

        Args:
            models: Every `name:version` in the model store, including unreadable ones.
        """
        query = select(EvaluationRow.name, EvaluationRow.version).distinct()
        with self.database.read() as session:
            known = {f"{name}:{version}" for name, version in session.execute(query)}
        return self._delete([row for one in known - set(models) for row in self.history(one)])

    def _delete(self, rows: Sequence[EvaluationRow]) -> int:
        """Delete evaluations. Returns their number.

        An object that the store does not delete is nobody's then: the log says so.
        """
        numbers = [row.number for row in rows]
        with self.database.write() as session:
            for some in blocks(numbers):
                session.execute(delete(EvaluationRow).where(EvaluationRow.number.in_(some)))
        for row in rows:
            shutil.rmtree(self.folder(row), ignore_errors=True)
        try:
            delete_each([_key(row.id) for row in rows], self._trees.delete)
        except VisionLoopError as error:
            log.warning("Evaluations of deleted models are still stored: %s %s", error, LATER)
        return len(rows)

    def _clear_abandoned(self) -> None:
        """Delete folders that a killed worker moved here without writing their row."""
        with contextlib.suppress(OSError):
            old = time.time() - ABANDONED
            folders = {f.name: f for f in self._root.iterdir() if f.stat().st_mtime < old}
            with self.database.read() as session:
                known = set(session.scalars(select(EvaluationRow.id)))
            for name in folders.keys() - known:
                shutil.rmtree(folders[name], ignore_errors=True)


def _key(evaluation_id: str) -> str:
    return f"{EVALUATIONS}/{evaluation_id}"


def report_in(folder: Path) -> dict[str, Any]:
    """The content of report.json in an evaluation's folder, with its letterbox in any case.

    Raises:
        OSError: The file cannot be read.
    """
    report: dict[str, Any] = json.loads((folder / REPORT).read_bytes())
    return report | {"letterbox": letterbox_of(report)}
