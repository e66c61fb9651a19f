"""What is written into a revision's folder: everything said of every image, and its summary."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from annotation.diff import CorrectionCounts, add_up, compare
from annotation.pictures import PERSON, ImageRecord
from annotation.store import PICTURES
from database import now
from dataset.revisions import NOTE, REVISIONS, Revision, read_note, revision_folder
from formats.annotations import Annotations
from models_store.description import Task

RECORDS = "annotations.jsonl"


@dataclass(frozen=True)
class Known:
    """An order of class and key point names.

    Attributes:
        names, keypoint_names: In order.
        every: Also those that do not occur, so that class ids stay what they are.
    """

    names: tuple[str, ...] = ()
    keypoint_names: tuple[str, ...] = ()
    every: bool = False

    def classes(self, seen: Iterable[str]) -> tuple[str, ...]:
        return _ordered(self.names, seen, self.every)

    def points(self, seen: Iterable[str]) -> tuple[str, ...]:
        return _ordered(self.keypoint_names, seen, self.every)


def new_revision(
    number: int, pictures: Sequence[ImageRecord], task: Task, known: Known, kept: bool
) -> Revision:
    """The revision of these images, made now."""
    objects = [thing for picture in pictures for thing in picture.annotations.objects]
    return Revision(
        number=number,
        task=task,
        names=known.classes(thing.label for thing in objects),
        keypoint_names=known.points(p.name for o in objects for p in o.keypoints),
        pictures=len(pictures),
        annotated=sum(picture.by == PERSON for picture in pictures),
        to_review=sum(not picture.trains for picture in pictures),
        objects=len(objects),
        kept=kept,
        created_at=now(),
        corrections={
            model: tally.to_json() for model, tally in corrections_of(pictures, task).items()
        },
    )


def write_revision(revision: Revision, folder: Path, pictures: Sequence[ImageRecord]) -> None:
    """Into the revision's folder: a record an image, then the summary."""
    with (folder / RECORDS).open("w", encoding="utf-8") as file:
        for picture in pictures:
            row = asdict(picture) | {"file": picture.file.name}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    (folder / NOTE).write_text(json.dumps(asdict(revision)), encoding="utf-8")


def corrections_of(pictures: Iterable[ImageRecord], task: Task) -> dict[str, CorrectionCounts]:
    """What people changed, by who spoke before them: a model, or the original."""
    tallies: dict[str, CorrectionCounts] = {}
    for picture in pictures:
        if picture.before is not None:
            found = compare(marks_of(picture.before, task), marks_of(picture.annotations, task))
            add_up(tallies.setdefault(picture.before_by, CorrectionCounts()), found)
    return tallies


def marks_of(found: Annotations, task: Task) -> Annotations:
    """What is said of a picture as a whole for `classify`; for other tasks what is drawn in it."""
    whole = task == "classify"
    kept = tuple(thing for thing in found.objects if (thing.bounds is None) == whole)
    return replace(found, objects=kept)


def records(dataset: Path, number: int) -> Iterator[ImageRecord]:
    """The pictures of a revision, one by one. Raises NotFound."""
    with (revision_folder(dataset, number) / RECORDS).open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            before = row["before"]
            yield ImageRecord(
                **row
                | {
                    "file": dataset / PICTURES / row["file"],
                    "annotations": Annotations.from_json(row["annotations"]),
                    "before": Annotations.from_json(before) if before else None,
                    "guesses": (),
                }
            )


def live_corrections(datasets: Path, model_id: str) -> dict[str, Any] | None:
    """What people changed of a model's pre-labels, in the newest revisions of all data sets.

    Returns:
        `CorrectionCounts.to_json`; None where nobody has corrected any.
    """
    found = []
    for folder in sorted(datasets.glob("*")):
        newest = max((folder / REVISIONS).glob("[0-9]*"), default=None)
        revision = read_note(newest) if newest is not None else None
        if revision is not None and model_id in revision.corrections:
            found.append(revision.corrections[model_id])
    return CorrectionCounts.sum(found).to_json() if found else None


def _ordered(names: Sequence[str], seen: Iterable[str], every: bool) -> tuple[str, ...]:
    """Those that were seen, or all, in the order of `names`; the others after them by name."""
    occurring = set(seen)
    first = [name for name in dict.fromkeys(names) if every or name in occurring]
    return (*first, *sorted(occurring - set(first)))
