"""What a migration has done, in a file of the home: it goes on there after it was killed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from files import atomic_write


class Done(NamedTuple):
    """A tree that was copied and verified; `digest` is that of its files."""

    kind: str
    key: str
    digest: str
    bytes: int


class Log:
    """Done trees by kind and key; each is on the disk when `add` returns.

    Args:
        file: The log.
        identity: What is migrated into what. What another migration has logged is dropped.
        resumed: Whether the target says that this migration was begun.
    """

    def __init__(self, file: Path, identity: str, resumed: bool) -> None:
        self._file = file
        head = {"migration": identity}
        lines = _lines(file) if resumed else []
        if lines[:1] != [head]:
            lines = [head]
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        atomic_write(file, "".join(json.dumps(line) + "\n" for line in lines))
        self.done = {(one["kind"], one["key"]): Done(**one) for one in lines[1:]}

    def add(self, done: Done) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(done._asdict()) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.done[done.kind, done.key] = done

    def remove(self) -> None:
        """The migration is complete."""
        self._file.unlink(missing_ok=True)


def _lines(file: Path) -> list[dict[str, Any]]:
    """The complete lines; the last one may have been cut off."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
