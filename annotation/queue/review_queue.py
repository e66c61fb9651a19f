"""The annotation queue: images that no person has annotated, the most useful first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal

from annotation.confidence_bands import Bands
from annotation.datasets import AnnotatedDatasets
from annotation.image_records import ORIGINAL
from annotation.priority import (
    THUMBNAIL,
    Candidate,
    Chosen,
    Descriptor,
    Ordering,
    descriptor_of,
    uncertainty_of_scores,
    unpack,
)
from annotation.queue.claims import LEASE, ClaimStore, Overlay
from dataset.store import DatasetStore
from errors import NotFound, VisionLoopError
from inference.images import decode_at_least
from models_store.registry import Registry
from monitoring.kept_images import KeptImage, KeptImages

MAX_KEPT = 500  # maximum number of kept images of live traffic in the queue: the newest ones
MAX_INDICES = 8  # maximum number of datasets whose order is kept
MAX_CACHED = 2000  # maximum number of kept images whose descriptors are cached

SkippedImages = Literal["last", "only", "none"]


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


@dataclass(frozen=True)
class QueuePage:
    """Which images of the queue are asked for.

    Attributes:
        dataset: Id of a dataset; empty: all, and live traffic if `kept`.
        limit: Maximum number of images.
        offset: Number of images before the first.
        kept: Whether the queue contains kept images of live traffic.
        skipped: `last`: skipped images follow the others; `only`: they alone; `none`: without them.
    """

    dataset: str = ""
    limit: int = 20
    offset: int = 0
    kept: bool = True
    skipped: SkippedImages = "last"


@dataclass
class QueueIndex:
    """The queue as it is until annotations or kept images change.

    Attributes:
        version: What it depends on.
        rows: SHA-256 of an image → what the queue says of it.
        ordering: The order of the images.
        annotated: Number of prelabelled images that people have annotated since.
    """

    version: Hashable
    rows: dict[str, dict[str, Any]]
    ordering: Ordering
    annotated: int
    lock: threading.Lock = field(default_factory=threading.Lock)

    def order(self, wanted: Callable[[str], bool], limit: int) -> list[Chosen]:
        """The first `limit` images that are wanted, in the order of the queue."""
        with self.lock:
            size, found = limit, []
            while True:
                size = min(size, len(self.rows))
                found = [one for one in self.ordering.first(size) if wanted(one.key)]
                if len(found) >= limit or size == len(self.rows):
                    return found[:limit]
                size *= 2

    def of(self, contents: Sequence[str]) -> list[Chosen]:
        """Images of the queue, wherever in its order they are."""
        with self.lock:
            return [self.ordering.of(content) for content in contents]


class ReviewQueue:
    """The annotation queue of all datasets, and of kept images of live traffic.

    The order is computed again only after annotations or kept images have changed; descriptors of
    kept images are cached. Safe to share between threads.
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
        self.claims = ClaimStore(annotated.database)
        self._cache: OrderedDict[str, KeptFeatures] = OrderedDict()  # by the id of the kept image
        self._indices: OrderedDict[tuple[str, bool], QueueIndex] = OrderedDict()
        self._lock = threading.Lock()  # held while an index is made

    def page(self, asked: QueuePage) -> dict[str, Any]:
        """A page of the queue. May decode images: call it off the event loop.

        Images with an accepted draft are not in it: they wait for the commit.

        Returns:
            `waiting`, the number of images in the whole queue; `annotated`, that of prelabelled
            images that people have annotated since; `accepted`, that of images with an accepted
            draft; `skipped`; and `queue`, a row for each image of the page.

        Raises:
            DatasetNotFound: No dataset has this id.
        """
        index = self._index(asked.dataset, asked.kept)
        overlay = self.claims.overlay()
        accepted = index.rows.keys() & overlay.accepted.keys()
        put_off = [c for c in overlay.skips if c in index.rows and c not in overlay.accepted]
        chosen = _choose(index, overlay, asked, put_off)
        rows = [self._row(index, one, overlay) for one in chosen]
        self._add_sizes(rows)
        return {
            "waiting": len(index.rows) - len(accepted),
            "annotated": index.annotated,
            "accepted": len(accepted),
            "skipped": len(put_off),
            "queue": rows,
        }

    def claim(self, author: str, count: int, dataset: str, kept: bool) -> dict[str, Any]:
        """Claim the next images for a person: those that they have claimed, then further ones.

        Skipped images, and those that others have claimed, are passed over.

        Raises:
            DatasetNotFound: No dataset has this id.
        """
        index = self._index(dataset, kept)

        def choose(overlay: Overlay) -> list[str]:
            claims = overlay.claims
            out = overlay.skips.keys() | overlay.accepted.keys()
            others = {content for content, claim in claims.items() if claim.author != author}
            mine = [c for c in claims if c in index.rows and c not in out | others]
            free = index.order(lambda c: c not in out and c not in claims, count)
            return [*mine, *(one.key for one in free)][:count]

        contents = self.claims.claim(author, choose)
        overlay = self.claims.overlay()
        rows = [self._row(index, chosen, overlay) for chosen in index.of(contents)]
        self._add_sizes(rows)
        return {"queue": rows, "lease_seconds": LEASE}

    def _index(self, dataset: str, kept: bool) -> QueueIndex:
        if dataset:
            self._datasets.get(dataset)
            kept = False
        with self._lock:
            known = self._indices.get((dataset, kept))
            traffic = self._kept.list()[:MAX_KEPT] if kept else []
            version = (self._annotated.entries.change(), tuple(one.id for one in traffic))
            if known is None or known.version != version:
                known = self._make_index(dataset, traffic, version)
            self._indices[dataset, kept] = known
            self._indices.move_to_end((dataset, kept))
            while len(self._indices) > MAX_INDICES:
                self._indices.popitem(last=False)
        return known

    def _make_index(
        self, dataset: str, traffic: Sequence[KeptImage], version: Hashable
    ) -> QueueIndex:
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
                "model_id": document["by"] if document["by"] != ORIGINAL else None,
                "doubt": document["doubt"],
                "objects_to_review": document["review"],
                "reason": document["reason"],
            }
        for image, seen in self._features_of(traffic) if traffic else ():
            if seen.content not in rows:
                rows[seen.content] = self._row_of_traffic(image, seen)
                doubt = float(rows[seen.content]["doubt"])
                candidates.append(Candidate(seen.content, doubt, seen.descriptor))
        return QueueIndex(version, rows, Ordering(candidates, looks), len(looks))

    def _row(self, index: QueueIndex, chosen: Chosen, overlay: Overlay) -> dict[str, Any]:
        claim, skip = overlay.claims.get(chosen.key), overlay.skips.get(chosen.key)
        return index.rows[chosen.key] | {
            "priority": chosen.priority,
            "novelty": chosen.novelty,
            "claimed_by": claim.author if claim else None,
            "claimed_until": claim.until if claim else None,
            "skipped_by": skip.author if skip else None,
            "skip_reason": skip.reason if skip else None,
        }

    def _add_sizes(self, rows: Sequence[dict[str, Any]]) -> None:
        """Add the images' sizes and numbers of prelabels to rows of datasets."""
        wanted = [(r["dataset_id"], r["content"]) for r in rows if r["source"] == "dataset"]
        found = self._annotated.entries.prelabels_of(wanted)
        for row in rows:
            if row["source"] == "dataset":
                known = found.get((row["dataset_id"], row["content"]))
                row["width"], row["height"] = (
                    (known.width, known.height) if known is not None else (0, 0)
                )
                row["prelabels"] = len(known) if known is not None else 0

    def _features_of(self, kept: Sequence[KeptImage]) -> list[tuple[KeptImage, KeptFeatures]]:
        """Those of the kept images that nobody has annotated, with their features."""
        known = self._annotated.entries.annotated_contents()
        found = []
        for image in kept:
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
            "width": image.answer.get("image", {}).get("width", 0),
            "height": image.answer.get("image", {}).get("height", 0),
            "prelabels": len(image.answer.get("predictions", ())) if task != "classify" else 1,
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
            complete[owner] = store.is_built(owner)
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


def _choose(
    index: QueueIndex, overlay: Overlay, asked: QueuePage, put_off: Sequence[str]
) -> list[Chosen]:
    """The images of a page."""
    end = asked.offset + asked.limit
    if asked.skipped == "only":
        first: list[Chosen] = []
    else:
        out = overlay.skips.keys() | overlay.accepted.keys()
        first = index.order(lambda content: content not in out, end)
    if asked.skipped == "none" or len(first) >= end:
        return first[asked.offset :]
    wanted = put_off[max(0, asked.offset - len(first)) : end - len(first)]
    return first[asked.offset :] + index.of(wanted)
