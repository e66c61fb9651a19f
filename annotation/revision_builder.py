"""The folder that trains: what people annotated, written as a data set of one task.

A folder is a revision: it never changes once it is there, and stays for as long as a job or an
evaluation names it. The pictures in it are hard links to those that the data set keeps.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from annotation.pictures import ImageRecord
from annotation.revision_records import Known, new_revision, write_revision
from annotation.store import AnnotatedDataset, AnnotatedDatasets
from database import now
from dataset.inspection import inspect
from dataset.report import report
from dataset.revisions import REVISIONS, is_kept
from dataset.store import CARD
from dataset.task_forms import describe, fitting, folder_name, task_of
from errors import DatasetInvalid, VisionLoopError
from formats.annotations import Annotations
from formats.yolo import to_yolo
from models_store.description import Task

HELD_OUT = 5  # one of so many pictures, by their content, is of the val split
YOUNG = 60.0  # seconds for which an older revision stays though nothing names it
LAST = 3  # revisions that stay though nothing names them

Relabel = Callable[[Annotations], Annotations]


def build(
    store: AnnotatedDatasets,
    dataset: AnnotatedDataset,
    *,
    relabel: Relabel = lambda found: found,
    task: Task | None = None,
    names: Sequence[str] = (),
    keypoint_names: Sequence[str] = (),
    used: Iterable[str] = (),
    keep: bool = False,
) -> dict[str, Any]:
    """Write the newest revision of a data set and its card, by which it is found.

    Args:
        store: Holds what was annotated.
        dataset: Which one.
        relabel: From the tool's names of classes and key points to those to train with.
        task: What to train; default: what `task_of` says.
        names: An order of the classes; those that occur and are not in it follow.
        keypoint_names: The same for key points.
        used: Paths that jobs and evaluations name: their revisions stay.
        keep: This revision stays for as long as the data set does.

    Returns:
        The card, as `GET /api/datasets` shows it.

    Raises:
        DatasetInvalid: Nothing is annotated yet.
    """
    folder = store.folder(dataset.id)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{dataset.id}.lock", timeout=300):
        dataset = store.get(dataset.id)  # the changes that are in, at least
        pictures = [
            replace(picture, annotations=relabel(picture.annotations))
            for picture in store.pictures(dataset.id)
        ]
        if not pictures:
            raise DatasetInvalid(f"'{dataset.name}' has no annotated picture yet.")
        task = task or task_of(picture.annotations for picture in pictures)
        pictures = [picture.compared(task) for picture in pictures]
        revision = _next(folder)
        partial = Path(tempfile.mkdtemp(prefix=".revision-", dir=folder))
        try:
            known = Known(tuple(names), tuple(keypoint_names), every="names" in dataset.options)
            _write(partial, [p for p in pictures if p.trains], task, known)
            made = new_revision(revision, pictures, task, known, keep)
            write_revision(made, partial, pictures)
            partial.chmod(0o755)
            final = folder / REVISIONS / f"{revision:06}"
            final.parent.mkdir(exist_ok=True)
            os.replace(partial, final)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        card = _card(dataset, final, revision, pictures, task)
        card["waiting"] = len(store.waiting(dataset.id))
        _replace_file(folder / CARD, json.dumps(card, indent=1))
        store.note_built(dataset.id, dataset.changes)
        _prune(folder / REVISIONS, final, tuple(used))
    return card


def held_out(contents: Iterable[str]) -> set[str]:
    """The pictures of the val split, by their SHA-256 alone, so that none ever changes sides.

    While there are so few that this gives none, the first by content is taken; at least one of
    several stays to train on.
    """
    ordered = sorted(contents)
    chosen = {content for content in ordered if int(content[:8], 16) % HELD_OUT == 0}
    if not chosen and len(ordered) > 1:
        chosen = {ordered[0]}
    if len(chosen) == len(ordered) and chosen:
        chosen.discard(ordered[-1])
    return chosen


def _write(
    folder: Path,
    pictures: Sequence[ImageRecord],
    task: Task,
    known: Known,
) -> None:
    if task == "classify":
        _write_classes(folder, pictures)
        return
    made = [replace(p, annotations=fitting(p.annotations, task)) for p in pictures]
    objects = [thing for picture in made for thing in picture.annotations.objects]
    classes = known.classes(thing.label for thing in objects)
    points: tuple[str, ...] = ()
    if task == "pose":
        points = known.points(p.name for thing in objects for p in thing.keypoints)
    val = held_out(picture.content for picture in made)
    for split in ("train", "val"):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
    test = any(picture.split == "test" for picture in made)
    for picture in made:
        split = picture.split or ("val" if picture.content in val else "train")
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        _link(picture.file, folder / "images" / split / picture.file.name)
        text = to_yolo(picture.annotations, classes, points)
        (folder / "labels" / split / f"{picture.content}.txt").write_text(text, encoding="utf-8")
    splits = ("train", "val", "test") if test else ("train", "val")
    text = describe(task, classes, points, splits)
    (folder / "data.yaml").write_text(text, encoding="utf-8")


def _write_classes(folder: Path, pictures: Sequence[ImageRecord]) -> None:
    """One folder per class; a picture without a class is left out."""
    classes: dict[str, list[ImageRecord]] = {}
    for picture in pictures:
        if picture.annotations.objects:
            classes.setdefault(picture.annotations.objects[0].label, []).append(picture)
    for name, members in classes.items():
        val = held_out(picture.content for picture in members)
        for picture in members:
            split = picture.split or ("val" if picture.content in val else "train")
            target = folder / split / folder_name(name)
            target.mkdir(parents=True, exist_ok=True)
            _link(picture.file, target / picture.file.name)


def _card(
    dataset: AnnotatedDataset,
    revision_folder: Path,
    revision: int,
    pictures: Sequence[ImageRecord],
    task: Task,
) -> dict[str, Any]:
    folder = revision_folder.parent.parent
    top = revision_folder if task == "classify" else revision_folder / "data.yaml"
    card: dict[str, Any] = {
        "id": dataset.id,
        "name": dataset.name,
        "created_at": dataset.created_at,
        "updated_at": now(),
        "size_bytes": sum(picture.file.stat().st_size for picture in pictures),
        "files": len(pictures),
        "skipped_files": 0,
        "description": os.path.relpath(top, folder),
        "revision": revision,
        "source": dataset.source,
        "to_review": sum(not picture.trains for picture in pictures),
        "annotation": dataset.options.get("annotation"),
    }
    try:
        return card | report(inspect(top, task, [folder], min_classes=1))
    except VisionLoopError as error:  # too little yet
        waiting = ""
        if card["to_review"]:
            waiting = (
                f"{card['to_review']} of {len(pictures)} pictures wait for a person: GET "
                f"/api/annotation/queue?dataset={dataset.id}. "
            )
        return card | _unusable(task, pictures, f"{waiting}{error.message}")


def _unusable(task: Task, pictures: Sequence[ImageRecord], why: str) -> dict[str, Any]:
    labels = sorted({thing.label for p in pictures for thing in p.annotations.objects})
    problem = {"kind": "empty", "message": why, "count": 1, "examples": [], "fatal": True}
    return {
        "task": task,
        "usable": False,
        "classes": labels,
        "splits": {},
        "class_counts": [],
        "image_size": None,
        "unlabelled_share": 0.0,
        "keypoints": None,
        "fingerprint": "",
        "problems": [problem],
    }


def _next(folder: Path) -> int:
    made = [path.name for path in (folder / REVISIONS).glob("*") if path.name.isdigit()]
    last = 0
    with suppress(OSError, ValueError):
        last = int(json.loads((folder / CARD).read_bytes()).get("revision", 0))
    return max([last, *map(int, made)]) + 1


def _prune(revisions: Path, newest: Path, used: Sequence[str]) -> None:
    for folder in sorted(revisions.iterdir())[:-LAST]:
        with suppress(OSError):
            young = time.time() - folder.stat().st_mtime < YOUNG
            named = any(Path(path).is_relative_to(folder) for path in used) or is_kept(folder)
            if folder != newest and not young and not named:
                shutil.rmtree(folder, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without them
        shutil.copyfile(source, target)


def _replace_file(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
