"""Data and weights on the caller's machine: datasets are packed and uploaded."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from commands.client import Refused, Server
from dataset.data_yaml import load
from dataset.image_files import SUFFIXES, UNREADABLE, is_junk
from dataset.zip_archive import KEPT, PERHAPS_LABELS
from errors import VisionLoopError
from shell import size

PACKED = KEPT | UNREADABLE | PERHAPS_LABELS  # the server says what it cannot read of these
YAML = (".yaml", ".yml")
NAMES_FILE = (".zip", *YAML, ".pt", ".pth")  # what ends so is a file's name, and no id
CHECKED = 600.0  # seconds within which the server has checked an upload
OLD = (1980, 1, 1, 0, 0, 0)  # of every entry, so that the same files always give the same zip


class NotPacked(Exception):
    """The path is no dataset that can be packed; the message says why."""


@dataclass
class Package:
    """A zip of a dataset.

    Attributes:
        path: The zip.
        sha256: Of the zip, in hexadecimal.
        files: Number of files in it; 0 if it was a zip before.
        left_out: Suffix → number of files of the folder that are not in it.
    """

    path: Path
    sha256: str
    files: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def size(self) -> int:
        return self.path.stat().st_size


def pack(given: Path, folder: Path) -> Package:
    """The zip to upload for a zip, a data.yaml or a folder.

    Args:
        given: What the user named.
        folder: A temporary folder, into which the zip is written unless `given` is one.

    Raises:
        NotPacked: It is none of these, or has no image.
    """
    if given.is_dir():
        return _packed(given, None, folder)
    if given.suffix.lower() == ".zip":
        return Package(given, _sha256(given))
    if given.suffix.lower() in YAML:
        return _packed(_images_of(given), given, folder)
    raise NotPacked(f"{given} is neither a zip, a data.yaml nor a folder.")


def _images_of(description: Path) -> Path:
    """The folder that a data.yaml describes: its `path`, else its own folder."""
    path = load(description).get("path")
    base = description.parent / path if isinstance(path, str) else description.parent
    return base if base.is_dir() else description.parent


def _packed(root: Path, description: Path | None, folder: Path) -> Package:
    target = folder / "dataset.zip"
    package = Package(target, "")
    images = 0
    with zipfile.ZipFile(target, "w") as archive:
        if description is not None:
            _add(archive, description, "data.yaml")
            package.files += 1
        for file in _files(root):
            name, suffix = file.relative_to(root), file.suffix.lower()
            if suffix not in PACKED:
                package.left_out[suffix or "no suffix"] += 1
            elif description is None or len(name.parts) > 1 or suffix not in YAML:
                _add(archive, file, name.as_posix())
                package.files += 1
                images += suffix in SUFFIXES | UNREADABLE
    if not images:
        raise NotPacked(f"There are no images in {root}.")
    package.sha256 = _sha256(target)
    return package


def _add(archive: zipfile.ZipFile, file: Path, name: str) -> None:
    info = zipfile.ZipInfo(name, OLD)
    if file.suffix.lower() not in SUFFIXES:  # images are compressed already
        info.compress_type = zipfile.ZIP_DEFLATED
    with file.open("rb") as source, archive.open(info, "w", force_zip64=True) as target:
        while part := source.read(2**20):
            target.write(part)


def _files(root: Path) -> Iterator[Path]:
    """The files below a folder in a fixed order, without hidden ones; links are followed."""
    entered = set()
    for place, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in entered else sorted(f for f in folders if not is_junk(f))
        if real in entered:  # a link that leads back
            continue
        entered.add(real)
        yield from (Path(place, name) for name in sorted(files) if not is_junk(name))


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@contextmanager
def packed(typed: str | Path) -> Iterator[Package]:
    """The zip to upload for a path of this machine. Raises Refused if it is no dataset."""
    with tempfile.TemporaryDirectory(prefix="visionloop-") as folder:
        try:
            package = pack(Path(typed).resolve(), Path(folder))
        except (NotPacked, VisionLoopError, OSError) as error:
            raise Refused(f"{typed} cannot be uploaded: {error}") from None
        yield package


def name_of(path: Path) -> str:
    """A dataset's name, from the path of its zip, data.yaml or folder."""
    return path.parent.name if path.suffix.lower() in YAML else path.stem


def uploading(typed: str | Path, package: Package) -> str:
    """The line that says what is sent, and what is not."""
    left_out = ", ".join(f"{count} {suffix}" for suffix, count in package.left_out.items())
    files = f"{package.files} files, " if package.files else ""
    note = f"; left out: {left_out}" if left_out else ""
    return f"Uploading {typed} ({files}{size(package.size)}{note}) ..."


def data_for(server: Server, typed: str | None, task: str | None) -> str | None:
    """What the server is to train on: an id, or a path of this machine that it may read.

    Anything else on this machine is uploaded, unless the same was uploaded before.
    """
    if not typed or not Path(typed).exists():
        return typed
    path = Path(typed).resolve()
    if path.suffix.lower() != ".zip" and server.may_read(path):
        return str(path)
    with packed(typed) as package:
        for card in server.ask("GET", "/api/datasets")["datasets"]:
            same = card.get("upload_sha256") == package.sha256 and not card.get("revision")
            if same and task in (None, card["task"]):
                print(f"{typed} was uploaded before: dataset {card['id']}.")
                return str(card["id"])
        print(uploading(typed, package), flush=True)
        name = name_of(path)
        fields = {"name": name[:100]} | ({"task": task} if task else {})
        with package.path.open("rb") as opened:
            card = server.ask(
                "POST",
                "/api/datasets",
                data=fields,
                files={"file": (f"{name}.zip", opened, "application/zip")},
                timeout=CHECKED,
            )
    print(f"Dataset {card['id']}: {_counts(card)}.")
    for problem in card["problems"]:
        print(f"  {problem['message']}")
    return str(card["id"])


def refused_with_what_is_missing(refusal: Refused, typed: Iterable[str | None]) -> Refused:
    """A refusal of a path that is not on this machine says so first: it may be mistyped."""
    for text in typed:
        if not text or Path(text).exists() or text[:200] not in str(refusal):
            continue
        kind = "file" if text.lower().endswith(NAMES_FILE) else "folder"
        if kind == "folder" and "/" not in text:  # an id
            continue
        where = "on this machine" if Path(text).is_absolute() else f"in {Path.cwd()}"
        return Refused(
            f"There is no {kind} {text} {where}; the server answers: {refusal}", refusal.code
        )
    return refusal


def _counts(card: dict[str, Any]) -> str:
    return ", ".join(f"{found['images']} images in {s}" for s, found in card["splits"].items())


def weights_for(server: Server, option: str, typed: str) -> str:
    """A model's id, or the full path of a weights file of this machine that the server may read."""
    path = Path(typed).resolve()
    if not path.is_file():
        return typed
    if server.may_read(path):
        return str(path)
    name = re.sub(r"\W+", "_", path.stem)
    raise Refused(
        f"{option} {typed}: the server may not read files of this folder. Import it as a model, "
        f"and give its name: curl -F file=@{typed} -F name={name} {server.url}/models/import"
    )
