"""Tells a home from another one that has the same path on its own machine, as in containers.

The identity is that of the folder and in no backup: a home keeps its own when a backup of another
one is restored into it.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path

from files import link_or_copy, temporary_folder
from home_paths import IDENTITY

BYTES = 16


def names_of(folder: Path) -> tuple[str, ...]:
    """A folder as named, and resolved: either may begin the paths in the database."""
    return tuple(dict.fromkeys((str(folder), str(folder.resolve()))))


def known_identity(home: Path) -> str | None:
    """The identity of a home; "": it has none yet; None: it cannot be read."""
    try:
        return (home / IDENTITY).read_text().strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError):
        return None


def identity_of(home: Path) -> str | None:
    """The identity of a home, which gets one if it has none; None: it cannot be written or read."""
    file = home / IDENTITY
    with suppress(OSError, UnicodeDecodeError):
        if not file.exists():
            with temporary_folder(home) as folder:
                made = folder / IDENTITY
                made.write_text(secrets.token_hex(BYTES))
                with suppress(FileExistsError):  # another backup was faster
                    link_or_copy(made, file)
        return known_identity(home) or None
    return None
