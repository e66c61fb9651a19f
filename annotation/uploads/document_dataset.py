"""Converts exports of annotation tools to a dataset.

The result has images with label files (or class folders), in the splits that the export gives.
Every image and object of the zip is counted as stored or not stored.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from annotation.checked_annotations import NO_AREA_IN_IMAGE, checked, misfit, refuse_fractions
from annotation.corrections.correction import Correction, CorrectionRules
from annotation.corrections.reader import (
    ASSUMED_SIZE,
    NEW_WITHOUT_OBJECTS,
    NOT_DESCRIBED,
    read_correction,
)
from annotation.uploads.free_paths import FreePaths
from annotation.uploads.intake import Intake
from dataset.class_matching import tidy
from dataset.data_yaml import UNLABELLED
from dataset.documents.class_folder_annotations import MASKS
from dataset.documents.image_names import comparable, without_suffix
from dataset.documents.reader import READ
from dataset.documents.submission import DescribedImage, Size, Submission
from dataset.issues import Findings
from dataset.splits import stated_splits
from dataset.task_forms import describe, fitting, folder_name, task_of
from errors import DatasetInvalid, ValidationFailed, VisionLoopError
from formats.annotations import Annotations
from formats.yolo import to_yolo
from inference.images import check_header
from models_store.description import Task

DATASET_NAME = "the zip"  # name of the dataset in messages
NO_KEYPOINTS = "without key points, in a pose dataset"
MORE_CLASSES = "further classes of an image, which can have only one class"
SHOWN = 12  # maximum number of names in a message


@dataclass
class _Placed:
    """An image with its split and annotations in the new dataset.

    Attributes:
        name: Its path in the zip.
        split: Its split; empty if it is not annotated.
        found: Its annotations; None if it has none, not even as a background.
    """

    name: str
    split: str = ""
    found: Annotations | None = None


@dataclass
class _Draft:
    """A dataset while it is being converted."""

    sent: Submission
    task: Task
    intake: Intake
    classes: tuple[str, ...] = ()
    keypoints: tuple[str, ...] = ()
    placed: list[_Placed] = field(default_factory=list)


def write_dataset(
    root: Path, sent: Submission, task: Task | None, folder: Path, max_pixels: int
) -> tuple[Path, Intake]:
    """Convert the documents and images of a zip to a dataset. The images are moved into it.

    Args:
        root: Folder of the unpacked zip.
        sent: The documents and images read from the zip.
        task: The task; None: the one that the objects fit.
        folder: Folder of the new dataset, which must not exist.
        max_pixels: Maximum number of pixels of an image.

    Returns:
        Its data.yaml, or for `classify` the folder; and the counts of images and objects.

    Raises:
        ValidationFailed, DatasetInvalid: No document fits an image, or two contradict each other.
    """
    intake = Intake("+".join(sent.forms) or "images", notes=list(sent.notes))
    whole = _readable(sent, max_pixels, intake)
    whole = _without_masks(whole, intake)
    if not whole.images:
        raise _no_images(sent)
    if all(described.empty == "unfinished" for described in whole.described):
        return _images_alone(root, whole, task, folder, intake)
    intake.task = _task(whole, task, intake)
    kept = [_with_places(described, intake) for described in whole.described]
    whole = replace(whole, described=kept)
    made = _Draft(whole, intake.task, intake)
    rules = CorrectionRules(
        DATASET_NAME, (), made.task, max_pixels, background=True, any_format=True
    )
    correction = read_correction([], whole, rules)
    _place(made, correction, root)
    _account(made, correction)
    top = _write(made, root, folder)
    return top, intake


def _readable(sent: Submission, max_pixels: int, intake: Intake) -> Submission:
    """The submission without unreadable images, which are added to the findings."""
    findings = Findings()
    bad = set()
    for name, path in sent.images.items():
        try:
            check_header(path.read_bytes(), max_pixels)
        except VisionLoopError as error:
            bad.add(name)
            findings.add("corrupt_image", f"{name}: {error.message}")
    intake.images["received"] = len(sent.images)
    intake.images["unreadable"] = len(bad)
    intake.findings += findings.result()
    return replace(
        sent,
        images={name: path for name, path in sent.images.items() if name not in bad},
        contents={name: digest for name, digest in sent.contents.items() if name not in bad},
    )


def _no_images(sent: Submission) -> DatasetInvalid:
    if sent.images:
        return DatasetInvalid(
            "None of the zip's images can be read. Replace damaged files, and pack JPEG, PNG, "
            "WebP, BMP, TIFF or AVIF."
        )
    names = ", ".join(described.name[:100] for described in sent.described[:3])
    return DatasetInvalid(
        f"The zip has annotations of {len(sent.described)} images ({names}), but contains none "
        f"of these images. Pack the images beside their annotations. {READ}."
    )


def _without_masks(sent: Submission, intake: Intake) -> Submission:
    """The submission without mask images, which are not read as annotations.

    A mask has the name of another image and is in a folder such as VOC's `SegmentationClass`.

    Raises:
        DatasetInvalid: Masks are the only annotations.
    """
    stems = Counter(PurePosixPath(name).stem for name in sent.images)
    masks = [
        name
        for name in sent.images
        if any(MASKS.fullmatch(part) for part in PurePosixPath(name).parts[:-1])
        and stems[PurePosixPath(name).stem] > 1
    ]
    if not masks:
        return sent
    if not sent.described:
        raise DatasetInvalid(
            f"The zip's annotations are {len(masks)} mask images ({masks[0]}), which are not "
            f"supported. {READ}. To annotate the images here, upload them without the masks."
        )
    intake.images["received"] -= len(masks)
    intake.notes.append(
        f"{len(masks)} images are masks of other images ({masks[0]}); mask images are not read."
    )
    masked = set(masks)
    return replace(
        sent,
        images={name: path for name, path in sent.images.items() if name not in masked},
        contents={name: digest for name, digest in sent.contents.items() if name not in masked},
    )


def _task(sent: Submission, asked: Task | None, intake: Intake) -> Task:
    """The requested task; if none is requested, the one that the objects fit.

    A note is added if the task was chosen from both boxes and polygons or keypoints.

    Raises:
        DatasetInvalid: No object fits the requested task.
    """
    every = []
    for described in sent.described:
        skipped = Counter(described.skipped)  # restored: some readers count on each call
        every.append(described.read(described.size or ASSUMED_SIZE))
        described.skipped.clear()
        described.skipped.update(skipped)
    fits = task_of(every)
    objects = [thing for found in every for thing in found.objects]
    if asked is not None:
        held = [thing for thing in objects if not misfit(thing, asked)]
        if asked == "pose":
            held = [thing for thing in held if thing.keypoints]
        if objects and not held:
            raise DatasetInvalid(
                f"None of the {len(objects)} objects fits the task {asked}; they fit {fits}. "
                f"Send task={fits}, or omit 'task'."
            )
        return asked
    drawn = [thing for thing in objects if thing.bounds is not None]
    boxes = sum(not thing.parts and not thing.keypoints for thing in drawn)
    if 0 < boxes < len(drawn) and fits != "classify":
        intake.notes.append(
            f"{boxes} of {len(drawn)} objects are boxes, the others polygons or key points, so "
            f"the task is {fits}. For another task, send 'task'."
        )
    return fits


def _with_places(described: DescribedImage, intake: Intake) -> DescribedImage:
    """The annotation with a reader that skips objects without an area inside the image.

    A single such object makes a correction invalid, but large datasets often contain some.
    """
    read = described.read

    def skipping(size: Size) -> Annotations:
        found, where = read(size), described.where or described.name
        refuse_fractions(found, where)
        kept = []
        for thing in found.objects:
            try:
                checked(replace(found, objects=(thing,)), where, size)
            except ValidationFailed as error:
                described.skipped[NO_AREA_IN_IMAGE] += 1
                intake.lost.add(error.message)
                continue
            kept.append(thing)
        return replace(found, objects=tuple(kept))

    return replace(described, read=skipping)


def _place(made: _Draft, correction: Correction, root: Path) -> None:
    """Choose a split for each image. Of several images with the same content keep the first."""
    sent = made.sent
    by_content: dict[str, list[str]] = {}
    for name, content in sent.contents.items():
        by_content.setdefault(content, []).append(name)
    sources = {
        correction.images[content].sent: described.source
        for content, described in correction.sources.items()
    }
    splits = _settled(stated_splits(root, sent, sources), made.intake)
    only_labels = set(sent.forms) == {"yolo"}  # then an image without a label file is a background
    for content, names in by_content.items():
        found = correction.found.get(content)
        first = correction.images[content].sent if content in correction.images else names[0]
        if len(names) > 1:
            made.intake.add_copies(names)
        stated = [splits[name] for name in names if name in splits]
        split = next((s for s in ("test", "val", "train") if s in stated), "train")
        if found is None and (not only_labels or content in correction.images):
            made.placed.append(_Placed(first))
        elif found is None:
            made.placed.append(_Placed(first, split))
        else:
            made.placed.append(_Placed(first, split, found))
    made.placed.sort(key=lambda one: one.name)


def _settled(splits: dict[str, str], intake: Intake) -> dict[str, str]:
    """The splits given by the export; empty if it gives no train split."""
    if splits and "train" not in splits.values():
        only = " and ".join(sorted(set(splits.values())))
        intake.notes.append(
            f"The source has no train split, only {only}. Its splits are therefore ignored: a "
            "fifth of all images is held out for validation."
        )
        return {}
    return splits


def _account(made: _Draft, correction: Correction) -> None:
    """Record the counts of images and objects, and determine the class and keypoint names."""
    intake = made.intake
    intake.objects["received"] = correction.received["objects"]
    intake.passed_over = Counter(correction.passed_over)
    names = {described.name[:200] for described in made.sent.described}
    intake.missing = {
        name: why
        for name, why in correction.unmatched.items()
        if name in names
        and not (name in made.sent.images and why.startswith((NEW_WITHOUT_OBJECTS, NOT_DESCRIBED)))
    }
    unstated = sum(
        not found.objects and correction.sources[content].empty == "unstated"
        for content, found in correction.found.items()
    )
    if unstated:
        intake.notes.append(
            f"{unstated} images that a document lists without an object are background images."
        )
    objects = [thing for found in correction.found.values() for thing in found.objects]
    seen = {thing.label for thing in objects}
    named = dict.fromkeys(map(tidy, made.sent.classes))
    stated = [name for name in named if made.task != "classify" or name in seen]
    made.classes = (*stated, *sorted(seen - set(stated)))
    if not made.classes:
        raise DatasetInvalid(
            f"None of the {len(correction.found)} described images has an annotated object, and "
            "no class is named, so nothing can be trained. To annotate the images here, upload "
            "them without documents."
        )
    alike = Counter(comparable(name) for name in made.classes)
    if twice := [name for name in made.classes if alike[comparable(name)] > 1]:
        intake.notes.append(f"Classes that differ only in case: {', '.join(twice[:SHOWN])}.")
    if not stated:
        order = ", ".join(f"{i} {name}" for i, name in enumerate(made.classes[:SHOWN]))
        more = ", …" if len(made.classes) > SHOWN else ""
        intake.notes.append(
            "The documents give no order of the classes, so they are sorted by name "
            f"({order}{more})."
        )
    if made.task == "pose":
        made.keypoints = tuple(
            dict.fromkeys(point.name for thing in objects for point in thing.keypoints)
        )


def _write(made: _Draft, root: Path, folder: Path) -> Path:
    names = FreePaths()
    for one in made.placed:
        if one.found is not None and made.task == "classify" and not one.found.objects:
            one.found, one.split = None, ""
        elif one.found and one.found.objects and not _kept(one.found, made.task):
            made.intake.passed_over[NO_KEYPOINTS] += len(one.found)
            one.found, one.split = None, ""  # it has objects: not a background
        if one.found is None and (made.task == "classify" or not one.split):
            made.intake.images["without_annotation"] += 1
            _move(root, one.name, folder / names.take(UNLABELLED, one.name, made.intake))
        elif made.task == "classify":
            _write_class(made, root, folder, one, names)
        else:
            _write_labels(made, root, folder, one, names)
    if made.task == "classify" and not (folder / UNLABELLED).exists():
        return folder
    top = folder / "data.yaml"
    splits = [s for s in ("train", "val", "test") if any(one.split == s for one in made.placed)]
    more = {UNLABELLED: UNLABELLED} if (folder / UNLABELLED).exists() else {}
    text = describe(made.task, made.classes, made.keypoints, splits, **more)
    top.write_text(text, encoding="utf-8")
    return top


def _kept(found: Annotations, task: Task) -> bool:
    return task == "classify" or bool(fitting(found, task).objects)


def _write_class(made: _Draft, root: Path, folder: Path, one: _Placed, names: FreePaths) -> None:
    assert one.found is not None
    label, *further = [thing.label for thing in one.found.objects]
    if further:
        made.intake.passed_over[MORE_CLASSES] += len(further)
    made.intake.images["labelled"] += 1
    made.intake.objects["stored"] += 1
    target = names.take(f"{one.split}/{folder_name(label)}", one.name, made.intake)
    _move(root, one.name, folder / target)


def _write_labels(made: _Draft, root: Path, folder: Path, one: _Placed, names: FreePaths) -> None:
    place = names.take(f"images/{one.split}", one.name, made.intake)
    _move(root, one.name, folder / place)
    if one.found is None:  # without a label file it trains as a background
        made.intake.images["without_annotation"] += 1
        return
    kept = fitting(one.found, made.task)
    made.intake.passed_over.update(
        {NO_KEYPOINTS: len(one.found) - len(kept)} if len(kept) < len(one.found) else {}
    )
    made.intake.count_converted(one.found.objects, made.task)
    made.intake.images["labelled" if kept.objects else "empty"] += 1
    made.intake.objects["stored"] += len(kept)
    label = folder / "labels" / PurePosixPath(place).relative_to("images")
    label = label.with_name(f"{without_suffix(label.name)}.txt")
    label.parent.mkdir(parents=True, exist_ok=True)
    label.write_text(to_yolo(kept, made.classes, made.keypoints), encoding="utf-8")


def _images_alone(
    root: Path, sent: Submission, task: Task | None, folder: Path, intake: Intake
) -> tuple[Path, Intake]:
    """Write a dataset without annotations: a folder `unlabelled` and a data.yaml without splits."""
    why = Counter(described.why for described in sent.described)
    if why:
        counts = ", ".join(f"{n} {reason}" for reason, n in why.items())
        intake.notes.append(f"The upload contains no finished annotation: {counts}.")
    names = FreePaths()
    seen: dict[str, str] = {}
    for name, content in sorted(sent.contents.items()):
        if content in seen:
            intake.add_copies([seen[content], name])
            continue
        seen[content] = name
        intake.images["without_annotation"] += 1
        _move(root, name, folder / names.take(UNLABELLED, name, intake))
    intake.task = task or "detect"
    top = folder / "data.yaml"
    classes = tuple(dict.fromkeys(map(tidy, sent.classes)))
    text = describe(intake.task, classes, (), (), **{UNLABELLED: UNLABELLED})
    top.write_text(text, encoding="utf-8")
    return top, intake


def _move(root: Path, name: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.rename(root / name, target)
