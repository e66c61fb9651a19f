"""One entry of a timeline, and its id, by which a page goes on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from errors import ValidationFailed

EntryKind = Literal[
    "corrections",
    "trained",
    "imported",
    "evaluated",
    "compared",
    "promoted",
    "refused",
    "rolled_back",
    "activated",
    "deleted",
    "drift",
    "engine",
    "failed",
]
KINDS: tuple[EntryKind, ...] = get_args(EntryKind)

_ID = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})Z_([0-9A-Za-z@._-]{1,120})")

# First letters of keys: of entries at the same time, the one with the greater key is the newer.
REVISION, EVENT, EVALUATION, COMPARISON, DECISION, JOB = "abcdef"


@dataclass(frozen=True)
class Entry:
    """Something that happened.

    Attributes:
        at: When, in UTC, as the database stores it.
        key: Tells it from other entries at the same time.
        kind: What happened.
        text: A short sentence.
        who: A token's name, `open`, or what did it; None: the service itself, or not recorded.
        reasons: Sentences on why.
        regressed: Classes that regressed by more than the gate allows.
        model_id, job_id: What it refers to.
        evaluation: The id of an evaluation, whose report says more.
        compared: The two versions whose comparison says more: the old one, and the new one.
        dataset: A dataset or its revision, as `id@3`.
        forced: Whether the gate was overruled.
    """

    at: str
    key: str
    kind: EntryKind
    text: str
    who: str | None = None
    reasons: Sequence[str] = ()
    regressed: Sequence[str] = ()
    model_id: str | None = None
    job_id: str | None = None
    evaluation: str | None = None
    compared: tuple[str, str] | None = None
    dataset: str | None = None
    forced: bool = False

    @property
    def id(self) -> str:
        """Unique within the timeline; sorts by time."""
        return f"{self.at[:23]}Z_{self.key}"


@dataclass(frozen=True)
class Before:
    """A place in a timeline: only entries older than it are wanted."""

    at: str = "9999"
    key: str = ""

    @classmethod
    def of(cls, entry_id: str) -> Before:
        """The place of an entry; an empty id: the newest end.

        Raises:
            ValidationFailed: It is no id of an entry.
        """
        if not entry_id:
            return cls()
        found = _ID.fullmatch(entry_id)
        if found is None:
            raise ValidationFailed(
                f"'before' must be the 'id' of an entry of the timeline; got {entry_id!r:.80}."
            )
        return cls(f"{found[1]}+00:00", found[2])

    def is_after(self, entry: Entry) -> bool:
        """Whether an entry is older than this place."""
        return (entry.at, entry.key) < (self.at, self.key)


def number(place: str, of: int) -> str:
    """The key of a row by its number."""
    return f"{place}{of:010}"
