"""Trees: folders of files that the machines of a cluster share, and the place where they lie.

A tree has a key, such as `models/signs/01h2xk3v9`. Without VISIONLOOP_STORE_URL a tree is the
folder it was made in, on the only machine: nothing is copied. With it, a tree is one object in S3,
and the folders on the machines are copies.

A row of the database publishes a tree: the tree is put before its row is written, and is deleted
after the row. So a store needs no conditional writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from errors import NotFound, ValidationFailed

KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
LONGEST_KEY = 600  # characters; S3 allows 1,024 bytes, the prefix included


class TreeNotFound(NotFound):
    """There is no such tree."""


class TreeStore(Protocol):
    """A place for trees. Methods block, and may be called from several threads and processes.

    Where there is a store, each of them raises:
        ValidationFailed: The key is not valid.
        StoreUnavailable: The store cannot be reached, after retries of about ten seconds.
        StoreRefused: The bucket does not exist, or the credentials are wrong or not sufficient.
    """

    @property
    def shared(self) -> bool:
        """Whether trees lie elsewhere than in the folders they were made in."""
        ...

    def put(self, folder: Path, key: str, files: Iterable[str] | None = None) -> str:
        """Store a folder as a tree; a former tree of this key is replaced as a whole.

        Args:
            folder: Its regular files and folders are stored, temporary ones of `files` excepted.
            key: Words joined by slashes; a word has letters, digits, `-`, `_` and `.`.
            files: The files to store, as paths in the folder; None: all.

        Returns:
            SHA-256 of the tree, hexadecimal; empty without a store.

        Raises:
            ValidationFailed: The folder has an entry that is neither a regular file nor a folder.
            OSError: A file cannot be read, or has become shorter.
        """
        ...

    def get(self, key: str, folder: Path, digest: str | None = None) -> None:
        """Have a tree in `folder`, complete or not at all; a folder there is replaced.

        It is downloaded into a temporary folder beside it, which `files.delete_abandoned` deletes
        if the process is killed. Callers see to it that nobody else fetches the same folder.

        Args:
            key: As it was put.
            folder: Its parents are created. Without a store it must exist.
            digest: What `put` returned, to refuse another content.

        Raises:
            TreeNotFound: There is no such tree.
            StoreDamaged: What is stored is not what was put.
            InsufficientStorage: The disk is full.
        """
        ...

    def delete(self, key: str) -> None:
        """Delete a tree if it exists; without a store, its owner deletes the folder."""
        ...

    def exists(self, key: str) -> bool:
        """Whether the store has a tree; False without a store."""
        ...

    def list(self, prefix: str, min_age: float | None = None) -> Sequence[str]:
        """The keys of the store's trees below a prefix of whole words, sorted.

        Args:
            prefix: Whole words.
            min_age: Only those that were put this many seconds ago; None: all.
        """
        ...

    def put_bytes(self, key: str, data: bytes) -> None:
        """Store a small object. It is no tree: its key may be that of one."""
        ...

    def get_bytes(self, key: str) -> bytes:
        """A small object. Raises TreeNotFound, also without a store."""
        ...

    def delete_bytes(self, key: str) -> None:
        """Delete a small object if it exists."""
        ...

    def list_bytes(self, prefix: str, min_age: float | None = None) -> Sequence[str]:
        """The keys of the small objects below a prefix of whole words, sorted.

        Args:
            prefix: Whole words.
            min_age: Only those that were put this many seconds ago; None: all.
        """
        ...

    def check(self) -> None:
        """Raise unless the store can be read and its bucket exists; takes one request."""
        ...


class FolderTrees:
    """Trees without a store: each is the folder it was made in, so there is nothing to do."""

    shared = False

    def put(self, folder: Path, key: str, files: Iterable[str] | None = None) -> str:
        return ""

    def get(self, key: str, folder: Path, digest: str | None = None) -> None:
        if not folder.is_dir():
            raise TreeNotFound(f"There is no folder of {checked(key)}.")

    def delete(self, key: str) -> None:
        pass

    def exists(self, key: str) -> bool:
        return False

    def list(self, prefix: str, min_age: float | None = None) -> Sequence[str]:
        return []

    def put_bytes(self, key: str, data: bytes) -> None:
        pass

    def get_bytes(self, key: str) -> bytes:
        raise TreeNotFound(f"There is no {checked(key)}.")

    def delete_bytes(self, key: str) -> None:
        pass

    def list_bytes(self, prefix: str, min_age: float | None = None) -> Sequence[str]:
        return []

    def check(self) -> None:
        pass


def checked(key: str) -> str:
    """The key, if it is valid.

    Raises:
        ValidationFailed: It is not.
    """
    if len(key) > LONGEST_KEY or not KEY.fullmatch(key):
        raise ValidationFailed(
            f"{key[:100]!r} cannot be the key of a tree: words of letters, digits, '-', '_' and "
            f"'.', joined by '/', {LONGEST_KEY} characters at most."
        )
    return key
