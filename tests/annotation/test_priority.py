"""The order of the queue: uncertainty first, then what differs, and that it finds errors."""

from __future__ import annotations

import numpy as np
import pytest

from annotation.confidence_bands import Bands
from annotation.priority import (
    DESCRIPTOR_LENGTH,
    EMPTY_UNCERTAINTY,
    Candidate,
    Descriptor,
    descriptor_of,
    order,
    pack,
    uncertainty_of,
    uncertainty_of_scores,
    unpack,
)
from inference.prediction import Prediction
from tests.support.seeds import rng

BANDS = Bands(accept=0.7, review=0.3)


def descriptor(value: float) -> Descriptor:
    return np.full(DESCRIPTOR_LENGTH, value, np.float32)


@pytest.mark.parametrize(
    ("scores", "value", "reason"),
    [
        ((1.0,), 0.0, "All objects are accepted."),
        ((0.9, 0.5), 0.6, "1 object to review, the lowest score 0.50."),
        ((0.9, 0.2, 0.1), 0.4, "2 objects below the threshold, up to 0.20."),
        ((), EMPTY_UNCERTAINTY, "No object was detected."),
        ((0.1,), EMPTY_UNCERTAINTY, "No object reaches the threshold; 1 object below the "
         "threshold, up to 0.10."),
    ],
)  # fmt: skip
def test_uncertainty_is_how_many_corrections_to_expect(
    scores: tuple[float, ...], value: float, reason: str
) -> None:
    found = uncertainty_of_scores(scores, BANDS)
    assert found.value == pytest.approx(value)
    assert found.reason == reason


def test_of_a_classification_the_margin_counts() -> None:
    def classes(*scores: float) -> Prediction:
        ids = np.arange(len(scores))
        found = np.array(scores, np.float32)
        return Prediction("classify", ("a", "b"), 9, 9, ids, found, np.zeros((0, 4), np.float32))

    assert uncertainty_of(classes(0.9, 0.1), BANDS).value == pytest.approx(0.2)
    assert uncertainty_of(classes(0.5, 0.45), BANDS).value == pytest.approx(0.95)
    assert uncertainty_of(classes(0.5, 0.45), BANDS).review == 1


def test_of_two_alike_the_second_waits() -> None:
    alike = [Candidate(f"a{i}", 1.0 - i / 100, descriptor(0.2)) for i in range(3)]
    other = Candidate("b", 0.5, descriptor(0.9))
    assert [c.key for c in order([*alike, other], [], 4)] == ["a0", "b", "a1", "a2"]


def test_what_is_like_an_annotated_image_waits() -> None:
    pictures = [Candidate("known", 0.8, descriptor(0.1)), Candidate("new", 0.7, descriptor(0.9))]
    assert order(pictures, [], 1)[0].key == "known"
    first = order(pictures, [descriptor(0.1)], 2)
    assert [c.key for c in first] == ["new", "known"]
    assert first[1].novelty == 0.0


def test_there_may_be_none() -> None:
    assert order([], [], 5) == []


def test_a_descriptor_tells_images_apart_and_survives_as_text() -> None:
    random = rng(0)
    one, other = (random.integers(0, 256, (60, 80, 3), np.uint8) for _ in range(2))
    dark = np.zeros((60, 80, 3), np.uint8)
    brighter = np.clip(one.astype(int) + 3, 0, 255).astype(np.uint8)
    near = np.linalg.norm(descriptor_of(one) - descriptor_of(brighter))
    assert near < np.linalg.norm(descriptor_of(one) - descriptor_of(other))
    assert near < np.linalg.norm(descriptor_of(one) - descriptor_of(dark))
    assert np.allclose(unpack(pack(descriptor_of(one))), descriptor_of(one), atol=1e-6)
    assert len(unpack("")) == DESCRIPTOR_LENGTH


def test_the_first_images_hold_more_errors_than_random_ones() -> None:
    """A detector with calibrated scores: 500 images, up to six objects each."""
    random = rng(3)
    candidates, errors = [], []
    for number in range(500):
        scores = random.beta(2, 1, random.integers(0, 7))
        seen = scores > 0.12
        right = random.random(len(scores)) < scores
        shown = scores >= BANDS.review
        errors.append(int((shown & ~right).sum() + (~shown & right).sum()))
        expected = uncertainty_of_scores(scores[seen].tolist(), BANDS).value
        group = random.integers(0, 20)  # images come in scenes
        scene = rng(int(group)).random(DESCRIPTOR_LENGTH).astype(np.float32)
        candidates.append(Candidate(str(number), expected, scene))
    chosen = [int(found.key) for found in order(candidates, [], 50)]
    first = np.mean([errors[index] for index in chosen])
    assert first > 1.7 * np.mean(errors), (first, np.mean(errors))
