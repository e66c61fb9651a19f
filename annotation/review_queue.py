"""The images that wait for a person, with their uncertainty and descriptors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from annotation.priority import Descriptor, unpack
from annotation.store import AnnotatedDatasets
from dataset.store import CARD


@dataclass(frozen=True)
class QueuedImage:
    """An image that no person has annotated.

    Attributes:
        dataset_id: The dataset's.
        content: SHA-256 of its file.
        document: What was stored when it was prelabelled: `name`, `by`, `doubt`, `reason` …
        descriptor: Its descriptor.
    """

    dataset_id: str
    content: str
    document: dict[str, Any]
    descriptor: Descriptor


def queued_images(
    store: AnnotatedDatasets, dataset_id: str | None = None
) -> tuple[list[QueuedImage], list[Descriptor]]:
    """The images of one dataset, or of all, that wait for a person.

    Datasets without a card are left out: their job is not finished, or failed before they were
    whole, and nothing can be corrected in them.

    Returns:
        The images, that of the oldest prediction first; and the descriptors of those that people
        have annotated since.
    """
    complete: dict[str, bool] = {}
    annotated = store.annotated_contents()
    queued: list[QueuedImage] = []
    done: list[Descriptor] = []
    for entry in store.unreviewed(dataset_id):
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
    """Each content once: of an image that waits in several datasets the newest prediction.

    Args:
        queued: The oldest first, as `queued_images` has them.
    """
    return list({one.content: one for one in queued}.values())
