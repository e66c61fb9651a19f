"""Model folders in the Bento model store: written atomically, read tolerantly.

The layout is BentoML's own (`BENTOML_HOME/models/NAME/VERSION/model.yaml`, and `latest`), so
`bentoml models list`, `get` and `export` work on it. `bentoml.models.create` is not used: it
creates the final folder first and then copies into it, so that readers see incomplete models, and
a crash breaks `bentoml models list` permanently (BentoML 1.4.39). This module uses neither the
database nor torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from errors import BackendUnavailable, InvalidModelFile, ModelNotFound, ValidationFailed
from models_store.description import DESCRIPTION_FILE, ONNX_FILE, WEIGHTS_FILE
from models_store.names import split_tag

MANIFEST = "model.yaml"  # BentoML's description of a version
UNPUBLISHED = ".unpublished"  # a folder with this file is visible only if it has a row
COPY = ".copy"  # a folder with this file is a copy of a version in the object store
REQUIRED = (DESCRIPTION_FILE, WEIGHTS_FILE, ONNX_FILE)
LOCK_TIMEOUT = 120  # seconds
METADATA_KEY = "visionloop"
DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"  # of version ids


@dataclass(frozen=True)
class StoredModel:
    """A version's folder and the metadata in its BentoML manifest."""

    name: str
    version: str
    path: Path
    metadata: dict[str, Any]
    unpublished: bool


def bento_home() -> Path:
    """BentoML's home, resolved as BentoML does, without importing it.

    Raises:
        ValidationFailed: It is below the home folder of a user who has none.
    """
    home = os.path.expandvars(os.environ.get("BENTOML_HOME", "~/bentoml"))
    try:
        return Path(home).expanduser().resolve()
    except RuntimeError:  # no HOME and no account
        raise ValidationFailed(
            f"BENTOML_HOME: The home folder of {home} is unknown; give the full path of a folder."
        ) from None


def locate(tag: str) -> Path:
    """The folder of an exact `name:version`.

    Raises:
        ModelNotFound: There is no such version, or files of it are missing.
    """
    name, version = split_tag(tag)
    if version is None:
        raise ModelNotFound(f"{tag!r} has no version. Write name:version.")
    folder = bento_home() / "models" / name / version
    if not all((folder / file).is_file() for file in (DESCRIPTION_FILE, WEIGHTS_FILE)):
        raise ModelNotFound(
            f"No model '{name}:{version}' in the model store. `visionloop models list` shows all."
        )
    return folder


def content_hash(folder: Path) -> str:
    """SHA-256 of a model's description and weights, hexadecimal."""
    digest = hashlib.sha256()
    for name in (DESCRIPTION_FILE, WEIGHTS_FILE):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def published_content(folder: Path) -> str | None:
    """The `content_hash` of a version when it was published; None if its manifest has none."""
    try:
        manifest = yaml.safe_load((folder / MANIFEST).read_text(encoding="utf-8"))
        found = json.loads(manifest["metadata"][METADATA_KEY])["content"]
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        return None
    return found if isinstance(found, str) else None


