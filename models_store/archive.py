"""Model archives: a version in one zip file, to move it to another server.

The zip holds the version's description and weights, and `manifest.json` with their SHA-256, sizes
and the registry's facts. It contains no pickle. Every file is checked against the manifest by
name, size and hash before anything is published.
"""

from __future__ import annotations

import hashlib
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from disk_space import check_room
from errors import BackendTimeout, Conflict, InvalidModelFile
from files import atomic_path, sha256_of, temporary_folder
from models_store.architecture import checked
from models_store.description import (
    DESCRIPTION_FILE,
    ENGINES_FILE,
    ONNX_FILE,
    WEIGHTS_FILE,
    ModelDescription,
    all_finite,
    check_plausible,
)
from models_store.names import check_name
from models_store.registry import Registry
from models_store.subprocesses import ChildTimeout, run_module
from models_store.versions import ModelVersion
from zip_bounds import ZipRefused, check_growth, open_zip

MANIFEST = "manifest.json"
PORTABLE = (DESCRIPTION_FILE, WEIGHTS_FILE)
"""The model files in an archive. The ONNX file is not included but exported on import: a foreign
one could contain anything, and verifying it against the weights takes as long as the export."""
MAX_BYTES = 4 * 1024**3
MAX_MANIFEST = 1024**2
MAX_DESCRIPTION = 16 * 1024**2
MOST_ENTRIES = 100
MOST_METRICS = 200
TIMEOUT = 600.0
CHUNK = 1024**2
AGAIN = "Make it again: visionloop models export MODEL --format archive."
COPIES = 5  # sizes of the weights that an import writes: with an ONNX file, and both in the store
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


class FileEntry(BaseModel):
    model_config = ConfigDict(extra="forbid")
    bytes: int = Field(ge=0, le=MAX_BYTES)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]
Fact = Annotated[float, Field(allow_inf_nan=False)] | Annotated[str, Field(max_length=4096)] | None
"""A metric, or a fact about the evaluation, such as the name of its dataset."""


