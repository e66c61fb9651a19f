"""The layout of VISIONLOOP_HOME: where each file and folder lies."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

SERVER_LOCK = ".visionloop-server.lock"
"""Lock file of a server, in VISIONLOOP_HOME and in BENTOML_HOME."""

UNFINISHED_RESTORE = "restore.unfinished"
"""File in VISIONLOOP_HOME while `restore` exchanges its content; it says what to do."""

IDENTITY = "home.id"
"""File in VISIONLOOP_HOME with random text, made by the first backup; it is in none of them."""


def unfinished_restore(home: Path) -> str | None:
    """What to do, if a restore into a home was killed while it put files in place; else None."""
    with contextlib.suppress(FileNotFoundError):
        return (home / UNFINISHED_RESTORE).read_text(encoding="utf-8").strip()
    return None


def database_lock(file: Path) -> Path:
    """The lock file of the server that uses a SQLite file, which may lie outside its home."""
    file = file.resolve()
    # A file of this name is that of a home, as a rule, whose server has its lock.
    usual = file == HomePaths(file.parent).database
    return file.with_name(SERVER_LOCK if usual else f".{file.name}{SERVER_LOCK}")


@dataclass(frozen=True)
class HomePaths:
    """Paths of the files and folders in VISIONLOOP_HOME."""

    root: Path

    def create(self) -> None:
        """Create the home, so that only its owner can enter it; an existing one is not changed."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def database(self) -> Path:
        """The SQLite file; unused if another database is configured."""
        return self.root / "visionloop.db"

    @property
    def datasets(self) -> Path:
        """One folder per dataset, named by its id."""
        return self.root / "datasets"

    @property
    def uploads(self) -> Path:
        """Temporary files of uploads, extractions and deletions."""
        return self.root / "uploads"

    @property
    def scratch(self) -> Path:
        """Temporary folders of models that are imported."""
        return self.root / "scratch"

    @property
    def jobs(self) -> Path:
        """One folder per job, with its checkpoints and log."""
        return self.root / "jobs"

    @property
    def evaluations(self) -> Path:
        """One folder per evaluation, with its report and plots."""
        return self.root / "evaluations"

    @property
    def kept_images(self) -> Path:
        """Images of live requests with low-confidence predictions, kept for annotation."""
        return self.root / "kept"

    @property
    def image_cache(self) -> Path:
        """Cached results of scanning the images of datasets."""
        return self.root / "cache" / "pictures"

    @property
    def image_index(self) -> Path:
        """Indexes of the images of datasets: one folder per dataset, one file per revision."""
        return self.root / "cache" / "index"

    @property
    def thumbnails(self) -> Path:
        """Thumbnails of the images of datasets, and PNGs of those that browsers cannot show, by the
        SHA-256 of the image."""
        return self.root / "cache" / "thumbnails"

    @property
    def engines(self) -> Path:
        """Engines made for this machine: files of TensorRT; NAME/VERSION/MACHINE of a CPU."""
        return self.root / "engines"

    @property
    def exports(self) -> Path:
        """Exported files of the models: NAME/VERSION, then one folder per export."""
        return self.root / "exports"

    @property
    def pretrained(self) -> Path:
        """Locks of downloads of pretrained weights, failed hosts, and files of older versions."""
        return self.root / "pretrained"

    @property
    def starter_sets(self) -> Path:
        """Synthetic datasets on which the starter models are evaluated."""
        return self.root / "starter-sets"

    @property
    def metrics(self) -> Path:
        """Files of the Prometheus metrics, where `serving.metrics_folder` finds no better place."""
        return self.root / "run" / "metrics"

    @property
    def locks(self) -> Path:
        """Lock files of what one process does at a time."""
        return self.root / "run" / "locks"

    @property
    def changes(self) -> Path:
        """Empty file; its time is that of the last change of models or tokens."""
        return self.root / "run" / "changes"

    @property
    def inbox_signal(self) -> Path:
        """Empty file; its time is when annotations arrived last."""
        return self.root / "run" / "annotations"

    @property
    def migration_log(self) -> Path:
        """What an unfinished `visionloop migrate` has done."""
        return self.root / "run" / "migration.jsonl"

    @property
    def schema_lock(self) -> Path:
        """Lock file of a process that creates or migrates the tables of the SQLite file."""
        return self.root / "schema.lock"

    def lock(self, name: str) -> Path:
        """Lock file of `Database.exclusive(name)`, if the database is a SQLite file."""
        return self.locks / f"{name}.lock"
