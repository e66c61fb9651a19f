"""The annotation queue: images that no person has annotated, the most useful first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from annotation.confidence_bands import Bands
from annotation.datasets import AnnotatedDatasets
from annotation.priority import (
    THUMBNAIL,
    Candidate,
    Descriptor,
    descriptor_of,
    order,
    uncertainty_of_scores,
    unpack,
)
from dataset.store import CARD, DatasetStore
from errors import NotFound, VisionLoopError
from inference.images import decode_at_least
from models_store.registry import Registry
from monitoring.kept_images import KeptImage, KeptImages

MAX_KEPT = 500  # maximum number of kept images of live traffic in the queue: the newest ones
MAX_CACHED = 2000  # maximum number of kept images whose descriptors are cached


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


@dataclass(frozen=True)
class KeptFeatures:
    """SHA-256 and descriptor of a kept image."""

    content: str
    descriptor: Descriptor


class ReviewQueue:
    """The annotation queue of all datasets, and of kept images of live traffic.

    Descriptors of kept images are cached. Safe to share between threads.
    """

    def __init__(
        self,
        datasets: DatasetStore,
        annotated: AnnotatedDatasets,
        kept: KeptImages,
        registry: Registry,
    ) -> None:
        self._datasets = datasets
        self._annotated = annotated
        self._kept = kept
        self._registry = registry
        self._cache: OrderedDict[str, KeptFeatures] = OrderedDict()  # by the id of the kept image

    def first(self, dataset: str, limit: int, kept: bool) -> dict[str, Any]:
        """The first images of the queue. Decodes images: call it off the event loop.

        Args:
            dataset: Id of a dataset; empty: all, and live traffic if `kept`.
            limit: Maximum number of images in the answer.
            kept: Whether the queue contains kept images of live traffic.

        Returns:
            `waiting`, the number of images in the whole queue; `annotated`, that of prelabelled
            images that people have annotated since; and `queue`, a row for each of the first.

        Raises:
            DatasetNotFound: No dataset has this id.
        """
        if dataset:
            self._datasets.get(dataset)
        found, looks = queued_images(self._annotated, dataset or None)
        rows: dict[str, dict[str, Any]] = {}
        candidates = []
        for one in newest_of_each(found):
            document = one.document
            candidates.append(Candidate(one.content, float(document["doubt"]), one.descriptor))
            rows[one.content] = {
                "image": document["name"],
                "content": one.content,
                "source": "dataset",
                "dataset_id": one.dataset_id,
                "model_id": document["by"],
                "doubt": document["doubt"],
                "objects_to_review": document["review"],
                "reason": document["reason"],
            }
        for image, seen in self._traffic() if kept and not dataset else ():
            if seen.content not in rows:
                rows[seen.content] = self._row_of_traffic(image, seen)
                doubt = float(rows[seen.content]["doubt"])
                candidates.append(Candidate(seen.content, doubt, seen.descriptor))
        chosen = order(candidates, looks, limit)
        return {
            "waiting": len(candidates),
            "annotated": len(looks),
            "queue": [
                rows[one.key] | {"priority": one.priority, "novelty": one.novelty} for one in chosen
            ],
        }

    def _traffic(self) -> list[tuple[KeptImage, KeptFeatures]]:
        """The newest kept images that nobody has annotated, with their features."""
        known = self._annotated.entries.annotated_contents()
        found = []
        for image in self._kept.list()[:MAX_KEPT]:
            try:
                seen = self._cache.get(image.id) or self._features(image)
            except VisionLoopError:  # deleted to make room for newer ones
                continue
            if seen.content not in known:
                found.append((image, seen))
        return found

    def _features(self, image: KeptImage) -> KeptFeatures:
        data = self._kept.open(image.id)
        limit = self._registry.settings.max_pixels
        pixels = decode_at_least(data, limit, lambda *_: (THUMBNAIL, THUMBNAIL)).pixels
        features = KeptFeatures(sha256(data).hexdigest(), descriptor_of(pixels))
        self._cache[image.id] = features
        while len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)
        return features

    def _row_of_traffic(self, image: KeptImage, seen: KeptFeatures) -> dict[str, Any]:
        scores = [float(row["confidence"]) for row in image.answer.get("predictions", ())]
        try:
            task = self._registry.get(image.model_id).description.task
        except NotFound:
            task = "detect"
        if task == "classify":  # there are scores of all classes; only the best one matters
            scores = scores[:1]
        doubt = uncertainty_of_scores(scores, Bands(review=0.0))
        return {
            "image": image.id,
            "content": seen.content,
            "source": "live",
            "dataset_id": None,
            "model_id": image.model_id,
            "doubt": doubt.value,
            "objects_to_review": doubt.review,
            "reason": (
                f"From live traffic, with a prediction of confidence {image.confidence:.2f}. "
                f"{doubt.reason}"
            ),
        }


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
    """The queued images without duplicates: of equal images only the newest prediction.

    Args:
        queued: Oldest prediction first, as `queued_images` returns them.
    """
    return list({one.content: one for one in queued}.values())
