"""The order in which images are annotated: first those the model is least certain about and that
differ most from the rest (active learning).

The uncertainty of an image is its expected number of corrections if scores are probabilities: a
shown object with score s is wrong with probability 1 - s, a discarded one is correct with
probability s (uncertainty sampling; Settles, *Active Learning Literature Survey*, 2009). For a
classification it is one minus the margin between the two highest scores. Diversity comes from a
greedy k-centre selection (Sener and Savarese, *Active Learning for Convolutional Neural Networks*,
2018) over a small descriptor of colours and edges. The descriptor uses no network features, so
that one queue can order images of several models, even deleted ones.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from annotation.confidence_bands import Bands
from inference.prediction import Prediction

Descriptor = NDArray[np.float32]
"""The descriptor of an image: (DESCRIPTOR_LENGTH,), values from 0 to 1."""

THUMBNAIL = 64  # side in pixels of the thumbnail that is described
CELLS = 4  # rows and columns of cells over which colours and edges are averaged
BINS = 8  # bins of edge directions
DESCRIPTOR_LENGTH = CELLS * CELLS * (3 + BINS)
EMPTY_UNCERTAINTY = 0.35  # uncertainty of an image without detections
MIN_WEIGHT = 0.3  # factor of the uncertainty at novelty 0
MAX_DISTANCES = 5e6  # maximum number of distances computed at a time


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """How uncertain a model is about one image.

    Attributes:
        value: Expected number of corrections.
        shown: Number of objects in the accept and review bands.
        review: Number of objects in the review band.
        discarded: Number of objects below the review band.
        reason: The reason, as text.
    """

    value: float
    shown: int
    review: int
    discarded: int
    reason: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image that no person has annotated yet.

    Attributes:
        key: Identifies the image.
        uncertainty: Expected number of corrections.
        descriptor: Its descriptor, (DESCRIPTOR_LENGTH,).
    """

    key: str
    uncertainty: float
    descriptor: Descriptor


@dataclass(frozen=True, slots=True)
class Chosen:
    """An image with its priority in the queue.

    Attributes:
        key: Key of the candidate.
        priority: Its uncertainty, weighted by its novelty.
        novelty: Difference from all images annotated or selected before, from 0 (equal to one of
            them) to 1.
    """

    key: str
    priority: float
    novelty: float


def uncertainty_of(prediction: Prediction, bands: Bands) -> Uncertainty:
    """The uncertainty of a prediction whose score threshold was below the review band."""
    scores = [float(score) for score in prediction.scores]
    if prediction.task == "classify":
        return _of_classes(scores, bands)
    return uncertainty_of_scores(scores, bands)


def uncertainty_of_scores(scores: Sequence[float], bands: Bands) -> Uncertainty:
    """The uncertainty of an image, computed from the scores of its objects."""
    shown = [score for score in scores if score >= bands.review]
    review = [score for score in shown if score < bands.accept]
    below = [score for score in scores if score < bands.review]
    if not scores:
        return Uncertainty(EMPTY_UNCERTAINTY, 0, 0, 0, "No object was detected.")
    value = sum(1 - score for score in shown) + sum(below)
    parts = []
    if review:
        parts.append(f"{_count(review, 'object')} to review, the lowest score {min(review):.2f}")
    if below:
        parts.append(f"{_count(below, 'object')} below the threshold, up to {max(below):.2f}")
    if not shown:
        value = max(value, EMPTY_UNCERTAINTY)
        parts.insert(0, "no object reaches the threshold")
    text = "; ".join(parts) or "all objects are accepted"
    return Uncertainty(
        round(value, 4), len(shown), len(review), len(below), f"{text[0].upper()}{text[1:]}."
    )


