"""Collects the files of a home and its models into a backup, while a server writes them.

Only what the state of a database refers to is copied, and datasets, which have no rows of their
own. A file that is deleted meanwhile is no error here: `collect` says what is missing, and `backup`
then begins anew with a later state.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from files import PARTIAL
from home_paths import HomePaths
from jobs.artifacts import CHECKPOINTS
from models_store.store import REQUIRED, ModelStore
from upkeep.manifest import HOME, MODELS, Entry, is_harmless
from upkeep.state import JobState, State
from upkeep.storage import FolderWriter

REMADE = ("data", "model", "evaluation")  # of an unfinished job: made anew when it resumes
TRIES = 200  # to see a folder of checkpoints unchanged while its files are opened
PAUSE = 0.05  # seconds between two of them
LISTINGS = 5  # of a folder whose files are deleted while it is copied


class Vanished(Exception):
    """A file was deleted between its listing and its copy."""


@dataclass
class Collected:
    """The files of one pass.

    Attributes:
        entries: By path in the backup.
        missing: What the state refers to, and was not there.
        links: Paths of symbolic links and other special files, and of those that are too long: they
            are not copied.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    datasets: int = 0


class Collector:
    """Copies files into a backup; a later pass reads only what has changed since.

    Args:
        paths: The home.
        store: The model store.
        writer: The backup.
    """

    def __init__(self, paths: HomePaths, store: ModelStore, writer: FolderWriter) -> None:
        self._paths = paths
        self._store = store
        self._writer = writer
        # (device, inode, size, time of change) → hash and size; hard links have one inode
        self._known: dict[tuple[int, int, int, int], tuple[str, int]] = {}
        self._links: dict[tuple[int, int], int] = {}

    def collect(self, state: State) -> Collected:
        """One pass over everything that belongs to a state of the database."""
        found = Collected()
        self._models(state, found)
        self._datasets(state, found)
        for job_id, job in sorted(state.jobs.items()):
            self._job(job_id, job, found)
        for evaluation in sorted(state.evaluations):
            folder = self._paths.evaluations / evaluation
            if not self._folder(folder, f"{HOME}/evaluations/{evaluation}", found):
                found.missing.append(f"the files of the evaluation {evaluation}")
        for job in state.jobs.values():
            self._upload(job, found)
        for folder in (self._paths.kept_images, self._paths.pretrained, self._paths.starter_sets):
            self._folder(folder, f"{HOME}/{folder.name}", found)
        return found

    # --- what belongs together

    def _models(self, state: State, found: Collected) -> None:
        newest: dict[str, tuple[str, str]] = {}
        for (name, version), created_at in sorted(state.models.items()):
            path = f"{MODELS}/{name}/{version}"
            copied = self._folder(self._store.folder(name, version), path, found)
            if not copied or not all(f"{path}/{file}" in found.entries for file in REQUIRED):
                found.missing.append(f"files of the model {name}:{version}")
            newest[name] = max(newest.get(name, ("", "")), (created_at, version))
        for name, (_, version) in newest.items():
            self._text(f"{MODELS}/{name}/latest", version, found)
        for name, version in state.promoted.items():
            if name in newest:
                self._text(f"{MODELS}/{name}/promoted", version, found)

    def _datasets(self, state: State, found: Collected) -> None:
        top = self._paths.datasets
        with contextlib.suppress(FileNotFoundError):
            for name in sorted(os.listdir(top)):
                if name.startswith("."):  # locks, and temporary files
                    continue
                if self._folder(top / name, f"{HOME}/datasets/{name}", found):
                    found.datasets += 1
        for dataset_id, with_images in sorted(state.annotated.items()):
            start = f"{HOME}/datasets/{dataset_id}/"
            if with_images and not any(path.startswith(start) for path in found.entries):
                found.missing.append(f"the files of the dataset {dataset_id}")

    def _job(self, job_id: str, job: JobState, found: Collected) -> None:
        folder, path = self._paths.jobs / job_id, f"{HOME}/jobs/{job_id}"
        skipped = (*REMADE, CHECKPOINTS) if job.unfinished else (CHECKPOINTS,)
        if not self._folder(folder, path, found, skipped):
            found.missing.append(f"the folder of the job {job_id}")
            return
        checkpoints = self._checkpoints(folder / CHECKPOINTS, f"{path}/{CHECKPOINTS}", found)
        if job.unfinished and job.resumable and job.kind == "training" and not checkpoints:
            found.missing.append(f"the checkpoints of the job {job_id}")

    def _upload(self, job: JobState, found: Collected) -> None:
        """The images that were uploaded for an unfinished batch annotation."""
        folder = Path(str(job.recipe.get("dataset") or "")).resolve()
        uploads = self._paths.uploads.resolve()
        if job.unfinished and folder != uploads and folder.is_relative_to(uploads):
            name = folder.relative_to(uploads).parts[0]
            if not self._folder(uploads / name, f"{HOME}/uploads/{name}", found):
                found.missing.append(f"the uploaded images {name}")

    # --- folders and files

    def _folder(
        self, folder: Path, path: str, found: Collected, skipped: tuple[str, ...] = ()
    ) -> bool:
        """Copy a folder or file; returns whether it was there. If a file vanishes, list it anew."""
        for _ in range(LISTINGS):
            part = Collected()
            try:
                self._tree(folder, path, part, skipped)
            except Vanished:
                continue
            except FileNotFoundError:
                return False
            found.entries |= part.entries
            found.links += part.links
            return True
        found.missing.append(f"files of {path}, which change all the time")
        return True

    def _tree(
        self, folder: Path, path: str, found: Collected, skipped: tuple[str, ...] = ()
    ) -> None:
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode):
            self._file(folder, path, found)
            return
        files: list[str] = []
        folders: list[str] = []
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.startswith(PARTIAL) or entry.name in skipped:
                    continue
                (folders if entry.is_dir(follow_symlinks=False) else files).append(entry.name)
        # A dataset's card names a revision, which is older than the card: files are read first.
        for name in files:
            self._file(folder / name, f"{path}/{name}", found)
        for name in folders:
            try:
                self._tree(folder / name, f"{path}/{name}", found)
            except FileNotFoundError:
                raise Vanished from None
        if not files and not folders and is_harmless(path):  # those of HOME are made anew
            found.entries[path] = Entry(path, None, 0, status.st_mtime_ns)

    def _file(self, file: Path, path: str, found: Collected) -> None:
        try:
            if not stat.S_ISREG(file.lstat().st_mode) or not is_harmless(path):
                found.links.append(str(file))
                return
            source = _open(file)
        except FileNotFoundError:
            raise Vanished from None
        with source:
            found.entries[path] = self._content(source, path)

    def _content(self, source: IO[bytes], path: str) -> Entry:
        """Store what an open file contains now; a log may grow meanwhile."""
        status = os.fstat(source.fileno())
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if key not in self._known:
            self._known[key] = self._writer.add(source, status.st_size)
        sha256, size = self._known[key]
        link = 0
        if status.st_nlink > 1:
            link = self._links.setdefault((status.st_dev, status.st_ino), len(self._links) + 1)
        return Entry(path, sha256, size, status.st_mtime_ns, link)

    def _checkpoints(self, folder: Path, path: str, found: Collected) -> bool:
        """Copy checkpoints as they were at one moment; returns whether there are any.

        A job resumes from several files that fit each other. Each is only ever replaced, so all are
        opened, and are of one moment if none was replaced until the last one was open.
        """
        for _ in range(TRIES):
            with contextlib.ExitStack() as stack:
                try:
                    before = _versions(folder)
                    opened = {name: stack.enter_context(_open(folder / name)) for name in before}
                    same = before == _versions(folder)
                except FileNotFoundError:
                    same, before, opened = not folder.exists(), {}, {}
                if same:
                    for name, source in opened.items():
                        found.entries[f"{path}/{name}"] = self._content(source, f"{path}/{name}")
                    return bool(before)
            time.sleep(PAUSE)
        found.missing.append(f"{path}, which changes all the time")
        return True

    def _text(self, path: str, text: str, found: Collected) -> None:
        data = text.encode()
        sha256, size = self._writer.add(io.BytesIO(data), len(data))
        found.entries[path] = Entry(path, sha256, size, time.time_ns())


def measured(paths: HomePaths, store: ModelStore, state: State) -> int:
    """The bytes that a backup of a state will read, about; hard links count once."""
    folders = [store.folder(name, version) for name, version in state.models]
    folders += [paths.datasets, paths.evaluations, paths.jobs, paths.kept_images, paths.pretrained]
    seen: dict[tuple[int, int], int] = {}
    for folder in folders:
        for top, _, names in os.walk(folder):
            for name in names:
                with contextlib.suppress(OSError):
                    status = os.lstat(os.path.join(top, name))
                    if stat.S_ISREG(status.st_mode):
                        seen[status.st_dev, status.st_ino] = status.st_size
    return sum(seen.values())


def _versions(folder: Path) -> dict[str, tuple[int, int, int]]:
    """The files of a folder, each with numbers that change when it is replaced."""
    found = {}
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_file(follow_symlinks=False) and not entry.name.startswith(PARTIAL):
                status = entry.stat(follow_symlinks=False)
                found[entry.name] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return found


def _open(file: Path) -> IO[bytes]:
    """Open a regular file; no pipe is waited for, no link followed."""
    return os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