def new_version() -> str:
    """A short, unique, lower-case version id that sorts by time: milliseconds, then random."""
    number = (time.time_ns() // 1_000_000 << 20) | secrets.randbits(20)
    text = ""
    for _ in range(13):
        number, digit = divmod(number, 32)
        text = DIGITS[digit] + text
    return text.lstrip("0")


def version_time(version: str) -> float:
    """When `new_version` made an id, in seconds since 1970; 0 for an id from elsewhere."""
    number = 0
    for character in version:
        if (digit := DIGITS.find(character)) < 0:
            return 0.0
        number = number * 32 + digit
    return (number >> 20) / 1000


class ModelStore:
    """Writing access to the store; every change happens under one lock per `BENTOML_HOME`."""

    def __init__(self, home: Path | None = None) -> None:
        self.home = home or bento_home()
        self.models = self.home / "models"
        self._staging = self.home / "visionloop-staging"
        self.downloads = self.home / "visionloop-downloads"  # temporary folders

    @contextmanager
    def lock(self) -> Iterator[None]:
        """The writers' lock, across processes.

        Raises:
            BackendUnavailable: Another process held it for longer than LOCK_TIMEOUT.
        """
        self.models.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.home / "visionloop-models.lock", timeout=LOCK_TIMEOUT):
                yield
        except Timeout as error:
            raise BackendUnavailable("The model store is busy; try again.", 10) from error

    def folder(self, name: str, version: str) -> Path:
        return self.models / name / version

    def add(self, source: Path, name: str, version: str, metadata: Mapping[str, Any]) -> Path:
        """Copy a model folder into the store, marked unpublished. Requires the lock.

        Raises:
            InvalidModelFile: A required file is missing, or an entry is not a regular file.
        """
        missing = [file for file in REQUIRED if not (source / file).is_file()]
        if missing:
            raise InvalidModelFile(f"The model folder lacks {', '.join(missing)}.")
        staged = self._staging / f"{name}-{version}"
        staged.mkdir(parents=True)
        for file in sorted(source.rglob("*")):
            name_in_model = file.relative_to(source)
            if any(part.startswith(".") for part in name_in_model.parts):  # left by a crash
                continue
            target = staged / name_in_model
            if file.is_symlink() or not (file.is_dir() or file.is_file()):
                raise InvalidModelFile(f"{file.name} in the model folder is not a regular file.")
            if file.is_dir():
                target.mkdir()
            else:
                shutil.copyfile(file, target)
                _sync(target)
        (staged / UNPUBLISHED).touch()
        self._write_manifest(staged, name, version, metadata)
        _sync(staged)
        target = self.folder(name, version)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(staged, target)
        _sync(target.parent)
        return target

    def receive(self, folder: Path, name: str, version: str, metadata: Mapping[str, Any]) -> None:
        """Put a version that was downloaded in place. Needs no lock: it is one rename.

        Args:
            folder: Its files, on the file system of the store; it is moved.
            name, version, metadata: As in `add`.
        """
        self._write_manifest(folder, name, version, metadata)
        (folder / COPY).touch()
        target = self.folder(name, version)
        if target.is_dir():  # files of it are missing
            self._discard(target)
        while True:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.rename(folder, target)
                break
            except FileNotFoundError:  # the name was deleted with its last version
                if not folder.exists():
                    raise
        self._repair_name(name)

    def mark_copy(self, name: str, version: str) -> None:
        """Note that the object store has this version: its folder here may be deleted."""
        (self.folder(name, version) / COPY).touch()

    def is_copy(self, folder: Path) -> bool:
        return (folder / COPY).exists()

    def mark_published(self, name: str, version: str) -> None:
        _write(self.models / name / "latest", version)
        (self.folder(name, version) / UNPUBLISHED).unlink(missing_ok=True)

    def mark_unpublished(self, name: str, version: str) -> None:
        folder = self.folder(name, version)
        if folder.is_dir():
            (folder / UNPUBLISHED).touch()

    def remove(self, name: str, version: str) -> None:
        """Delete a version's folder, if it exists. Requires the lock."""
        folder = self.folder(name, version)
        if folder.is_dir():
            self._discard(folder)
        self._repair_name(name)

    def write_metadata(self, name: str, version: str, metadata: Mapping[str, Any]) -> None:
        """Replace a version's metadata. Requires the lock."""
        self._write_manifest(self.folder(name, version), name, version, metadata)

    def write_promoted(self, name: str, version: str | None) -> None:
        """Store the promoted version beside BentoML's `latest`, for `reindex`."""
        path = self.models / name / "promoted"
        if version is None:
            path.unlink(missing_ok=True)
        elif path.parent.is_dir():
            _write(path, version)

    def read_promoted(self, name: str) -> str | None:
        try:
            return (self.models / name / "promoted").read_text(encoding="utf-8").strip()
        except OSError:
            return None

    def scan(self) -> tuple[list[StoredModel], list[str]]:
        """VisionLoop's versions in the store, and a sentence for each unusable folder.

        Models of other programs in the same store are ignored.
        """
        found: list[StoredModel] = []
        problems: list[str] = []
        for folder in sorted(self.models.glob("*/*/")):
            name, version = folder.parent.name, folder.name
            try:
                manifest = yaml.safe_load((folder / MANIFEST).read_text(encoding="utf-8"))
                note = manifest["metadata"].get(METADATA_KEY)
                if note is None:
                    continue
                metadata = json.loads(note)
                missing = [file for file in REQUIRED if not (folder / file).is_file()]
                if not isinstance(metadata, dict) or missing:
                    raise ValueError(f"lacks {', '.join(missing) or 'its metadata'}")
            except FileNotFoundError:
                problems.append(f"{name}:{version} is incomplete: no {MANIFEST}.")
            except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as e:
                problems.append(f"{name}:{version} is unusable: {e}")
            else:
                marked = (folder / UNPUBLISHED).exists()
                found.append(StoredModel(name, version, folder, metadata, marked))
        return found, problems

    def names_of_others(self) -> set[str]:
        """The names under which there are models of other programs only."""
        found = set()
        for folder in self.models.glob("*/"):
            versions = list(folder.glob("*/"))
            if versions and all(map(_is_of_another_program, versions)):
                found.add(folder.name)
        return found

    def staged(self) -> list[Path]:
        """Folders of models that are being written, or were when their process was killed."""
        return list(self._staging.glob("*"))

    def clear_staging(self) -> int:
        """Delete what interrupted writers left. Requires the lock, so that nobody is writing."""
        leftovers = self.staged()
        for path in leftovers:
            shutil.rmtree(path, ignore_errors=True)
        return len(leftovers)

    def _discard(self, folder: Path) -> None:
        """Delete a version's folder."""
        # Renamed first, so that a reader finds the complete folder or none.
        trash = self._staging / f"deleted-{folder.parent.name}-{folder.name}-{secrets.token_hex(4)}"
        trash.parent.mkdir(parents=True, exist_ok=True)
        os.rename(folder, trash)
        shutil.rmtree(trash, ignore_errors=True)

    def _repair_name(self, name: str) -> None:
        """Point `latest` to an existing version, or delete the name with its last version."""
        folder = self.models / name
        if not folder.is_dir():
            return
        versions = sorted(path.name for path in folder.glob("*/") if (path / MANIFEST).is_file())
        if versions:
            _write(folder / "latest", versions[-1])
        elif not any(path.is_dir() for path in folder.iterdir()):
            shutil.rmtree(folder, ignore_errors=True)

    def _write_manifest(
        self, folder: Path, name: str, version: str, metadata: Mapping[str, Any]
    ) -> None:
        manifest = {
            "name": name,
            "version": version,
            "module": "",
            "labels": {"visionloop": str(metadata.get("type", ""))},
            "options": {},
            # A single JSON string, because BentoML's metadata cannot contain None.
            "metadata": {METADATA_KEY: json.dumps(metadata, sort_keys=True)},
            "context": {
                "framework_name": "",
                "framework_versions": {},
                "bentoml_version": installed("bentoml"),
                "python_version": platform.python_version(),
            },
            "signatures": {},
            "api_version": "v1",
            "creation_time": metadata.get("created_at") or datetime.now(UTC).isoformat(),
        }
        _write(folder / MANIFEST, yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True))


def _is_of_another_program(folder: Path) -> bool:
    """Whether a version's manifest can be read, and is not VisionLoop's."""
    try:
        manifest = yaml.safe_load((folder / MANIFEST).read_text(encoding="utf-8"))
        return METADATA_KEY not in (manifest["metadata"] or {})
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        return False


def _write(path: Path, text: str) -> None:
    """Replace a file atomically and durably.

    `files.atomic_write` is not used: its temporary folder, which a crash would leave behind, would
    look like a version to BentoML.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        _sync(temporary)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
