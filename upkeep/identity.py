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
        return file.read_text().strip() or None
    return None
