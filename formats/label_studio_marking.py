"""Selects the results of a Label Studio annotation that are objects or classes of the image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from errors import ValidationFailed

PLACED = (
    "rectanglelabels", "polygonlabels", "keypointlabels", "ellipselabels", "brushlabels"
)  # fmt: skip
READ = (*PLACED, "choices")
SHAPES = ("rectangle", "polygon", "keypoint", "ellipse", "brush")  # shapes without own labels
PASSED_OVER = frozenset(  # result types that are no objects; skipped and counted
    [
        "relation", "textarea", "rating", "number", "datetime", "taxonomy", "pairwise", "ranker",
        "labels", "hypertextlabels", "paragraphlabels", "timeserieslabels", "timelinelabels",
    ]
)  # fmt: skip
OF_A_REGION = "Label Studio choices of a region"


def marking(
    regions: Sequence[Any], *, skipped: Counter[str] | None = None
) -> list[Mapping[str, Any]]:
    """The regions that are objects or classes of the image.

    Relations, texts, ratings and choices of a single region are skipped.

    Args:
        regions: The `result` array.
        skipped: Receives reason → number of skipped results.

    Raises:
        ValidationFailed: An object has an unsupported type or no label. Skipping it would train
            its image as if the object were not there.
    """
    if not all(isinstance(row, Mapping) for row in regions):
        raise ValidationFailed("A region must be an object with 'type' and 'value'.")
    rows = _labelled(regions)
    passed: Counter[str] = Counter()
    kept: list[Mapping[str, Any]] = []
    drawn = {str(row.get("id")) for row in rows if row.get("type") in PLACED}
    for row in rows:
        kind = str(row.get("type"))
        if kind in PASSED_OVER:
            passed[f"Label Studio {kind} results"] += 1
        elif kind == "choices" and str(row.get("id")) in drawn:
            passed[OF_A_REGION] += 1
        else:
            kept.append(row)
    lost = [row for row in kept if row.get("type") not in READ]
    if lost:
        kinds = ", ".join(sorted({str(row.get("type"))[:40] for row in lost}))
        raise ValidationFailed(
            f"{len(lost)} of {len(kept)} regions have unsupported types: {kinds} (the first is "
            f"{str(lost[0].get('id'))[:40]!r}). Allowed: {', '.join(READ)}. Use an allowed type "
            "for these objects, or remove them."
        )
    if skipped is not None:
        skipped.update(passed)
    return kept


def _labelled(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows, with shapes and their separate `labels` results (of the same id) joined.

    Raises:
        ValidationFailed: A shape has no label.
    """
    named: dict[str, list[Any]] = {}
    for row in rows:
        value = row.get("value")
        if row.get("type") == "labels" and isinstance(value, Mapping):
            labels = value.get("labels")
            named.setdefault(str(row.get("id")), []).extend(
                labels if isinstance(labels, list) else []
            )
    shapes = {str(row.get("id")) for row in rows if row.get("type") in SHAPES}
    made: list[Mapping[str, Any]] = []
    for row in rows:
        kind, key = row.get("type"), str(row.get("id"))
        if kind == "labels" and key in shapes:
            continue
        if kind == "labels":
            kind = _shape_of(row.get("value")) or kind
        if kind not in SHAPES:
            made.append(row)
            continue
        value = row.get("value")
        if not named.get(key) or not isinstance(value, Mapping):
            raise ValidationFailed(
                f"Region {key[:40]!r} is a {kind} without a label. Give it one, or remove it."
            )
        kind = f"{kind}labels"
        made.append({**row, "type": kind, "value": {**value, kind: named[key]}})
    return made


def _shape_of(value: Any) -> str | None:
    """The shape that a `labels` result contains; None if it is of a text or audio."""
    has = value if isinstance(value, Mapping) else {}
    signs = {"rle": "brush", "points": "polygon", "radiusX": "ellipse", "height": "rectangle"}
    found = next((shape for sign, shape in signs.items() if sign in has), None)
    return found or ("keypoint" if "x" in has else None)
