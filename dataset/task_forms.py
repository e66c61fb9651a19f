"""Converts annotations to what a task trains on, and writes the data.yaml of such a dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import yaml

from formats.annotations import Annotation, AnnotationPart, Annotations
from models_store.description import Task

RESERVED = '\\:*?"<>|'  # characters that file names on Windows cannot have
DEVICES = {"con", "prn", "aux", "nul"} | {f"{k}{n}" for k in ("com", "lpt") for n in "0123456789"}
LONGEST_NAME = 200  # characters of a folder's name


def task_of(found: Iterable[Annotations]) -> Task:
    """The task that the annotations fit.

    Pose if there are keypoints, segment if there are more polygons than boxes, detect if there are
    other boxes or polygons, else classify.
    """
    kinds: Counter[str] = Counter()
    for marked in found:
        for annotation in marked.objects:
            kinds["points"] += any(point.visibility for point in annotation.keypoints)
            kinds["polygons"] += bool(annotation.parts)
            kinds["boxes"] += annotation.box is not None and not annotation.parts
    if kinds["points"]:
        return "pose"
    if kinds["polygons"] > kinds["boxes"]:
        return "segment"
    return "detect" if kinds["polygons"] + kinds["boxes"] else "classify"


def describe(
    task: Task, classes: Sequence[str], points: Sequence[str], splits: Sequence[str], **more: str
) -> str:
    """The text of a data.yaml.

    Args:
        task: `classify` has its splits in SPLIT/, the others in images/SPLIT and labels/SPLIT.
        classes: Class names in order of id.
        points: Keypoint names in order; used for `pose`.
        splits: Names of the splits.
        more: Further keys and values.
    """
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
    """Converts a class name to a valid folder name that is not hidden."""
    name = "".join("_" if c == "/" or ord(c) < 32 else c for c in label.strip())[:LONGEST_NAME]
    return f"_{name[1:]}" if name.startswith(".") else name or "_"


def portable_folders(labels: Iterable[str]) -> dict[str, str]:
    """Folder names of classes that mean one folder on every system, a different one for each.

    Other than `folder_name` they have no character or name that is special on Windows, where a
    zip may be unpacked.
    """
    folders: dict[str, str] = {}
    for label in sorted(set(labels)):
        name = "".join("_" if c in RESERVED or ord(c) == 127 else c for c in folder_name(label))
        name = name.rstrip(". ") or "_"
        if name.partition(".")[0].rstrip().casefold() in DEVICES:
            name = f"_{name}"
        number, taken = 2, set(folders.values())
        folders[label] = name
        while folders[label] in taken:
            folders[label] = f"{name} ({number})"
            number += 1
    return folders


def fitting(found: Annotations, task: Task) -> Annotations:
    """Converts annotations to the kind that `task` trains on; drops those that have no such kind.

    For `detect` polygons and poses become their bounding boxes, for `segment` boxes become
    rectangles, for `pose` polygons with keypoints become boxes with keypoints.
    """
    objects = []
    for annotation in found.objects:
        if annotation.bounds is None or (task == "pose" and not annotation.keypoints):
            continue
        kept = annotation
        if task == "detect":
            kept = Annotation(annotation.label, box=annotation.bounds)
        elif task == "segment":
            parts = annotation.parts or (AnnotationPart(_rectangle(annotation)),)
            kept = Annotation(annotation.label, parts=parts)
        elif annotation.parts:  # pose: bounding box and keypoints
            kept = Annotation(
                annotation.label, box=annotation.bounds, keypoints=annotation.keypoints
            )
        objects.append(kept)
    return replace(found, objects=tuple(objects))


def _rectangle(annotation: Annotation) -> tuple[tuple[float, float], ...]:
    assert annotation.bounds is not None
    x1, y1, x2, y2 = annotation.bounds
    return (x1, y1), (x2, y1), (x2, y2), (x1, y2)


def _mirrored(points: Sequence[str]) -> list[int] | None:
    """The `flip_idx` of a dataset: the index of each keypoint after a horizontal flip.

    It is derived from `left` and `right` in the names; None if the names do not form pairs.
    """
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
