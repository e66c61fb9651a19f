"""Lists, reads and compares revisions of datasets: uploads, batch annotations, tools' projects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from annotation.confidence_bands import Bands
from annotation.diff import ACCEPTED_IOU, KINDS, Change, CorrectionCounts, compare_annotations
from annotation.export import Exported
from annotation.image_records import ImageRecord
from annotation.originals import keypoint_names, originals
from annotation.revision_records import for_task, read_records
from dataset.revisions import Revision, get_revision
from dataset.store import DatasetStore
from errors import NotFound
from formats.annotations import Annotations

MAX_CHANGED = 200  # maximum number of images that a diff lists


def is_upload(datasets: DatasetStore, dataset_id: str) -> bool:
    """Whether a dataset was uploaded, so that it has a revision 0. Raises DatasetNotFound."""
    card = datasets.get(dataset_id)
    return "revision" not in card or datasets.first_card(dataset_id) is not None


def newest(datasets: DatasetStore, dataset_id: str) -> int:
    """The number of a dataset's newest revision. Raises DatasetNotFound, NotFound."""
    card = datasets.get(dataset_id)
    if "revision" not in card:
        return 0
    found = datasets.revisions(dataset_id)
    if not found:
        raise NotFound(
            f"'{dataset_id}' has no revision yet. Send annotations: POST "
            f"/api/datasets/{dataset_id}/annotations."
        )
    return found[0].number


def exported(datasets: DatasetStore, dataset_id: str, number: int) -> Exported:
    """A revision with the records of all its images. Reads files: call it off the event loop.

    Raises:
        DatasetNotFound, NotFound: There is no such dataset or revision.
    """
    if number == 0 and is_upload(datasets, dataset_id):
        dataset = datasets.open(f"{dataset_id}@0")
        found = list(originals(dataset))
        return Exported(dataset.task, dataset.names, keypoint_names(dataset), found)
    folder = datasets.local(dataset_id)
    revision = get_revision(folder, number)
    found = list(read_records(folder, number))
    return Exported(revision.task, revision.names, revision.keypoint_names, found)


def diff(
    datasets: DatasetStore,
    dataset_id: str,
    number: int,
    *,
    accepted: float = ACCEPTED_IOU,
    bands: Bands | None = None,
    against: int | None = None,
) -> dict[str, Any]:
    """The changes that people made in a revision, by the source of the replaced annotations.

    Args:
        datasets: The store of the dataset.
        dataset_id: Id of the dataset.
        number: Number of the revision.
        accepted: See `annotation.diff.compare_annotations`.
        bands: Confidence bands of the prelabels, if there are any.
        against: Number of another revision to compare with, instead of the replaced annotations.

    Raises:
        DatasetNotFound, NotFound: There is no such dataset or revision.
    """
    datasets.get(dataset_id)
    folder = datasets.local(dataset_id)
    task = get_revision(folder, number).task
    if against is not None:
        found = exported(datasets, dataset_id, against).records
        other = {record.content: record.annotations for record in found}
        pairs = _against(read_records(folder, number), other, f"revision {against}")
    else:
        pairs = (
            (record, record.before, record.before_by)
            for record in read_records(folder, number)
            if record.before is not None
        )
    by_source: dict[str, CorrectionCounts] = {}
    changed: list[dict[str, Any]] = []
    count = 0
    for record, before, by in pairs:
        after = for_task(record.annotations, task)
        changes = compare_annotations(for_task(before, task), after, accepted)
        by_source.setdefault(by, CorrectionCounts()).update(changes)
        if any(change.kind != "accepted" for change in changes):
            count += 1
            if len(changed) < MAX_CHANGED:
                changed.append(_row(record, by, changes))
    return {
        "dataset_id": dataset_id,
        "revision": number,
        "accepted_iou": accepted,
        "compared": [{"before": by} | counts.to_json(bands) for by, counts in by_source.items()],
        "changed_count": count,
        "changed": changed,
    }


def _against(
    records: Iterable[ImageRecord], other: Mapping[str, Annotations], name: str
) -> Iterable[tuple[ImageRecord, Annotations, str]]:
    """Each record with its image's annotations in another revision."""
    for record in records:
        found = record.annotations
        empty = Annotations(found.image, found.width, found.height)
        yield record, other.get(record.content, empty), name


def _row(record: ImageRecord, by: str, changes: list[Change]) -> dict[str, Any]:
    counts: dict[str, Any] = {
        kind: sum(change.kind == kind for change in changes) for kind in KINDS
    }
    return {
        "image": record.name or record.file.name,
        "content": record.content,
        "before": by,
        **counts,
    }


def revision_rows(datasets: DatasetStore, dataset_id: str) -> list[dict[str, Any]]:
    """The list entries of a dataset's revisions, newest first; revision 0 of an upload is last."""
    card = datasets.get(dataset_id)
    rows = [revision_row(dataset_id, revision) for revision in datasets.revisions(dataset_id)]
    if is_upload(datasets, dataset_id):
        splits = (datasets.first_card(dataset_id) or card).get("splits", {})
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
    """The list entry of a revision."""
    names = ("created_at", "task", "pictures", "annotated", "to_review", "objects", "kept")
    return {
        "revision": revision.number,
        "data_path": f"{dataset_id}@{revision.number}",
        **{name: getattr(revision, name) for name in names},
    }
