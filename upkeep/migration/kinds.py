"""The kinds of trees that a home holds, each copied by the code that owns it.

A tree is verified as a replica would fetch it: into an empty home, whose files are compared with
those of the other side.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dataset.revisions import CARD
from files import PARTIAL, sha256_of
from home_paths import HomePaths
from models_store.store import MANIFEST, ModelStore


@dataclass(frozen=True)
class Place:
    """A home's folders: where trees are taken from, or fetched into."""

    home: HomePaths
    models: ModelStore


class Kind(Protocol):
    """A kind of tree. A key names one of it, in letters that a message may show."""

    @property
    def name(self) -> str: ...

    @property
    def prefixes(self) -> tuple[str, ...]:
        """First words of the store's keys."""
        ...

    def keys(self) -> list[str]:
        """Those that the source has, sorted."""
        ...

    def folder(self, key: str, place: Place) -> Path:
        """Where a tree lies in a home."""
        ...

    def content(self, key: str, place: Place) -> tuple[str, int]:
        """What of a tree is the same on both sides: its SHA-256 and bytes."""
        ...

    def upload(self, key: str, place: Place) -> None:
        """Put a home's tree into the object store, in place of what an interrupted upload left."""
        ...

    def download(self, key: str, place: Place) -> None:
        """Have the store's tree in a home, as a server without a store wants it."""
        ...


def content(folder: Path, names: Iterable[str] | None = None) -> tuple[str, int]:
    """SHA-256 of the names and contents of a folder's files, and their bytes.

    The card of a dataset counts by what it says, since the store has it as a row; BentoML's
    manifest of a model does not count, since it is made from the row.

    Args:
        folder: It need not exist.
        names: Paths in it; None: all, but temporary files, locks and other hidden ones.
    """
    whole, total = hashlib.sha256(), 0
    for name in sorted(_files(folder) if names is None else names):
        file = folder / name
        if name == MANIFEST:
            continue
        if name == CARD:
            said = json.dumps(json.loads(file.read_bytes()), sort_keys=True).encode()
            digest, size = hashlib.sha256(said).hexdigest(), len(said)
        else:
            digest, size = sha256_of(file), file.stat().st_size
        whole.update(f"{name}\0{digest}\0".encode("utf-8", "surrogateescape"))
        total += size
    return whole.hexdigest(), total


def _files(folder: Path) -> Iterator[str]:
    for top, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", PARTIAL))]
        for name in names:
            file = Path(top, name)
            if not name.startswith((".", PARTIAL)) and stat.S_ISREG(file.lstat().st_mode):
                yield file.relative_to(folder).as_posix()
