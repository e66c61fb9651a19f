"""Which picture to annotate next: where the model is least sure, and what is unlike the rest.

The doubt about a picture is the number of corrections to expect if scores were probabilities: a
shown object of score s is wrong with 1 - s, a discarded one was right with s (uncertainty
sampling; Settles, *Active Learning Literature Survey*, 2009). Of a classification it is one minus
the margin between the two best classes. What is unlike is found by a greedy k-centre walk (Sener
and Savarese, *Active Learning for Convolutional Neural Networks*, 2018) over a small descriptor of
colours and edges, not over features of the network, so that kept pictures of any model and those
of a model that is gone can stand in one queue.
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

Look = NDArray[np.float32]

SIDE = 64  # pixels of the thumbnail that a picture is described by
CELLS = 4  # by as many, for which colours and edges are averaged
BINS = 8  # directions of edges
LOOK = CELLS * CELLS * (3 + BINS)  # length of a descriptor
BLANK = 0.35  # doubt about a picture in which nothing at all was found
LEAST = 0.3  # share of its doubt that is left to a picture just like one that was chosen
NEAREST = 5e6  # distances computed at once


@dataclass(frozen=True, slots=True)
class Doubt:
    """How unsure a model is of one picture.

    Attributes:
        value: Corrections to expect; 0: none.
        shown: Objects of at least the review band.
        review: Of these, in the review band.
        discarded: Objects below it.
        reason: In words.
    """

    value: float
    shown: int
    review: int
    discarded: int
    reason: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A picture that waits: its doubt, and its descriptor (LOOK,)."""

    key: str
    doubt: float
    look: Look


@dataclass(frozen=True, slots=True)
class Chosen:
    """A picture's place in the queue.

    Attributes:
        key: Whose.
        priority: What it was chosen by: its doubt, less where it is like others.
        novelty: 0: just like one that is annotated or further ahead, 1: unlike all.
    """

    key: str
    priority: float
    novelty: float


def doubt_of(prediction: Prediction, bands: Bands) -> Doubt:
    """The doubt about a prediction, made with a threshold below the review band."""
    scores = [float(score) for score in prediction.scores]
    if prediction.task == "classify":
        return _of_classes(scores, bands)
    return doubt_of_scores(scores, bands)


def doubt_of_scores(scores: Sequence[float], bands: Bands) -> Doubt:
    """The same from the scores of a picture's objects."""
    shown = [score for score in scores if score >= bands.review]
    review = [score for score in shown if score < bands.accept]
    below = [score for score in scores if score < bands.review]
    if not scores:
        return Doubt(BLANK, 0, 0, 0, "Nothing was found in it.")
    value = sum(1 - score for score in shown) + sum(below)
    parts = []
    if review:
        parts.append(f"{_count(review, 'object')} to review, the least sure at {min(review):.2f}")
    if below:
        parts.append(f"{_count(below, 'object')} just below the threshold, up to {max(below):.2f}")
    if not shown:
        value = max(value, BLANK)
        parts.insert(0, "nothing sure enough to be shown")
    text = "; ".join(parts) or "all objects are sure"
    return Doubt(
        round(value, 4), len(shown), len(review), len(below), f"{text[0].upper()}{text[1:]}."
    )


def look_of(pixels: NDArray[np.uint8]) -> Look:
    """A descriptor (LOOK,) of a picture (h, w, 3): per cell its mean colour, and how strong its
    edges are in each direction. 0 to 1, in steps of 1/255."""
    small = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    colours = cv2.resize(small, (CELLS, CELLS), interpolation=cv2.INTER_AREA).reshape(-1) / 255
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    strength, angle = np.hypot(dx, dy), np.mod(np.arctan2(dy, dx), np.pi)
    bins = np.minimum((angle * (BINS / np.pi)).astype(np.int64), BINS - 1)
    cell = np.arange(SIDE) // (SIDE // CELLS)
    places = (cell[:, None] * CELLS + cell[None, :]) * BINS + bins
    sums = np.bincount(places.ravel(), strength.ravel(), CELLS * CELLS * BINS)
    edges = sums / max(float(sums.max()), 1e-6)
    levels = np.round(np.concatenate((colours, edges)) * 255)
    return (levels / 255).astype(np.float32)


def pack(look: Look) -> str:
    """A descriptor as text."""
    return base64.b64encode(np.round(look * 255).astype(np.uint8).tobytes()).decode()


def unpack(text: str) -> Look:
    """The descriptor of a text; that of nothing where it is none."""
    found = np.frombuffer(base64.b64decode(text or ""), np.uint8)
    if len(found) != LOOK:
        return np.zeros(LOOK, np.float32)
    return (found / 255).astype(np.float32)


def order(candidates: Sequence[Candidate], annotated: Sequence[Look], limit: int) -> list[Chosen]:
    """The first `limit` pictures of the queue.

    One after the other, that with the highest doubt × (LEAST + (1 - LEAST) × novelty) is taken.
    Novelty is the distance to the nearest picture that is annotated, or chosen before, over that
    which three quarters of the pictures have from the mean one, at most 1.
    """
    if not candidates:
        return []
    looks = np.stack([candidate.look for candidate in candidates])
    doubts = np.array([candidate.doubt for candidate in candidates], np.float32)
    spread = np.linalg.norm(looks - looks.mean(0), axis=1)
    unit = max(float(np.quantile(spread, 0.75)), 1e-6)
    nearest = _nearest(looks, annotated)
    free = np.ones(len(looks), bool)
    chosen: list[Chosen] = []
    for _ in range(min(limit, len(looks))):
        novelty = np.minimum(nearest / unit, 1.0)
        priority = doubts * (LEAST + (1 - LEAST) * novelty)
        best = int(np.where(free, priority, -1.0).argmax())
        free[best] = False
        chosen.append(
            Chosen(
                candidates[best].key,
                round(float(priority[best]), 4),
                round(float(novelty[best]), 4),
            )
        )
        nearest = np.minimum(nearest, np.linalg.norm(looks - looks[best], axis=1))
    return chosen


def _nearest(looks: Look, annotated: Sequence[Look]) -> Look:
    """(n,) distances to the nearest annotated picture."""
    nearest = np.full(len(looks), np.inf, np.float32)
    step = max(1, int(NEAREST / (len(looks) * LOOK)))
    for start in range(0, len(annotated), step):
        some = np.stack(annotated[start : start + step])
        apart = np.linalg.norm(looks[:, None] - some[None], axis=2)
        nearest = np.minimum(nearest, apart.min(1))
    return nearest


def _of_classes(scores: Sequence[float], bands: Bands) -> Doubt:
    """Of a classification: scores of classes, the best first."""
    first, second = (*scores, 0.0, 0.0)[:2]
    shown = int(first >= bands.review)
    review = int(bool(shown) and first < bands.accept)
    reason = f"The two best classes are {first:.2f} and {second:.2f} sure."
    return Doubt(round(1 - (first - second), 4), shown, review, 1 - shown, reason)


def _count(things: Sequence[float], name: str) -> str:
    return f"{len(things)} {name}{'s' if len(things) != 1 else ''}"
