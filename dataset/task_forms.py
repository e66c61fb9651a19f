"""What each task can hold of annotations, and how a folder that trains it is described."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import yaml

from formats.annotations import Annotation, AnnotationPart, Annotations
from models_store.description import Task

LONGEST_NAME = 200  # characters of a folder's


def task_of(found: Iterable[Annotations]) -> Task:
    """Pose where there are key points, segment where polygons prevail, detect where there are
    boxes; else classify."""
    kinds: Counter[str] = Counter()
    for marked in found:
        for thing in marked.objects:
            kinds["points"] += any(point.visibility for point in thing.keypoints)
            kinds["polygons"] += bool(thing.parts)
            kinds["boxes"] += thing.box is not None and not thing.parts
    if kinds["points"]:
        return "pose"
    if kinds["polygons"] > kinds["boxes"]:
        return "segment"
    return "detect" if kinds["polygons"] + kinds["boxes"] else "classify"


def describe(
    task: Task, classes: Sequence[str], points: Sequence[str], splits: Sequence[str], **more: str
) -> str:
    """The data.yaml of a folder with images/ and labels/ for each split, or with the splits
    themselves for `classify`; `more`: other keys."""
    description: dict[str, Any] = {"path": "."}
    top = "" if task == "classify" else "images/"
    description |= {split: f"{top}{split}" for split in splits} | more
    description["names"] = dict(enumerate(classes))
    if task == "pose" and points:
        description |= {"kpt_shape": [len(points), 3], "kpt_names": {0: list(points)}}
        if flip := _mirrored(points):
            description["flip_idx"] = flip
    return yaml.safe_dump(description, sort_keys=False, allow_unicode=True)


def folder_name(label: str) -> str:
    """A class name that can be a folder's, visible."""
    name = "".join("_" if c == "/" or ord(c) < 32 else c for c in label.strip())[:LONGEST_NAME]
    return f"_{name[1:]}" if name.startswith(".") else name or "_"


def fitting(found: Annotations, task: Task) -> Annotations:
    """The annotations without those that the task does not train; for segment a box becomes its
    rectangle."""
    objects = []
    for thing in found.objects:
        if thing.bounds is None or (task == "pose" and not thing.keypoints):
            continue
        kept = thing
        if task == "detect":
            kept = Annotation(thing.label, box=thing.bounds)
        elif task == "segment":
            parts = thing.parts or (AnnotationPart(_rectangle(thing)),)
            kept = Annotation(thing.label, parts=parts)
        elif thing.parts:  # pose: a box and its points
            kept = Annotation(thing.label, box=thing.bounds, keypoints=thing.keypoints)
        objects.append(kept)
    return replace(found, objects=tuple(objects))


def _rectangle(thing: Annotation) -> tuple[tuple[float, float], ...]:
    assert thing.bounds is not None
    x1, y1, x2, y2 = thing.bounds
    return (x1, y1), (x2, y1), (x2, y2), (x1, y2)


def _mirrored(points: Sequence[str]) -> list[int] | None:
    """Which key point each becomes in a mirror, where `left` and `right` in names tell it."""
    index = {name.casefold(): i for i, name in enumerate(points)}
    if not any("left" in name for name in index):
        return None
    flip = []
    for name in index:
        other = name.replace("left", "\0").replace("right", "left").replace("\0", "right")
        if other not in index:
            return None
        flip.append(index[other])
    return flip if sorted(flip) == list(range(len(points))) else None
