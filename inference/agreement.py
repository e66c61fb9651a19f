"""Agreement of two models' predictions for one image."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from errors import VisionLoopError
from inference.prediction import Float, Prediction

SAME_PLACE = 0.5  # IoU from which two boxes of a class count as the same object


@dataclass(frozen=True, slots=True)
class Agreement:
    """Numbers of objects by class name: of each model, and of matched pairs.

    A classification counts as one object of its best class.
    """

    live: Counter[str]
    candidate: Counter[str]
    matched: Counter[str]

    @property
    def score(self) -> float:
        """F1 of the candidate against the live prediction: 2·matched / (live + candidate), 0 to 1.

        It is 1 if both are empty. For a classification it is 1 or 0.
        """
        seen = self.live.total() + self.candidate.total()
        return 2 * self.matched.total() / seen if seen else 1.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison of a live prediction with the candidate's.

    Attributes:
        agreement: The agreement; None if the candidate failed, or was stopped because a live
            request arrived.
        error: The exception if the candidate failed, else None.
        times: The candidate's times in milliseconds, by stage.
    """

    agreement: Agreement | None = None
    error: VisionLoopError | None = None
    times: dict[str, float] = field(default_factory=dict)


def measure_agreement(live: Prediction, candidate: Prediction) -> Agreement:
    """The agreement of a candidate with the live prediction. Classes match by name, not by id.

    Boxes match one to one where their classes are equal and their IoU is at least 0.5, pairs of
    higher IoU first. Polygons and keypoints are ignored.
    """
    if live.task == "classify":
        best = [Counter(_labels(prediction)[:1]) for prediction in (live, candidate)]
        return Agreement(best[0], best[1], best[0] & best[1])
    ours, theirs = _labels(live), _labels(candidate)
    overlap = box_iou(live.boxes, candidate.boxes)
    number = {name: i for i, name in enumerate({*ours, *theirs})}
    rows, columns = (np.array([number[name] for name in found], int) for found in (ours, theirs))
    pairs = np.argwhere((rows[:, None] == columns) & (overlap >= SAME_PLACE))
    order = np.argsort(-overlap[pairs[:, 0], pairs[:, 1]], kind="stable")
    taken: tuple[set[int], set[int]] = (set(), set())
    matched: Counter[str] = Counter()
    for i, j in pairs[order].tolist():
        if i not in taken[0] and j not in taken[1]:
            taken[0].add(i)
            taken[1].add(j)
            matched[ours[i]] += 1
    return Agreement(Counter(ours), Counter(theirs), matched)


def box_iou(a: Float, b: Float) -> NDArray[np.float64]:
    """Intersection over union of boxes (n, 4) and (m, 4) xyxy, as (n, m); 0 for empty boxes."""
    one, other = a.astype(np.float64)[:, None], b.astype(np.float64)[None]
    low, high = np.maximum(one[..., :2], other[..., :2]), np.minimum(one[..., 2:], other[..., 2:])
    inter: NDArray[np.float64] = np.clip(high - low, 0, None).prod(axis=2)
    union = _area(one) + _area(other) - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def _area(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.clip(boxes[..., 2:] - boxes[..., :2], 0, None).prod(axis=2))


def _labels(prediction: Prediction) -> list[str]:
    return [prediction.names[class_id] for class_id in prediction.class_ids]
