"""A picture of a data set that grows, and whose word about it counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.annotations import Annotations

PERSON, ORIGINAL = "person", "original"
PRELABEL_RANK, ORIGINAL_RANK = -2, -1  # below what any person says
CORRECTION_RANK = 10  # above what a tool sent


@dataclass(frozen=True)
class AnnotatedPicture:
    """A picture and what counts as its truth.

    Attributes:
        content: SHA-256 of its file.
        file: Where it lies.
        annotations: What counts.
        name: Its path, as people know it; empty: they know none.
        split: Where it belongs, if that is settled.
        by: Whose word counts: `person`, `original` (as uploaded) or a model's id.
        before: What a model, or the original, said where a person has spoken since.
        before_by: Who that was, likewise.
        trains: Whether it is sure enough to be trained on.
    """

    content: str
    file: Path
    annotations: Annotations
    name: str = ""
    split: str = ""
    by: str = PERSON
    before: Annotations | None = None
    before_by: str = ""
    trains: bool = True


@dataclass(frozen=True)
class Said:
    """One voice: its rank, where it comes from (`by`, `name`, `split`), and what it says."""

    content: str
    rank: int
    origin: Mapping[str, Any]
    annotations: Mapping[str, Any]


def picture_of(voices: Sequence[Said], file: Path, accept: float) -> AnnotatedPicture:
    """Who counts for a picture.

    Args:
        voices: By rising rank; the last one counts.
        file: Of the picture.
        accept: Score that all objects of a model must have for the picture to be trained on.
    """
    first, last = voices[0], voices[-1]
    found = Annotations.from_json(last.annotations)
    sure = len(found) > 0 and all((thing.score or 0.0) >= accept for thing in found.objects)
    if first.rank >= 0:  # nobody but people
        return AnnotatedPicture(last.content, file, found, str(last.origin.get("name") or ""))
    by = str(first.origin.get("by") or ORIGINAL)
    corrected = last.rank >= 0
    return AnnotatedPicture(
        last.content,
        file,
        found,
        name=str(first.origin.get("name") or ""),
        split=str(first.origin.get("split") or ""),
        by=PERSON if corrected else by,
        before=Annotations.from_json(first.annotations) if corrected else None,
        before_by=by if corrected else "",
        trains=sure or last.rank != PRELABEL_RANK,
    )
