"""Compares prelabels with corrections: objects accepted, moved, relabelled, added or removed.

Objects are matched by IoU, those of the same class first. The matches give the model's precision
and recall per class with the corrections as ground truth. Both are biased upwards: people who
correct prelabels accept many boxes that they would have drawn differently, and overlook objects
that the model missed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from annotation.confidence_bands import BANDS, Bands
from formats.annotations import Annotation, Annotations
from formats.geometry import as_outlines, box_iou, fill_parts, overlap

Kind = Literal["accepted", "moved", "relabelled", "added", "removed"]
KINDS: tuple[Kind, ...] = ("accepted", "moved", "relabelled", "added", "removed")

MATCH_IOU = 0.5  # smallest IoU at which a prelabel and a person's object are the same object
ACCEPTED_IOU = 0.9  # smallest IoU at which an object counts as not moved
MASK_SIDE = 256  # pixels of the longer side at which masks are compared


@dataclass(frozen=True, slots=True)
class Change:
    """The change of one object.

    Attributes:
        kind: One of KINDS.
        before: The prelabel; None if the object was added.
        after: The person's object; None if it was removed.
        iou: IoU of the two.
    """

    kind: Kind
    before: Annotation | None
    after: Annotation | None
    iou: float = 0.0

    @property
    def label(self) -> str:
        """The class for which the change is counted: the person's, else the prelabel's."""
        thing = self.after or self.before
        assert thing is not None
        return thing.label


@dataclass
class CorrectionCounts:
    """Counts of changes, summed over images.

    Attributes:
        images: Number of compared images.
        untouched: Number of these in which every object was accepted.
        by_class: Class → kind → count. A relabelled object counts for its new class.
        relabelled_away: Class → number of its prelabels that were given another class.
        relabelled: (old class, new class) → count.
        scores: Score of each prelabel, and whether the prelabel was correct.
    """

    images: int = 0
    untouched: int = 0
    by_class: dict[str, Counter[str]] = field(default_factory=dict)
    relabelled_away: Counter[str] = field(default_factory=Counter)
    relabelled: Counter[tuple[str, str]] = field(default_factory=Counter)
    scores: list[tuple[float, bool]] = field(default_factory=list)

    def update(self, changes: Sequence[Change]) -> None:
        """Add the changes of one image."""
        self.images += 1
        self.untouched += all(change.kind == "accepted" for change in changes)
        for change in changes:
            self.by_class.setdefault(change.label, Counter())[change.kind] += 1
            if change.kind == "relabelled" and change.before and change.after:
                self.relabelled_away[change.before.label] += 1
                self.relabelled[change.before.label, change.after.label] += 1
            if change.before is not None and change.before.score is not None:
                right = change.kind in ("accepted", "moved")
                self.scores.append((change.before.score, right))

    def to_json(self, bands: Bands | None = None) -> dict[str, Any]:
        """Counts, precision and recall; with `bands` also the precision of each band."""
        total: Counter[str] = sum(self.by_class.values(), Counter())
        labels = sorted(self.by_class.keys() | self.relabelled_away.keys())
        classes = [
            {
                "name": name,
                **_metrics(self.by_class.get(name, Counter()), self.relabelled_away[name]),
            }
            for name in labels
        ]
        found: dict[str, Any] = {
            "pictures": self.images,
            "untouched": self.untouched,
            **_metrics(total, self.relabelled_away.total()),
            "classes": classes,
            "relabelled_pairs": [
                {"from": one, "to": other, "count": count}
                for (one, other), count in self.relabelled.most_common()
            ],
        }
        if bands is not None:
            found["bands"] = [_band(self.scores, band, bands) for band in BANDS[:2]]
        return found

    @classmethod
    def sum(cls, documents: Iterable[Mapping[str, Any]]) -> CorrectionCounts:
        """The sum of several results of `to_json`. The scores are not restored."""
        total = cls()
        for document in documents:
            total.images += document["pictures"]
            total.untouched += document["untouched"]
            for row in document["classes"]:
                counts = Counter({kind: row[kind] for kind in KINDS})
                total.by_class.setdefault(row["name"], Counter()).update(counts)
                total.relabelled_away[row["name"]] += row["relabelled_away"]
            for pair in document["relabelled_pairs"]:
                total.relabelled[pair["from"], pair["to"]] += pair["count"]
        return total


def compare_annotations(
    before: Annotations, after: Annotations, accepted: float = ACCEPTED_IOU
) -> list[Change]:
    """The change of every object of one image.

    Args:
        before: The model's prediction.
        after: The person's annotations.
        accepted: Smallest IoU, and smallest `_keypoint_closeness`, at which an object counts as
            not moved.
    """
    placed = [o for o in before.objects if o.bounds], [o for o in after.objects if o.bounds]
    changes = _object_changes(*placed, accepted)
    named = [o for o in before.objects if not o.bounds], [o for o in after.objects if not o.bounds]
    return changes + _image_class_changes(*named)


def _metrics(counts: Mapping[str, int], relabelled_away: int) -> dict[str, Any]:
    """Counts of one class, with precision and recall; these are None if their denominator is 0."""
    right = counts.get("accepted", 0) + counts.get("moved", 0)
    predicted = right + counts.get("removed", 0) + relabelled_away
    true = right + counts.get("relabelled", 0) + counts.get("added", 0)
    return {kind: counts.get(kind, 0) for kind in KINDS} | {
        "relabelled_away": relabelled_away,
        "precision": round(right / predicted, 4) if predicted else None,
        "recall": round(right / true, 4) if true else None,
    }


def _band(scores: Sequence[tuple[float, bool]], band: str, bands: Bands) -> dict[str, Any]:
    inside = [right for score, right in scores if bands.of(score) == band]
    share = round(sum(inside) / len(inside), 4) if inside else None
    return {"band": band, "shown": len(inside), "right": sum(inside), "precision": share}


def _object_changes(
    before: Sequence[Annotation], after: Sequence[Annotation], accepted: float
) -> list[Change]:
    iou = _overlaps(before, after)
    free_before, free_after = set(range(len(before))), set(range(len(after)))
    changes: list[Change] = []
    pairs = [
        (before[i].label == after[j].label, float(iou[i, j]), i, j)
        for i, j in np.argwhere(iou >= MATCH_IOU).tolist()
    ]
    for same, share, i, j in sorted(pairs, key=lambda pair: (-pair[0], -pair[1], *pair[2:])):
        if i not in free_before or j not in free_after:
            continue
        free_before.discard(i)
        free_after.discard(j)
        place = min(share, _keypoint_closeness(before[i], after[j]))
        kind: Kind = "relabelled" if not same else "accepted" if place >= accepted else "moved"
        changes.append(Change(kind, before[i], after[j], share))
    changes += [Change("removed", before[i], None) for i in sorted(free_before)]
    changes += [Change("added", None, after[j]) for j in sorted(free_after)]
    return changes


def _image_class_changes(before: Sequence[Annotation], after: Sequence[Annotation]) -> list[Change]:
    """Changes of the classes of a whole image; a replaced class counts as relabelled."""
    old, new = {thing.label: thing for thing in before}, {thing.label: thing for thing in after}
    same = old.keys() & new.keys()
    changes = [Change("accepted", old[label], new[label], 1.0) for label in sorted(same)]
    removed = [old[label] for label in old if label not in same]
    added = [new[label] for label in new if label not in same]
    pairs = min(len(removed), len(added))
    changes += [
        Change("relabelled", *pair) for pair in zip(removed[:pairs], added[:pairs], strict=True)
    ]
    changes += [Change("removed", thing, None) for thing in removed[pairs:]]
    return changes + [Change("added", None, thing) for thing in added[pairs:]]


def _overlaps(before: Sequence[Annotation], after: Sequence[Annotation]) -> np.ndarray:
    """IoU (m, n) of each pair of objects: of their masks if both have one, else of their boxes."""
    boxes = [np.array([o.bounds for o in side], np.float32).reshape(-1, 4) for side in
             (before, after)]  # fmt: skip
    iou = box_iou(*boxes)
    for i, j in np.argwhere(iou > 0).tolist():
        if before[i].parts and after[j].parts:
            iou[i, j] = _mask_iou(before[i], after[j])
    return iou


def _mask_iou(one: Annotation, other: Annotation) -> float:
    """IoU of two masks, rasterised within their common bounding box.

    The box is scaled to MASK_SIDE pixels along its longer side.
    """
    assert one.bounds is not None
    assert other.bounds is not None
    low = np.minimum(one.bounds[:2], other.bounds[:2]).astype(np.float32)
    high = np.maximum(one.bounds[2:], other.bounds[2:]).astype(np.float32)
    scale = np.float32(MASK_SIDE / max(float((high - low).max()), 1e-6))
    width, height = (int(v) + 1 for v in np.ceil((high - low) * scale))
    masks = []
    for thing in (one, other):
        outlines = [
            type(part)(
                (part.outer - low) * scale, tuple((hole - low) * scale for hole in part.holes)
            )
            for part in as_outlines(thing.parts)
        ]
        masks.append(fill_parts(outlines, width, height))
    return overlap(*masks)


def _keypoint_closeness(one: Annotation, other: Annotation) -> float:
    """One minus the largest distance of keypoints of one name, divided by the box diagonal.

    1 if neither object has keypoints, 0 if their names differ.
    """
    here = {p.name: p for p in one.keypoints if p.visibility}
    there = {p.name: p for p in other.keypoints if p.visibility}
    if not here and not there:
        return 1.0
    if here.keys() != there.keys():
        return 0.0
    assert other.bounds is not None
    x1, y1, x2, y2 = other.bounds
    farthest = max(
        math.hypot(here[name].x - there[name].x, here[name].y - there[name].y) for name in here
    )
    return 1 - farthest / max(math.hypot(x2 - x1, y2 - y1), 1e-6)
