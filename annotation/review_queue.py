"""Reads the annotation queue: images that no person has annotated, with their descriptors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from annotation.datasets import AnnotatedDatasets
from annotation.priority import Descriptor, unpack
from dataset.store import CARD


@dataclass(frozen=True)
class QueuedImage:
    """An image that no person has annotated.

    Attributes:
        dataset_id: Id of the dataset.
        content: SHA-256 of its file.
        document: The values stored with its prelabels: `name`, `by`, `doubt`, `reason` …
        descriptor: Its descriptor, see `annotation.priority`.
    """

    dataset_id: str
    content: str
    document: dict[str, Any]
    descriptor: Descriptor


def queued_images(
    store: AnnotatedDatasets, dataset_id: str | None = None
) -> tuple[list[QueuedImage], list[Descriptor]]:
    """The images of one dataset, or of all, that no person has annotated.

    Datasets without a card are left out: their job is unfinished or failed, so they cannot be
    corrected.

    Returns:
        The images, in order of their prediction's time; and the descriptors of images that people
        have annotated since.
    """
    complete: dict[str, bool] = {}
    annotated = store.entries.annotated_contents()
    queued: list[QueuedImage] = []
    done: list[Descriptor] = []
    for entry in store.entries.unreviewed(dataset_id):
        owner = entry.dataset_id
        if owner not in complete:
            complete[owner] = (store.folder(owner) / CARD).is_file()
        if not complete[owner]:
            continue
        descriptor = unpack(str(entry.document.get("look") or ""))
        if entry.content in annotated:
            done.append(descriptor)
        else:
            queued.append(QueuedImage(owner, entry.content, entry.document, descriptor))
    return queued, done


def newest_of_each(queued: Sequence[QueuedImage]) -> list[QueuedImage]:
    """The queued images without copies: of those with the same content the newest prediction.

    Args:
        queued: Oldest prediction first, as `queued_images` returns them.
    """
    return list({one.content: one for one in queued}.values())