def descriptor_of(pixels: NDArray[np.uint8]) -> Descriptor:
    """The descriptor of an image, RGB (h, w, 3).

    Per cell it has the mean colour and the edge strength in each direction, in steps of 1/255.
    """
    small = cv2.resize(pixels, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    colours = cv2.resize(small, (CELLS, CELLS), interpolation=cv2.INTER_AREA).reshape(-1) / 255
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    strength, angle = np.hypot(dx, dy), np.mod(np.arctan2(dy, dx), np.pi)
    bins = np.minimum((angle * (BINS / np.pi)).astype(np.int64), BINS - 1)
    cell = np.arange(THUMBNAIL) // (THUMBNAIL // CELLS)
    places = (cell[:, None] * CELLS + cell[None, :]) * BINS + bins
    sums = np.bincount(places.ravel(), strength.ravel(), CELLS * CELLS * BINS)
    edges = sums / max(float(sums.max()), 1e-6)
    levels = np.round(np.concatenate((colours, edges)) * 255)
    return (levels / 255).astype(np.float32)


def pack(descriptor: Descriptor) -> str:
    """A descriptor as base64 text, with one byte per value."""
    return base64.b64encode(np.round(descriptor * 255).astype(np.uint8).tobytes()).decode()


def unpack(text: str) -> Descriptor:
    """The descriptor from the text of `pack`; zeros if the text has another length."""
    found = np.frombuffer(base64.b64decode(text or ""), np.uint8)
    if len(found) != DESCRIPTOR_LENGTH:
        return np.zeros(DESCRIPTOR_LENGTH, np.float32)
    return (found / 255).astype(np.float32)


class Ordering:
    """The order of the queue, determined as far as it is asked for.

    Each step selects the image with the highest uncertainty × (MIN_WEIGHT + (1 - MIN_WEIGHT) ×
    novelty). Novelty is the distance to the nearest image that is annotated or was selected
    before, divided by the third quartile of the candidates' distances from their mean, at most 1.

    Args:
        candidates: The images that no person has annotated.
        annotated: Descriptors of images that people have annotated.
    """

    def __init__(self, candidates: Sequence[Candidate], annotated: Sequence[Descriptor]) -> None:
        self._candidates = candidates
        self._chosen: list[Chosen] = []
        self._places = {candidate.key: place for place, candidate in enumerate(candidates)}
        self._known: dict[str, Chosen] = {}
        if not candidates:
            return
        self._descriptors = np.stack([candidate.descriptor for candidate in candidates])
        self._uncertainty = np.array([one.uncertainty for one in candidates], np.float32)
        spread = np.linalg.norm(self._descriptors - self._descriptors.mean(0), axis=1)
        self._unit = max(float(np.quantile(spread, 0.75)), 1e-6)
        self._nearest = _nearest(self._descriptors, annotated)
        self._free = np.ones(len(candidates), bool)

    def first(self, limit: int) -> list[Chosen]:
        """The first `limit` images, or all if there are fewer."""
        while len(self._chosen) < min(limit, len(self._candidates)):
            chosen = self._next()
            self._chosen.append(chosen)
            self._known[chosen.key] = chosen
        return self._chosen[:limit]

    def of(self, key: str) -> Chosen:
        """An image as it is in the order, or as it would be if it came next."""
        if key in self._known:
            return self._known[key]
        priority, novelty = self._weights()
        place = self._places[key]
        return Chosen(key, round(float(priority[place]), 4), round(float(novelty[place]), 4))

    def _weights(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The priority and the novelty of each image."""
        novelty = np.minimum(self._nearest / self._unit, 1.0)
        return self._uncertainty * (MIN_WEIGHT + (1 - MIN_WEIGHT) * novelty), novelty

    def _next(self) -> Chosen:
        priority, novelty = self._weights()
        best = int(np.where(self._free, priority, -1.0).argmax())
        self._free[best] = False
        distances = np.linalg.norm(self._descriptors - self._descriptors[best], axis=1)
        self._nearest = np.minimum(self._nearest, distances)
        return Chosen(
            self._candidates[best].key,
            round(float(priority[best]), 4),
            round(float(novelty[best]), 4),
        )


def order(
    candidates: Sequence[Candidate], annotated: Sequence[Descriptor], limit: int
) -> list[Chosen]:
    """The first `limit` images of the queue; see `Ordering`."""
    return Ordering(candidates, annotated).first(limit)


def _nearest(descriptors: Descriptor, annotated: Sequence[Descriptor]) -> NDArray[np.float32]:
    """Distances (n,) of descriptors (n, DESCRIPTOR_LENGTH) to the nearest annotated image."""
    nearest = np.full(len(descriptors), np.inf, np.float32)
    step = max(1, int(MAX_DISTANCES / (len(descriptors) * DESCRIPTOR_LENGTH)))
    for start in range(0, len(annotated), step):
        some = np.stack(annotated[start : start + step])
        distances = np.linalg.norm(descriptors[:, None] - some[None], axis=2)
        nearest = np.minimum(nearest, distances.min(1))
    return nearest


def _of_classes(scores: Sequence[float], bands: Bands) -> Uncertainty:
    """The uncertainty of a classification from its class scores, highest first."""
    first, second = (*scores, 0.0, 0.0)[:2]
    shown = int(first >= bands.review)
    review = int(bool(shown) and first < bands.accept)
    reason = f"The two best classes have the scores {first:.2f} and {second:.2f}."
    return Uncertainty(round(1 - (first - second), 4), shown, review, 1 - shown, reason)


def _count(things: Sequence[float], name: str) -> str:
    return f"{len(things)} {name}{'s' if len(things) != 1 else ''}"
