"""The parts of a dataset in the object store: its files, each in one part and each content once.

A revision is a part of its own, because revisions are deleted one by one; all else is in parts that
only grow in number. A revision's images are hard links to files of the dataset: the part has the
names of both in place of the content.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dataset.revisions import CARD, REVISIONS
from errors import StoreDamaged
from files import PARTIAL, atomic_path, atomic_write, link_or_copy, temporary_folder
from storage.trees import TreeStore

LINKS = ".visionloop-links.json"  # file of a part: a file → the file that it is a link to


@dataclass(frozen=True)
class Part:
    """A tree in the object store.

    Attributes:
        key, digest: As `TreeStore.put` has them.
        inside: The folder of the only revision that is in it, such as `revisions/000003`; else
            empty.
    """

    key: str
    digest: str
    inside: str = ""


def files_in(folder: Path) -> dict[str, int]:
    """The files of a dataset, as paths in its folder, with their inodes.

    Its card is left out, which the table has, and so are temporary files and links.
    """
    found: dict[str, int] = {}
    pending = [folder]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.name.startswith(PARTIAL) or entry.name == LINKS:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    pending.append(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    name = Path(entry.path).relative_to(folder).as_posix()
                    if name != CARD:
                        found[name] = entry.inode()
    return found


def revision_of(name: str) -> str:
    """The folder of the revision that a file of a dataset is in; empty if it is in none."""
    words = PurePosixPath(name).parts
    return "/".join(words[:2]) if words[0] == REVISIONS and len(words) > 2 else ""


def store(
    folder: Path,
    files: Mapping[str, int],
    known: Iterable[str],
    trees: TreeStore,
    new_key: Callable[[], str],
) -> Iterator[Part]:
    """Upload the files of a dataset that are in no part yet.

    Args:
        folder: The dataset's.
        files: `files_in` of it.
        known: Those that are in a part.
        trees, new_key: Where to, and under which names.

    Yields:
        Each new part, once it is uploaded. Those of revisions come last: they refer to others.

    Raises:
        StoreUnavailable, StoreRefused, OSError: As `TreeStore.put`.
    """
    stored = set(known)
    sources = {files[name]: name for name in stored if name in files and not revision_of(name)}
    groups: dict[str, list[str]] = {}
    for name in sorted(files.keys() - stored):
        groups.setdefault(revision_of(name), []).append(name)
    for inside, names in sorted(groups.items()):
        whole: list[str] = []
        links: dict[str, str] = {}
        for name in names:
            source = sources.get(files[name])
            if source is not None:
                links[name] = source
                continue
            whole.append(name)
            if not inside:
                sources[files[name]] = name
        listed = folder / LINKS
        atomic_write(listed, json.dumps(links))
        try:
            key = new_key()
            digest = trees.put(folder, key, [*whole, LINKS])
        finally:
            listed.unlink(missing_ok=True)
        yield Part(key, digest, inside)


def fetch(part: Part, folder: Path, trees: TreeStore, temporary: Path) -> None:
    """Download a part into a dataset's folder. Files that are there already are replaced.

    A revision is there as a whole or not at all.

    Args:
        part: The part; those before it must be there.
        folder: The dataset's.
        trees: Where it is.
        temporary: A folder of the same file system.

    Raises:
        TreeNotFound, StoreUnavailable, StoreRefused, StoreDamaged, OSError: As `TreeStore.get`.
    """
    with temporary_folder(temporary) as place:
        made = place / "part"
        trees.get(part.key, made, part.digest)
        links = json.loads((made / LINKS).read_bytes())
        (made / LINKS).unlink()
        if part.inside:
            _link(links, folder, made)
            target = folder / part.inside
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)
            (made / part.inside).rename(target)
            return
        for name in files_in(made):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(made / name, target)
        _link(links, folder, folder)


def _link(links: Mapping[str, str], sources: Path, folder: Path) -> None:
    for name, source in links.items():
        if ".." in PurePosixPath(name).parts or ".." in PurePosixPath(source).parts:
            raise StoreDamaged(f"A part of a dataset in the object store names {name[:100]!r}.")
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            link_or_copy(sources / source, target)


def write_json(target: Path, content: object) -> None:
    """Write a card as it is written elsewhere, atomically."""
    with atomic_path(target) as path:
        path.write_text(json.dumps(content, indent=1), encoding="utf-8")
