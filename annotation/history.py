"""The revisions of data sets of every kind: uploads, batch annotations, tools' projects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from annotation.confidence_bands import Bands
from annotation.diff import ACCEPTED, KINDS, Change, CorrectionCounts, add_up, compare
from annotation.export import Exported
from annotation.originals import originals, point_names
from annotation.pictures import ImageRecord
from annotation.revision_records import marks_of, records
from dataset.revisions import Revision, get_revision, list_revisions
from dataset.store import FIRST_CARD, DatasetStore
from errors import NotFound
from formats.annotations import Annotations

CHANGED = 200  # pictures that a diff tells about


def is_upload(datasets: DatasetStore, dataset_id: str) -> bool:
    """Whether it has a revision 0: what was uploaded. Raises DatasetNotFound."""
    card = datasets.get(dataset_id)
    return "revision" not in card or (datasets.folder / dataset_id / FIRST_CARD).exists()


def newest(datasets: DatasetStore, dataset_id: str) -> int:
    """The number of its newest revision. Raises DatasetNotFound, NotFound."""
    card = datasets.get(dataset_id)
    if "revision" not in card:
        return 0
    found = list_revisions(datasets.folder / dataset_id)
    if not found:
        raise NotFound(f"'{dataset_id}' has no revision yet.")
    return found[0].number


def exported(datasets: DatasetStore, dataset_id: str, number: int) -> Exported:
    """Everything that a revision says. Reads all of it; call it off the event loop.

    Raises:
        DatasetNotFound, NotFound: There is no such data set or revision.
    """
    if number == 0 and is_upload(datasets, dataset_id):
        dataset = datasets.open(f"{dataset_id}@0")
        found = list(originals(dataset))
        return Exported(dataset.task, dataset.names, point_names(dataset), found)
    folder = datasets.folder / dataset_id
    revision = get_revision(folder, number)
    pictures = list(records(folder, number))
    return Exported(revision.task, revision.names, revision.keypoint_names, pictures)


def diff(
    datasets: DatasetStore,
    dataset_id: str,
    number: int,
    *,
    accepted: float = ACCEPTED,
    bands: Bands | None = None,
    against: int | None = None,
) -> dict[str, Any]:
    """What people made of what was said before them, by who said it.

    Args:
        datasets: Has the data set.
        dataset_id, number: The revision.
        accepted: See `annotation_diff.compare`.
        bands: Of the pre-labels, where they have some.
        against: Compare with all that another revision says.

    Raises:
        DatasetNotFound, NotFound: There is no such data set or revision.
    """
    folder = datasets.folder / dataset_id
    datasets.get(dataset_id)
    task = get_revision(folder, number).task
    if against is not None:
        other = {p.content: p.annotations for p in exported(datasets, dataset_id, against).pictures}
        pairs = _against(records(folder, number), other, f"revision {against}")
    else:
        pairs = (
            (picture, picture.before, picture.before_by)
            for picture in records(folder, number)
            if picture.before is not None
        )
    tallies: dict[str, CorrectionCounts] = {}
    changed: list[dict[str, Any]] = []
    count = 0
    for picture, before, by in pairs:
        changes = compare(marks_of(before, task), marks_of(picture.annotations, task), accepted)
        add_up(tallies.setdefault(by, CorrectionCounts()), changes)
        if any(change.kind != "accepted" for change in changes):
            count += 1
            if len(changed) < CHANGED:
                changed.append(_row(picture, by, changes))
    return {
        "dataset_id": dataset_id,
        "revision": number,
        "accepted_iou": accepted,
        "compared": [{"before": by} | tally.to_json(bands) for by, tally in tallies.items()],
        "changed_count": count,
        "changed": changed,
    }


def _against(
    pictures: Iterable[ImageRecord], other: Mapping[str, Annotations], name: str
) -> Iterable[tuple[ImageRecord, Annotations, str]]:
    for picture in pictures:
        found = picture.annotations
        empty = Annotations(found.image, found.width, found.height)
        yield picture, other.get(picture.content, empty), name


def _row(picture: ImageRecord, by: str, changes: list[Change]) -> dict[str, Any]:
    counts: dict[str, Any] = {
        kind: sum(change.kind == kind for change in changes) for kind in KINDS
    }
    return {
        "image": picture.name or picture.file.name,
        "content": picture.content,
        "before": by,
        **counts,
    }


def revision_rows(datasets: DatasetStore, dataset_id: str) -> list[dict[str, Any]]:
    """The revisions as they are listed, the newest first; of an upload 0 is the last one."""
    card = datasets.get(dataset_id)
    folder: Path = datasets.folder / dataset_id
    rows = [revision_row(dataset_id, revision) for revision in list_revisions(folder)]
    if is_upload(datasets, dataset_id):
        splits = card.get("splits", {}) if "revision" not in card else {}
        rows.append(
            {
                "revision": 0,
                "data_path": f"{dataset_id}@0",
                "created_at": card["created_at"],
                "task": card["task"],
                "pictures": sum(split["images"] for split in splits.values()) or None,
                "annotated": None,
                "to_review": 0,
                "objects": sum(split["objects"] for split in splits.values()) or None,
                "kept": True,
            }
        )
    return rows


def revision_row(dataset_id: str, revision: Revision) -> dict[str, Any]:
    names = ("created_at", "task", "pictures", "annotated", "to_review", "objects", "kept")
    return {
        "revision": revision.number,
        "data_path": f"{dataset_id}@{revision.number}",
        **{name: getattr(revision, name) for name in names},
    }
