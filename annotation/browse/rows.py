"""What the index has of the images of an upload and of a revision."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from annotation.image_records import ORIGINAL, PERSON, ImageRecord
from dataset.browse.index import IndexedImage, State
from dataset.dataset import SMALLEST, Dataset
from dataset.image_scan import ScannedImage
from dataset.label_files import LabelRow, parse
from dataset.label_scan import shown
from models_store.description import Task

SPLITS = ("train", "val", "test")
LISTED_LINES = 5  # issues of a label file that are described


def upload_images(dataset: Dataset, folder: Path) -> Iterator[IndexedImage]:
    """The images of an upload, split by split; each file counts, also copies and unreadable ones.

    Reads the label files, and the images unless they were scanned before.

    Args:
        dataset: The inspected upload.
        folder: The dataset's folder.
    """
    scanned = dataset.scan().images
    first: dict[str, Path] = {}
    for split in dataset.splits:
        for image in dataset.splits[split]:
            found = _indexed(dataset, folder, image, scanned[image], split)
            twin = first.get(found.content)
            if twin is not None and found.content:
                kind = "duplicate_train" if split == "train" else "duplicate_split"
                found.problems[kind] = f"a copy of {shown(twin, dataset.root)}"
            elif split == "train":
                first[found.content] = image
            yield found
    for image in dataset.unlabelled:
        yield _indexed(dataset, folder, image, scanned[image], "")


def _indexed(
    dataset: Dataset, folder: Path, image: Path, known: ScannedImage, split: str
) -> IndexedImage:
    found = IndexedImage(
        content=known.digest,
        name=shown(image, dataset.root),
        file=os.path.relpath(image, folder),
        width=known.width,
        height=known.height,
        split=split,
        state="unlabelled",
    )
    if known.problem:
        found.state = "unreadable"
        found.problems["corrupt_image"] = known.problem
        return found
    if min(known.width, known.height) < SMALLEST:
        found.problems["small_image"] = f"{known.width} × {known.height}"
    if not split:
        return found
    found.author = ORIGINAL
    if dataset.task == "classify":
        found.classes = {dataset.names[dataset.classes[image]]: 1}
    elif image in dataset.labels:
        _read_labels(dataset, dataset.labels[image], found)
    else:
        found.problems["missing_label"] = "no label file; it trains as background"
    found.state = "labelled" if found.classes else "empty"
    return found


def _read_labels(dataset: Dataset, label: Path, found: IndexedImage) -> None:
    """Add the objects of a label file, and the problems of its lines."""
    parsed = parse(label.read_bytes(), dataset.label_format)
    found.classes = dict(Counter(dataset.names[row.cls] for row in parsed.rows))
    found.boxes = [(dataset.names[row.cls], *_bounds(row, dataset.task)) for row in parsed.rows]
    lines: dict[str, list[str]] = {}
    for issue in parsed.issues:
        where = f"line {issue.line}: " if issue.line else ""
        lines.setdefault(issue.kind, []).append(f"{where}{issue.reason}")
    for kind, reasons in lines.items():
        more = "; …" if len(reasons) > LISTED_LINES else ""
        found.problems[kind] = "; ".join(reasons[:LISTED_LINES]) + more


def _bounds(row: LabelRow, task: Task) -> tuple[float, float, float, float]:
    """The box of a row as fractions of the image: x1, y1, x2, y2."""
    values = row.values
    if task == "segment":
        xs, ys = values[0::2], values[1::2]
        return float(min(xs)), float(min(ys)), float(max(xs)), float(max(ys))
    x, y, w, h = map(float, values[:4])
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def revision_images(
    records: Iterable[ImageRecord], revision: Path, folder: Path, task: Task
) -> Iterator[IndexedImage]:
    """The images of a revision, split by split, in order of their names.

    Args:
        records: The revision's records.
        revision: Its folder, whose layout says which split has which image.
        folder: The dataset's folder.
        task: Its task.
    """
    splits = _splits(revision, task)
    rows = [_of_record(record, splits, folder, task) for record in records]
    order = {split: number for number, split in enumerate((*SPLITS, ""))}
    rows.sort(key=lambda row: (order.get(row.split, len(order)), row.name))
    yield from rows


def _of_record(
    record: ImageRecord, splits: dict[str, str], folder: Path, task: Task
) -> IndexedImage:
    annotations = record.annotations
    width, height = annotations.width, annotations.height
    objects = [
        thing for thing in annotations.objects if (thing.bounds is None) == (task == "classify")
    ]
    found = IndexedImage(
        content=record.content,
        name=record.name or record.file.name,
        file=os.path.relpath(record.file, folder),
        width=width,
        height=height,
        split=splits.get(record.content, ""),
        state=_state(record, bool(objects)),
        author=record.author or record.by,
        classes=dict(Counter(thing.label for thing in objects)),
    )
    if found.state == "unlabelled":
        found.author = ""
    for thing in objects:
        if thing.bounds is not None and width and height:
            x1, y1, x2, y2 = thing.bounds
            found.boxes.append((thing.label, x1 / width, y1 / height, x2 / width, y2 / height))
    if min(width, height) < SMALLEST:
        found.problems["small_image"] = f"{width} × {height}"
    if record.trains and not found.split:
        found.problems["left_out"] = f"none of its annotations is one for the task {task}"
    return found


def _state(record: ImageRecord, objects: bool) -> State:
    if record.by == ORIGINAL and not record.trains:
        return "unlabelled"
    if record.by not in (PERSON, ORIGINAL):
        return "predicted"
    if not objects:
        return "empty"
    return "corrected" if record.by == PERSON else "labelled"


def _splits(revision: Path, task: Task) -> dict[str, str]:
    """SHA-256 of an image → the split whose folder it is in."""
    found: dict[str, str] = {}
    for split in SPLITS:
        top = revision / split if task == "classify" else revision / "images" / split
        for folder in _folders(top) if task == "classify" else [top]:
            with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
                found.update((entry.name.partition(".")[0], split) for entry in entries)
    return found


def _folders(top: Path) -> Sequence[Path]:
    with contextlib.suppress(FileNotFoundError):
        return [path for path in top.iterdir() if path.is_dir()]
    return []
