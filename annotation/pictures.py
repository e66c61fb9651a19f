"""A picture of a data set that grows, and whose word about it counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from formats.annotation_tools import TOOLS
from formats.annotations import Annotations
from models_store.description import Task

PERSON, ORIGINAL = "person", "original"
PRELABEL_RANK, ORIGINAL_RANK = -2, -1  # below what any person says
CORRECTION_RANK = 10  # of what came over HTTP; what a tool sent has 0, its ground truth 1
BEFORE = "before"  # in a person's document: what models had said when it came


@dataclass(frozen=True)
class ModelPrelabel:
    """What a model (`by`) had said of a picture, asked as a tool, when a person's word came."""

    by: str
    tool: str
    annotations: Annotations


@dataclass(frozen=True)
class ImageRecord:
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
        guesses: Of models, the newest first, from which `compared` takes `before`.
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
    guesses: tuple[ModelPrelabel, ...] = ()

    def compared(self, task: Task) -> ImageRecord:
        """With that guess as `before` whose tool fits the task, where nothing else was said."""
        if self.before is not None or not self.guesses:
            return replace(self, guesses=())
        exact = [guess for guess in self.guesses if TOOLS[guess.tool].task == task]
        alike = [
            guess
            for guess in self.guesses
            if (TOOLS[guess.tool].task == "classify") == (task == "classify")
        ]
        if not alike:
            return replace(self, guesses=())
        chosen = (exact or alike)[0]
        return replace(self, guesses=(), before=chosen.annotations, before_by=chosen.by)


@dataclass(frozen=True)
class SourceAnnotation:
    """One voice: its rank, where it comes from (`by`, `name`, `split`), what it says, and when
    that came."""

    content: str
    rank: int
    origin: Mapping[str, Any]
    annotations: Mapping[str, Any]
    at: str = ""


def picture_of(voices: Sequence[SourceAnnotation], file: Path, accept: float) -> ImageRecord:
    """Who counts for a picture.

    Args:
        voices: By rising rank. The last one counts; of what a tool sent and what came over HTTP
            the newer.
        file: Of the picture.
        accept: Score that all objects of a model must have for the picture to be trained on.
    """
    first, last = voices[0], _counting(voices)
    found = Annotations.from_json(last.annotations)
    sure = len(found) > 0 and all((thing.score or 0.0) >= accept for thing in found.objects)
    if first.rank >= 0:  # nobody but people
        name = next((str(v.origin["name"]) for v in voices[::-1] if v.origin.get("name")), "")
        return ImageRecord(last.content, file, found, name, guesses=_guesses(voices))
    by = str(first.origin.get("by") or ORIGINAL)
    corrected = last.rank >= 0
    return ImageRecord(
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


def _counting(voices: Sequence[SourceAnnotation]) -> SourceAnnotation:
    last = voices[-1]
    sent = [voice for voice in voices if 0 <= voice.rank < CORRECTION_RANK]
    if last.rank == CORRECTION_RANK and sent and sent[-1].at > last.at:
        return sent[-1]
    return last


def _guesses(voices: Sequence[SourceAnnotation]) -> tuple[ModelPrelabel, ...]:
    """Those that were frozen when the first person's word came."""
    frozen = [voice for voice in voices if BEFORE in voice.origin]
    rows = min(frozen, key=lambda voice: voice.at).origin[BEFORE] if frozen else []
    return tuple(
        ModelPrelabel(row["by"], row["tool"], Annotations.from_json(row["annotations"]))
        for row in rows
        if row["tool"] in TOOLS
    )
