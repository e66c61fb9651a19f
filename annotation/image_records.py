"""The record of one image of an annotated dataset: its file and its effective annotations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from formats.annotation_tools import TOOLS
from formats.annotations import Annotations
from models_store.description import Task

EntryKind = Literal["original", "model", "person", "tool"]
"""The source of annotations: the uploaded dataset, a model, a person's correction over HTTP, or an
annotation tool's webhook."""

HUMAN_KINDS: tuple[EntryKind, ...] = ("person", "tool")

PERSON, ORIGINAL = "person", "original"  # values of `ImageRecord.by`; else a model's id
PRELABEL_RANK, ORIGINAL_RANK = -2, -1  # lower than those of human annotations
CORRECTION_RANK = 10  # HTTP corrections; the rank of a tool's annotations is 0, or 1 (ground truth)
AUTHOR = "author"  # key in the document of a person's annotation: their name, if it is known
BEFORE = "before"  # key in the document of a human annotation: the prelabels that preceded it


@dataclass(frozen=True)
class ModelPrelabel:
    """The prediction of a model for an image, made before a person annotated the image.

    Attributes:
        by: The model's id.
        tool: The annotation tool for which it was predicted, a key of `TOOLS`.
        annotations: The prediction.
    """

    by: str
    tool: str
    annotations: Annotations


@dataclass(frozen=True)
class ImageRecord:
    """An image and its effective annotations.

    Attributes:
        content: SHA-256 of its file.
        file: Path of the file.
        annotations: The effective annotations, from the source with the highest rank.
        name: Its path as users know it; empty if unknown.
        split: Its split; empty if none is assigned yet.
        by: Source of `annotations`: `person`, `original` (as uploaded) or a model's id.
        author: The person's name, if it is known; else empty.
        before: The annotations of a model or of the upload that a person replaced.
        before_by: Source of `before`, as in `by`.
        trains: Whether the image is trained on: the annotations are certain enough.
        prelabels: Prelabels of models, newest first; `with_comparison` takes `before` from them.
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
    prelabels: tuple[ModelPrelabel, ...] = ()
    author: str = ""

    def with_comparison(self, task: Task) -> ImageRecord:
        """The record with `before` set to the prelabel of the task's tool, if `before` is None."""
        if self.before is not None or not self.prelabels:
            return replace(self, prelabels=())
        exact = [prelabel for prelabel in self.prelabels if TOOLS[prelabel.tool].task == task]
        alike = [
            prelabel
            for prelabel in self.prelabels
            if (TOOLS[prelabel.tool].task == "classify") == (task == "classify")
        ]
        if not alike:
            return replace(self, prelabels=())
        chosen = (exact or alike)[0]
        return replace(self, prelabels=(), before=chosen.annotations, before_by=chosen.by)


@dataclass(frozen=True)
class SourceAnnotation:
    """The annotations of one image by one source.

    Attributes:
        content: SHA-256 of the image's file.
        kind: The kind of the source.
        rank: The annotations of the source with the highest rank are effective.
        origin: The stored document: `by`, `name`, `split`, and `before` of human annotations.
        annotations: `Annotations` as JSON.
        at: Time of arrival, as `database.now` writes it.
    """

    content: str
    kind: EntryKind
    rank: int
    origin: Mapping[str, Any]
    annotations: Mapping[str, Any]
    at: str = ""


def resolve_record(
    annotations: Sequence[SourceAnnotation], file: Path, accept: float
) -> ImageRecord:
    """The record of an image that several sources have annotated.

    Args:
        annotations: In ascending order of rank; see `effective`.
        file: Path of the image file.
        accept: Smallest score at which a model's object is accepted. An image that only a model
            has annotated is trained on if it has objects and all of them reach this score.
    """
    first, last = annotations[0], effective(annotations)
    found = Annotations.from_json(last.annotations)
    author = str(last.origin.get(AUTHOR) or "") if last.kind == "person" else ""
    sure = len(found) > 0 and all((thing.score or 0.0) >= accept for thing in found.objects)
    if first.kind in HUMAN_KINDS:  # the lowest rank is human, so all are
        names = (str(one.origin["name"]) for one in annotations[::-1] if one.origin.get("name"))
        prelabels = _prelabels(annotations)
        name = next(names, "")
        return ImageRecord(last.content, file, found, name, prelabels=prelabels, author=author)
    by = str(first.origin.get("by") or ORIGINAL)
    corrected = last.kind in HUMAN_KINDS
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
        author=author,
    )


def effective(annotations: Sequence[SourceAnnotation]) -> SourceAnnotation:
    """The annotations that count, of those of one image in ascending order of rank.

    They are the last ones; if those are an HTTP correction and a tool's are newer, the tool's.
    """
    last = annotations[-1]
    sent = [one for one in annotations if one.kind == "tool"]
    if last.kind == "person" and sent and sent[-1].at > last.at:
        return sent[-1]
    return last


def _prelabels(annotations: Sequence[SourceAnnotation]) -> tuple[ModelPrelabel, ...]:
    """The prelabels that were stored with the first human annotation."""
    stored = [one for one in annotations if BEFORE in one.origin]
    rows = min(stored, key=lambda one: one.at).origin[BEFORE] if stored else []
    return tuple(
        ModelPrelabel(row["by"], row["tool"], Annotations.from_json(row["annotations"]))
        for row in rows
        if row["tool"] in TOOLS
    )