class Manifest(BaseModel):
    """The content of an archive's manifest.json."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    format: Literal["visionloop-model"] = "visionloop-model"
    format_version: Literal[1] = 1
    name: str = Field(max_length=200)
    version: str = Field(max_length=100)
    created_at: str = Field(max_length=100)
    source: dict[str, Any]
    metrics: dict[Name, Fact] | None = Field(None, max_length=MOST_METRICS)
    files: dict[str, FileEntry]


def export_archive(model: ModelVersion, path: Path, overwrite: bool = False) -> Path:
    """Write a version to `path` (a file, or a folder to put NAME-VERSION.zip into).

    Raises:
        Conflict: The file exists already.
    """
    if path.is_dir():
        path = path / f"{model.name}-{model.version}.zip"
    if path.exists() and not overwrite:
        raise Conflict(f"{path} exists already. Name another file, or overwrite it with --force.")
    files = model.files()
    with (
        atomic_path(path) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        archive.writestr(MANIFEST, facts_of(model))
        for name in PORTABLE:
            archive.write(files / name, name)
    return path


def facts_of(model: ModelVersion) -> str:
    """The content of the manifest in an archive of this version."""
    files = model.files()
    return Manifest(
        name=model.name,
        version=model.version,
        created_at=model.created_at,
        source=model.source,
        metrics=model.metrics,
        files={name: _entry(files / name) for name in PORTABLE},
    ).model_dump_json(indent=1)


def import_archive(
    registry: Registry,
    path: Path,
    *,
    name: str | None = None,
    promote: bool = False,
    timeout: float = TIMEOUT,
) -> ModelVersion:
    """Publish the version in an archive under its own or another name.

    It gets a new version id; its origin records the id that it had. If this name already has a
    version with the same weights and description, that version is returned instead.

    Args:
        registry: The registry to publish in.
        path: The archive.
        name: Model name; default: the archive's.
        promote: Make it the promoted version of its name.
        timeout: Maximum duration of check and export in seconds.

    Raises:
        InvalidModelFile: Not a model archive, damaged, or altered.
        BackendTimeout: The export took too long; nothing was published.
        InsufficientStorage: The disk has no room for the import and the reserve.
    """
    deadline = time.monotonic() + timeout
    with _opened(path) as archive:
        manifest = _manifest(archive)
        name = check_name(name if name is not None else manifest.name)
        size = sum(entry.bytes for entry in manifest.files.values())
        check_room(registry.settings, COPIES * size)
        with temporary_folder(registry.settings.paths.scratch) as folder:
            for file, entry in manifest.files.items():
                _extract(archive, file, entry, folder / file)
            _check_description(folder)
            try:
                _export(folder, deadline - time.monotonic())
            except ChildTimeout:
                raise BackendTimeout(
                    f"The model could not be prepared for serving within {timeout:.3g} seconds."
                ) from None
            source = {
                "kind": "import",
                "file": path.name[:200],
                "origin": {
                    "id": f"{manifest.name}:{manifest.version}",
                    "created_at": manifest.created_at,
                    "source": manifest.source,
                },
            }
            return registry.publish(
                folder, name, source, manifest.metrics, promote=promote, unless_present=True
            )


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = open_zip(path, MOST_ENTRIES)
    except OSError as error:
        raise InvalidModelFile(f"The file cannot be read: {error.strerror or error}.") from error
    except ZipRefused as error:
        raise InvalidModelFile(f"Not a model archive: {error}") from None
    except (zipfile.BadZipFile, ValueError) as error:
        raise InvalidModelFile(
            "The file is not a model archive: it cannot be read as a zip, and may be truncated. "
            f"{AGAIN}"
        ) from error
    with archive:
        yield archive


def _manifest(archive: zipfile.ZipFile) -> Manifest:
    try:
        info = archive.getinfo(MANIFEST)
        if info.file_size > MAX_MANIFEST:
            raise InvalidModelFile(f"The archive's manifest is larger than allowed. {AGAIN}")
        manifest = Manifest.model_validate_json(_read(archive, info, MAX_MANIFEST))
    except KeyError:
        raise InvalidModelFile(
            f"The file is not a model archive: it has no {MANIFEST}. {AGAIN}"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or MANIFEST
        message = f"The archive's manifest is wrong at {where}: {first['msg']}. {AGAIN}"
        raise InvalidModelFile(message) from error
    if not all_finite(manifest.source):
        raise InvalidModelFile(
            f"The archive's manifest is wrong at source: a number is infinite. {AGAIN}"
        )
    if set(manifest.files) != set(PORTABLE):
        raise InvalidModelFile(
            f"The archive's manifest lists {', '.join(sorted(manifest.files)) or 'nothing'}; "
            f"expected {', '.join(PORTABLE)}. {AGAIN}"
        )
    if foreign := [name for name in archive.namelist() if name not in (MANIFEST, *PORTABLE)]:
        raise InvalidModelFile(f"The archive has an unexpected file: {foreign[0][:100]!r}. {AGAIN}")
    if len(archive.namelist()) != len(PORTABLE) + 1:
        raise InvalidModelFile(f"The archive contains a file twice, or a file is missing. {AGAIN}")
    if manifest.files[DESCRIPTION_FILE].bytes > MAX_DESCRIPTION:
        raise InvalidModelFile(f"The archive's {DESCRIPTION_FILE} is unreasonably large. {AGAIN}")
    try:
        check_growth(archive.infolist())
    except ZipRefused as error:
        raise InvalidModelFile(f"The archive is refused: {error}") from None
    return manifest


def _extract(archive: zipfile.ZipFile, name: str, entry: FileEntry, target: Path) -> None:
    """Extract one file, of at most the size in the manifest, and check its hash."""
    digest, total = hashlib.sha256(), 0
    try:
        with archive.open(name) as source, target.open("wb") as file:
            while chunk := source.read(CHUNK):
                total += len(chunk)
                if total > entry.bytes:
                    break
                digest.update(chunk)
                file.write(chunk)
    except DAMAGE as error:
        raise InvalidModelFile(f"The archive is damaged at {name}. {AGAIN}") from error
    if total != entry.bytes or digest.hexdigest() != entry.sha256:
        raise InvalidModelFile(
            f"{name} does not match the archive's manifest. It was altered or is damaged. {AGAIN}"
        )


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> bytes:
    try:
        with archive.open(info) as source:
            data = source.read(most + 1)
    except DAMAGE as error:
        raise InvalidModelFile(f"The archive is damaged at {info.filename}. {AGAIN}") from error
    if len(data) > most:
        raise InvalidModelFile(f"{info.filename} in the archive is larger than allowed. {AGAIN}")
    return data


def _check_description(folder: Path) -> None:
    try:
        description = ModelDescription.load(folder)
    except ValidationError as error:
        raise InvalidModelFile(f"The archive's {DESCRIPTION_FILE} is not valid. {AGAIN}") from error
    check_plausible(description)
    if description.family == "yolo":
        checked(description.architecture)


def _export(folder: Path, timeout: float) -> None:
    """Export the ONNX file, which also proves that the weights fit the description."""
    child = run_module("models_store.export", [folder], timeout)
    made = all((folder / name).is_file() for name in (ONNX_FILE, ENGINES_FILE))
    if child.returncode != 0 or not made:
        lines = child.stderr.strip().splitlines() or [f"exit code {child.returncode}"]
        reason = lines[-1].removeprefix(f"{folder.name}: ")[:300]
        raise InvalidModelFile(f"The archive's model cannot be served: {reason}")


def _entry(path: Path) -> FileEntry:
    return FileEntry(bytes=path.stat().st_size, sha256=sha256_of(path))
