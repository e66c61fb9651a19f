"""Builds revisions of an annotated dataset: folders in training format for one task.

A revision is immutable, and is not deleted while a job or an evaluation refers to it. Its images
are hard links to the files that the annotated dataset stores.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from annotation.datasets import AnnotatedDatasets
from annotation.image_records import ImageRecord
from annotation.revision_records import KnownNames, new_revision, write_revision
from annotation.tables import AnnotatedDataset
from database import now
from dataset import image_scan
from dataset.image_files import SUFFIXES
from dataset.inspection import inspect
from dataset.report import report
from dataset.revisions import CARD, FIRST_CARD, REVISIONS, is_kept
from dataset.splits import held_out_by_content
from dataset.task_forms import describe, fitting, folder_name, task_of
from errors import DatasetInvalid, VisionLoopError
from files import atomic_path, link_or_copy
from formats.annotations import Annotations
from formats.yolo import to_yolo
from models_store.description import Task

MIN_AGE = 60.0  # seconds; younger revisions are not deleted
KEEP_LAST = 3  # number of newest revisions that are not deleted

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
    """Write a new revision of an annotated dataset, and the dataset's card.

    Args:
        store: The store of the annotations.
        dataset: The dataset.
        relabel: Maps the tool's class and keypoint names to those to train with.
        task: The task to train; default: the one that `task_of` infers.
        names: Class names in order of id; other classes that occur follow, sorted by name.
        keypoint_names: Keypoint names in order; other keypoints follow, sorted by name.
        used: Paths that jobs and evaluations refer to; the revisions that they are in are not
            deleted.
        keep: Never delete this revision while the dataset exists.

    Returns:
        The card, as `GET /api/datasets` shows it.

    Raises:
        DatasetInvalid: No image is annotated yet.
        filelock.Timeout: Other processes have been changing the dataset for five minutes.
    """
    with store.changing(dataset.id) as folder:
        folder.mkdir(parents=True, exist_ok=True)
        # The dataset's row is read before its entries: `dataset.changes` may then be lower than
        # the number of changes in the entries, but never higher.
        dataset = store.get(dataset.id)
        records = [
            replace(record, annotations=relabel(record.annotations))
            for record in store.entries.records(dataset.id)
        ]
        if not records:
            raise DatasetInvalid(
                f"'{dataset.name}' has no annotated image yet. Submit annotations first."
            )
        store.entries.have(dataset.id, [record.file for record in records])
        task = task or task_of(record.annotations for record in records)
        records = [record.with_comparison(task) for record in records]
        number = _next_number(folder)
        known = KnownNames(
            tuple(names), tuple(keypoint_names), keep_unused="names" in dataset.options
        )
        final = folder / REVISIONS / f"{number:06}"
        with atomic_path(final) as partial:
            partial.mkdir()
            _write(partial, [record for record in records if record.trains], task, known)
            write_revision(new_revision(number, records, task, known, keep), partial, records)
        try:
            _reuse_scans(folder, final)
            card = _card(dataset, final, number, records, task, known)
            card["waiting"] = len(store.entries.waiting(dataset.id))
            # The card's content is on the disk before the dataset's row is written.
            with atomic_path(folder / CARD) as written:
                written.write_text(json.dumps(card, indent=1), encoding="utf-8")
                store.publish(dataset.id, card)
                store.note_built(dataset.id, dataset.changes)
        except BaseException:  # a revision without a card, as when the disk is full
            shutil.rmtree(final, ignore_errors=True)
            image_scan.forget(final.resolve())  # what is undone next needs the room
            raise
        _prune(folder / REVISIONS, final, tuple(used))
    return card


def _write(
    folder: Path,
    records: Sequence[ImageRecord],
    task: Task,
    known: KnownNames,
) -> None:
    """Write the images, label files and data.yaml; for `classify` the class folders."""
    if task == "classify":
        _write_class_folders(folder, records)
        return
    made = _fitted(records, task)
    objects = [thing for record in made for thing in record.annotations.objects]
    classes = known.classes(thing.label for thing in objects)
    keypoints: tuple[str, ...] = ()
    if task == "pose":
        keypoints = known.keypoints(p.name for thing in objects for p in thing.keypoints)
    val = held_out_by_content(record.content for record in made)
    for split in ("train", "val"):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
    test = any(record.split == "test" for record in made)
    for record in made:
        split = record.split or ("val" if record.content in val else "train")
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        link_or_copy(record.file, folder / "images" / split / record.file.name)
        text = to_yolo(record.annotations, classes, keypoints)
        (folder / "labels" / split / f"{record.content}.txt").write_text(text, encoding="utf-8")
    splits = ("train", "val", "test") if test else ("train", "val")
    text = describe(task, classes, keypoints, splits)
    (folder / "data.yaml").write_text(text, encoding="utf-8")


def _fitted(records: Sequence[ImageRecord], task: Task) -> list[ImageRecord]:
    """The records, with annotations converted to those that the task trains on.

    An image that loses all of its objects, such as one with only boxes in a pose dataset, is left
    out: without labels it would be trained on as a background.
    """
    made = []
    for record in records:
        found = fitting(record.annotations, task)
        if found.objects or not any(thing.bounds for thing in record.annotations.objects):
            made.append(replace(record, annotations=found))
    return made


def _write_class_folders(folder: Path, records: Sequence[ImageRecord]) -> None:
    """Write one folder per class; an image without a class is left out."""
    classes: dict[str, list[ImageRecord]] = {}
    for record in records:
        if record.annotations.objects:
            classes.setdefault(record.annotations.objects[0].label, []).append(record)
    for name, members in classes.items():
        val = held_out_by_content(record.content for record in members)
        for record in members:
            split = record.split or ("val" if record.content in val else "train")
            target = folder / split / folder_name(name)
            target.mkdir(parents=True, exist_ok=True)
            link_or_copy(record.file, target / record.file.name)


def _card(
    dataset: AnnotatedDataset,
    revision_folder: Path,
    number: int,
    records: Sequence[ImageRecord],
    task: Task,
    known: KnownNames,
) -> dict[str, Any]:
    folder = revision_folder.parent.parent
    top = revision_folder if task == "classify" else revision_folder / "data.yaml"
    card: dict[str, Any] = {
        "id": dataset.id,
        "name": dataset.name,
        "created_at": dataset.created_at,
        "updated_at": now(),
        "size_bytes": sum(record.file.stat().st_size for record in records),
        "files": len(records),
        "skipped_files": 0,
        "description": os.path.relpath(top, folder),
        "revision": number,
        "source": dataset.source,
        "to_review": sum(not record.trains for record in records),
        "annotation": dataset.options.get("annotation"),
    }
    try:
        return card | report(inspect(top, task, [folder], min_classes=1))
    except VisionLoopError as error:  # too few images or classes to train
        waiting = ""
        if card["to_review"]:
            waiting = (
                f"{card['to_review']} of {len(records)} images wait for review by a person: GET "
                f"/api/annotation/queue?dataset={dataset.id}. "
            )
        return card | _unusable(task, records, known, f"{waiting}{error.message}")


def _reuse_scans(folder: Path, revision: Path) -> None:
    """Take what is known of the images from the upload and the revision before: decoding them again
    would take most of the time."""
    before = sorted(path for path in (folder / REVISIONS).glob("[0-9]*") if path != revision)[-1:]
    with suppress(OSError, ValueError, KeyError):
        first = folder / FIRST_CARD
        card = json.loads((first if first.exists() else folder / CARD).read_bytes())
        top = folder / card["description"]
        before.append(top.parent if top.is_file() else top)
    images = (path for path in revision.rglob("*") if path.suffix.lower() in SUFFIXES)
    image_scan.reuse(revision.resolve(), images, [path.resolve() for path in before])


def _unusable(
    task: Task, records: Sequence[ImageRecord], known: KnownNames, message: str
) -> dict[str, Any]:
    """The card's fields in place of an inspection report, if the dataset cannot be trained on."""
    labels = {thing.label for one in records for thing in one.annotations.objects}
    problem = {"kind": "empty", "message": message, "count": 1, "examples": [], "fatal": True}
    return {
        "task": task,
        "usable": False,
        "classes": list(known.classes(labels)),
        "splits": {},
        "class_counts": [],
        "image_size": None,
        "unlabelled_share": 0.0,
        "keypoints": None,
        "fingerprint": "",
        "problems": [problem],
    }


def _next_number(folder: Path) -> int:
    """The number of the next revision.

    The card has the number of the newest revision, even if that revision was deleted.
    """
    made = [path.name for path in (folder / REVISIONS).glob("*") if path.name.isdigit()]
    last = 0
    with suppress(OSError, ValueError):
        last = int(json.loads((folder / CARD).read_bytes()).get("revision", 0))
    return max([last, *map(int, made)]) + 1


def _prune(revisions: Path, newest: Path, used: Sequence[str]) -> None:
    """Delete old revisions that nothing refers to."""
    for folder in sorted(revisions.iterdir())[:-KEEP_LAST]:
        with suppress(OSError):
            young = time.time() - folder.stat().st_mtime < MIN_AGE
            inside = f"/{revisions.parent.name}/{REVISIONS}/{folder.name}/"  # on any machine
            named = any(inside in f"{path}/" for path in used) or is_kept(folder)
            if folder != newest and not young and not named:
                shutil.rmtree(folder, ignore_errors=True)
