"""How far the outputs of an exported file are from those of the model that serves.

Everything is compared before non-maximum suppression, on the same prepared images: the objects that
a program finds follow from these outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engines.options import Precision
from errors import VisionLoopError
from inference.prediction import Float
from models_store.description import ModelDescription
from models_store.export import MAX_BOX_ERROR, MAX_MASK_ERROR, MAX_SCORE_ERROR

BEST = 300  # candidates of an image whose boxes are compared: as many as can become objects
LEAST = 20  # candidates of all images whose boxes are compared, however low their scores

Run = Callable[[Float], Sequence[NDArray[np.floating]]]
"""Raw outputs for images (n, 3, h, w), RGB from 0 to 1, in the form of `ServingModule`."""


class NotTheSame(VisionLoopError):
    """The exported file does not reproduce the model; it is not offered."""


@dataclass(frozen=True)
class Bounds:
    """The largest differences with which a file is offered.

    Attributes:
        box: Pixels of the network's input, of boxes and keypoints, for an input of 640 pixels; in
            proportion for a larger one.
        score: Of probabilities, 0 to 1.
        mask: Of prototypes and coefficients, relative to their largest value.
        candidates: Lowest score of the candidates whose boxes, keypoints and coefficients are
            compared. Reduced precision moves those that nobody would call objects by many pixels.
    """

    box: float
    score: float
    mask: float
    candidates: float

    def scaled(self, imgsz: int) -> Bounds:
        return replace(self, box=self.box * max(1.0, imgsz / 640))


BOUNDS: dict[Precision, Bounds] = {
    "fp32": Bounds(MAX_BOX_ERROR, MAX_SCORE_ERROR, MAX_MASK_ERROR, 0.0),
    # Half precision holds coordinates above 512 in steps of half a pixel. Measured with YOLOv8n:
    # docs/explanation/measured.md.
    "fp16": Bounds(4.0, 0.02, 0.05, 0.05),
}


@dataclass(frozen=True)
class Case:
    """Prepared images of one size and the outputs expected for them.

    Attributes:
        images: (n, 3, h, w) float32, RGB from 0 to 1.
        expected: The raw outputs of the model.
    """

    images: Float
    expected: tuple[Float, ...]


class Differences:
    """The largest differences between outputs, over all images of a comparison."""

    def __init__(self, description: ModelDescription) -> None:
        self.description = description
        self.images = 0
        self._score = 0.0  # of all candidates
        self._protos = 0.0
        self._scale = 1e-6  # the largest mask coefficient
        # of the best candidates: their score, and the differences of boxes, scores and coefficients
        self._candidates: list[Float] = []

    def update(self, actual: Sequence[NDArray[np.floating]], expected: Sequence[Float]) -> None:
        """Compare the outputs for a batch.

        Raises:
            NotTheSame: The outputs have other shapes, or are not finite.
        """
        shapes = [array.shape for array in actual], [array.shape for array in expected]
        if shapes[0] != shapes[1]:
            raise NotTheSame(f"The exported file's outputs are {shapes[0]}, not {shapes[1]}.")
        if not all(np.isfinite(array).all() for array in actual):
            raise NotTheSame("The exported file's outputs are NaN or infinite.")
        off = np.abs(actual[0].astype(np.float32) - expected[0])
        self.images += len(off)
        if self.description.task == "classify":
            self._score = max(self._score, float(off.max()))
            return
        for wanted, difference in zip(expected[0], off, strict=True):
            self._update_image(wanted, difference)
        if self.description.task == "segment":
            protos = np.abs(actual[1].astype(np.float32) - expected[1])
            largest = max(float(np.abs(expected[1]).max()), 1e-6)
            self._protos = max(self._protos, float(protos.max()) / largest)

    def _update_image(self, expected: Float, off: Float) -> None:
        """Both (channels, candidates), as `ServingModule` has them."""
        end = 4 + len(self.description.names)
        scores = expected[4:end].max(0)
        self._score = max(self._score, float(off[4:end].max()))
        best = np.argsort(-scores, kind="stable")[:BEST]
        box, score, mask = off[:4, best].max(0), np.zeros(len(best)), np.zeros(len(best))
        rest = off[end:, best]
        if self.description.task == "pose" and self.description.keypoint_shape is not None:
            points = rest.reshape(*self.description.keypoint_shape, len(best))
            box = np.maximum(box, points[:, :2].max((0, 1)))
            score = points[:, 2:].max((0, 1), initial=0.0)
        elif self.description.task == "segment":
            mask = rest.max(0)
            self._scale = max(self._scale, float(np.abs(expected[end:]).max()))
        self._candidates.append(np.stack((scores[best], box, score, mask)).astype(np.float32))

    def compared(self, lowest: float) -> Float:
        """Scores and differences (4, n) of the candidates with a score of at least `lowest`."""
        if not self._candidates:
            return np.zeros((4, 0), np.float32)
        found = np.concatenate(self._candidates, 1)
        found = found[:, np.argsort(-found[0], kind="stable")]
        return found[:, : max(LEAST, int((found[0] >= lowest).sum()))]

    def figures(self, lowest: float) -> tuple[float, float, float]:
        """The largest difference of boxes (px), scores, and masks, as `Bounds` has them."""
        compared = self.compared(lowest)
        box, score, mask = (float(row.max(initial=0.0)) for row in compared[1:])
        return box, max(score, self._score), max(mask / self._scale, self._protos)

    def check(self, bounds: Bounds) -> None:
        """Refuse a file that is too far off.

        Raises:
            NotTheSame: A difference is above its bound; the message has all of them.
        """
        box, score, mask = self.figures(bounds.candidates)
        if box <= bounds.box and score <= bounds.score and mask <= bounds.mask:
            return
        off = [f"scores by up to {score:.3g} (allowed {bounds.score:.3g})"]
        if self.description.task != "classify":
            off.append(f"boxes by {box:.3g} px (allowed {bounds.box:.3g})")
        if self.description.task == "segment":
            off.append(f"masks by {mask:.3g} (allowed {bounds.mask:.3g})")
        raise NotTheSame(
            f"The exported file does not reproduce the model: it is off in {', '.join(off)}. "
            "It is not offered. Try another precision or format."
        )

    def to_json(self, lowest: float) -> dict[str, float]:
        """The figures that the task has, by name."""
        box, score, mask = self.figures(lowest)
        found = {"max_score_error": score}
        if self.description.task != "classify":
            found["max_box_error_px"] = box
        if self.description.task == "segment":
            found["max_mask_error"] = mask
        return found


def differences(
    run: Run, cases: Iterable[Case], description: ModelDescription, batch: int
) -> Differences:
    """Run every image of the cases, `batch` at a time; the last batch is filled up with zeros.

    Raises:
        NotTheSame: As `Differences.update`.
    """
    found = Differences(description)
    for case in cases:
        for start in range(0, len(case.images), batch):
            images = case.images[start : start + batch]
            missing = batch - len(images)
            padding = np.zeros((missing, *images.shape[1:]), np.float32)
            outputs = run(np.ascontiguousarray(np.concatenate((images, padding))))
            kept = [np.asarray(output)[: len(images)] for output in outputs]
            found.update(kept, [array[start : start + batch] for array in case.expected])
    return found
