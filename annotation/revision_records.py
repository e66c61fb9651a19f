"""Reads and writes the files of a revision: one JSON record per image, and a summary."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from annotation.diff import CorrectionCounts, compare_annotations
from annotation.image_records import PERSON, ImageRecord
from database import now
from dataset.revisions import IMAGES, NOTE, RECORDS, Revision, revision_folder
from formats.annotations import Annotations
from models_store.description import Task


@dataclass(frozen=True)
class KnownNames:
    """The order of class and keypoint names.

    Attributes:
        names: Class names in order of id.
        keypoint_names: Keypoint names in order.
        keep_unused: Include names without any object, so that class ids stay the same.
    """

    names: tuple[str, ...] = ()
    keypoint_names: tuple[str, ...] = ()
    keep_unused: bool = False

    def classes(self, occurring: Iterable[str]) -> tuple[str, ...]:
        """The class names of a dataset in order of id, given those that occur."""
        return _ordered(self.names, occurring, self.keep_unused)

    def keypoints(self, occurring: Iterable[str]) -> tuple[str, ...]:
        """The keypoint names of a dataset in order, given those that occur."""
        return _ordered(self.keypoint_names, occurring, self.keep_unused)


def new_revision(
    number: int, records: Sequence[ImageRecord], task: Task, known: KnownNames, kept: bool
) -> Revision:
    """The summary of a new revision with these images; its time is now."""
    objects = [thing for record in records for thing in record.annotations.objects]
    return Revision(
        number=number,
        task=task,
        names=known.classes(thing.label for thing in objects),
        keypoint_names=known.keypoints(p.name for o in objects for p in o.keypoints),
        pictures=len(records),
        annotated=sum(record.by == PERSON for record in records),
        to_review=sum(not record.trains for record in records),
        objects=len(objects),
        kept=kept,
        created_at=now(),
        corrections={
            model: counts.to_json() for model, counts in count_corrections(records, task).items()
        },
    )


def write_revision(revision: Revision, folder: Path, records: Sequence[ImageRecord]) -> None:
    """Write the records and the summary into the revision's folder."""
    with (folder / RECORDS).open("w", encoding="utf-8") as file:
        for record in records:
            row = _values(record) | {"file": record.file.name}
            row["guesses"] = row.pop("prelabels")  # the key on disk
            file.write(json.dumps(row, ensure_ascii=False, default=_values) + "\n")
    (folder / NOTE).write_text(json.dumps(asdict(revision)), encoding="utf-8")


def _values(part: Any) -> dict[str, Any]:
    """The fields of a dataclass. `asdict` copies all that is in them, which takes far longer."""
    return {one.name: getattr(part, one.name) for one in fields(part)}


def read_records(dataset: Path, number: int) -> Iterator[ImageRecord]:
    """The records of a revision, read one by one, without prelabels.

    Args:
        dataset: Folder of the dataset.
        number: Number of the revision.

    Raises:
        NotFound: There is no such revision.
    """
    with (revision_folder(dataset, number) / RECORDS).open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            row.pop("guesses", None)
            before = row["before"]
            yield ImageRecord(
                **row
                | {
                    "file": dataset / IMAGES / row["file"],
                    "annotations": Annotations.from_json(row["annotations"]),
                    "before": Annotations.from_json(before) if before else None,
                }
            )


def count_corrections(records: Iterable[ImageRecord], task: Task) -> dict[str, CorrectionCounts]:
    """The counts of people's changes, by the source of the annotations that they replaced."""
    by_source: dict[str, CorrectionCounts] = {}
    for record in records:
        if record.before is not None:
            before, after = for_task(record.before, task), for_task(record.annotations, task)
            counts = by_source.setdefault(record.before_by, CorrectionCounts())
            counts.update(compare_annotations(before, after))
    return by_source


def for_task(found: Annotations, task: Task) -> Annotations:
    """The annotations for a task: classes of the image for `classify`, else the objects."""
    whole = task == "classify"
    kept = tuple(thing for thing in found.objects if (thing.bounds is None) == whole)
    return replace(found, objects=kept)


def live_corrections(newest: Iterable[Revision], model_id: str) -> dict[str, Any] | None:
    """The counts of people's changes to a model's prelabels, in all datasets' newest revisions.

    Args:
        newest: The newest revision of each dataset.
        model_id: Id of the model.

    Returns:
        `CorrectionCounts.to_json`; None if no prelabels of the model were corrected.
    """
    found = [one.corrections[model_id] for one in newest if model_id in one.corrections]
    return CorrectionCounts.sum(found).to_json() if found else None


def _ordered(names: Sequence[str], occurring: Iterable[str], keep_unused: bool) -> tuple[str, ...]:
    """The names that occur (or all) in the order of `names`, then other occurring ones sorted."""
    used = set(occurring)
    first = [name for name in dict.fromkeys(names) if keep_unused or name in used]
    return (*first, *sorted(used - set(first)))
