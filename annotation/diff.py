"""What a person made of pre-labels: accepted, moved, relabelled, added, removed.

Objects are paired by overlap, those of one class first. From the pairs follow precision and
recall as annotators see them, per class. They flatter a little: who corrects pre-labels leaves
many as they are that he would have drawn elsewhere himself, and misses what a model missed.
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

PAIRED = 0.5  # IoU from which a pre-label and a mark are the same object
ACCEPTED = 0.9  # IoU from which it has not been moved
FRAME = 256  # pixels of the longer side that masks are compared at


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one object.

    Attributes:
        kind: One of KINDS.
        before: The pre-label; None where it was added.
        after: The person's mark; None where it was removed.
        iou: Of the two.
    """

    kind: Kind
    before: Annotation | None
    after: Annotation | None
    iou: float = 0.0

    @property
    def label(self) -> str:
        """The class that it counts for: what the person says, else what was said before."""
        thing = self.after or self.before
        assert thing is not None
        return thing.label


@dataclass
class CorrectionCounts:
    """Changes, counted.

    Attributes:
        pictures: That were compared.
        untouched: Of these, where everything was accepted.
        by_class: Class → kind → count. A relabelled object counts for its new class.
        lost: Class → pre-labels of it that were relabelled.
        relabelled: (from, to) → count.
        scores: Score and whether it was right, of each pre-label.
    """

    pictures: int = 0
    untouched: int = 0
    by_class: dict[str, Counter[str]] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)
    relabelled: Counter[tuple[str, str]] = field(default_factory=Counter)
    scores: list[tuple[float, bool]] = field(default_factory=list)

    def to_json(self, bands: Bands | None = None) -> dict[str, Any]:
        """Counts, precision and recall; with `bands` the precision of each band, too."""
        every: Counter[str] = sum(self.by_class.values(), Counter())
        labels = sorted(self.by_class.keys() | self.lost.keys())
        classes = [
            {"name": name, **_figures(self.by_class.get(name, Counter()), self.lost[name])}
            for name in labels
        ]
        found: dict[str, Any] = {
            "pictures": self.pictures,
            "untouched": self.untouched,
            **_figures(every, self.lost.total()),
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
        """Of what `to_json` wrote, without the scores."""
        total = cls()
        for document in documents:
            total.pictures += document["pictures"]
            total.untouched += document["untouched"]
            for row in document["classes"]:
                counts = Counter({kind: row[kind] for kind in KINDS})
                total.by_class.setdefault(row["name"], Counter()).update(counts)
                total.lost[row["name"]] += row["relabelled_away"]
            for pair in document["relabelled_pairs"]:
                total.relabelled[pair["from"], pair["to"]] += pair["count"]
        return total


def compare(before: Annotations, after: Annotations, accepted: float = ACCEPTED) -> list[Change]:
    """What became of every object of one picture.

    Args:
        before: What the model said.
        after: What the person says.
        accepted: IoU from which an object counts as left where it was; its key points must be
            as near, see `_points`.
    """
    placed = [o for o in before.objects if o.bounds], [o for o in after.objects if o.bounds]
    changes = _of_places(*placed, accepted)
    named = [o for o in before.objects if not o.bounds], [o for o in after.objects if not o.bounds]
    return changes + _of_pictures(*named)


def add_up(tally: CorrectionCounts, changes: Sequence[Change]) -> None:
    """Count the changes of one picture."""
    tally.pictures += 1
    tally.untouched += all(change.kind == "accepted" for change in changes)
    for change in changes:
        tally.by_class.setdefault(change.label, Counter())[change.kind] += 1
        if change.kind == "relabelled" and change.before and change.after:
            tally.lost[change.before.label] += 1
            tally.relabelled[change.before.label, change.after.label] += 1
        if change.before is not None and change.before.score is not None:
            right = change.kind in ("accepted", "moved")
            tally.scores.append((change.before.score, right))


def _figures(counts: Mapping[str, int], lost: int) -> dict[str, Any]:
    """`lost`: pre-labels of the class that turned out to be of another."""
    right = counts.get("accepted", 0) + counts.get("moved", 0)
    said = right + counts.get("removed", 0) + lost
    true = right + counts.get("relabelled", 0) + counts.get("added", 0)
    return {kind: counts.get(kind, 0) for kind in KINDS} | {
        "relabelled_away": lost,
        "precision": round(right / said, 4) if said else None,
        "recall": round(right / true, 4) if true else None,
    }


def _band(scores: Sequence[tuple[float, bool]], band: str, bands: Bands) -> dict[str, Any]:
    inside = [right for score, right in scores if bands.of(score) == band]
    share = round(sum(inside) / len(inside), 4) if inside else None
    return {"band": band, "shown": len(inside), "right": sum(inside), "precision": share}


def _of_places(
    before: Sequence[Annotation], after: Sequence[Annotation], accepted: float
) -> list[Change]:
    iou = _overlaps(before, after)
    free_before, free_after = set(range(len(before))), set(range(len(after)))
    changes: list[Change] = []
    pairs = [
        (before[i].label == after[j].label, float(iou[i, j]), i, j)
        for i, j in np.argwhere(iou >= PAIRED).tolist()
    ]
    for same, share, i, j in sorted(pairs, key=lambda pair: (-pair[0], -pair[1], *pair[2:])):
        if i not in free_before or j not in free_after:
            continue
        free_before.discard(i)
        free_after.discard(j)
        place = min(share, _points(before[i], after[j]))
        kind: Kind = "relabelled" if not same else "accepted" if place >= accepted else "moved"
        changes.append(Change(kind, before[i], after[j], share))
    changes += [Change("removed", before[i], None) for i in sorted(free_before)]
    changes += [Change("added", None, after[j]) for j in sorted(free_after)]
    return changes


def _of_pictures(before: Sequence[Annotation], after: Sequence[Annotation]) -> list[Change]:
    """Classes of the whole picture: the one a model said may have become another."""
    said, left = {thing.label: thing for thing in before}, {thing.label: thing for thing in after}
    same = said.keys() & left.keys()
    changes = [Change("accepted", said[label], left[label], 1.0) for label in sorted(same)]
    gone = [said[label] for label in said if label not in same]
    new = [left[label] for label in left if label not in same]
    pairs = min(len(gone), len(new))
    changes += [Change("relabelled", *pair) for pair in zip(gone[:pairs], new[:pairs], strict=True)]
    changes += [Change("removed", thing, None) for thing in gone[pairs:]]
    return changes + [Change("added", None, thing) for thing in new[pairs:]]


def _overlaps(before: Sequence[Annotation], after: Sequence[Annotation]) -> np.ndarray:
    """IoU (m, n): of masks where both have one, else of boxes."""
    boxes = [np.array([o.bounds for o in side], np.float32).reshape(-1, 4) for side in
             (before, after)]  # fmt: skip
    iou = box_iou(*boxes)
    for i, j in np.argwhere(iou > 0).tolist():
        if before[i].parts and after[j].parts:
            iou[i, j] = _mask_iou(before[i], after[j])
    return iou


def _mask_iou(one: Annotation, other: Annotation) -> float:
    """Both drawn into the box around them, FRAME pixels along its longer side."""
    assert one.bounds is not None
    assert other.bounds is not None
    low = np.minimum(one.bounds[:2], other.bounds[:2]).astype(np.float32)
    high = np.maximum(one.bounds[2:], other.bounds[2:]).astype(np.float32)
    scale = np.float32(FRAME / max(float((high - low).max()), 1e-6))
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


def _points(one: Annotation, other: Annotation) -> float:
    """How near the key points are: one minus the farthest distance between two of a name, in
    diagonals of the box. 1 where there are none, 0 where one side has others."""
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
