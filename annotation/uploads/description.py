"""Detects the format of an unpacked upload, which must describe exactly one dataset.

An upload with two descriptions is rejected; the error names both.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath

from annotation.uploads.document_dataset import write_dataset
from annotation.uploads.intake import Intake
from dataset import data_yaml
from dataset.class_folders import class_parent, is_class_tree
from dataset.data_yaml import descriptions
from dataset.dataset import Dataset
from dataset.documents.class_folder_annotations import MASKS, names_no_class
from dataset.documents.format_detection import LABEL_FOLDERS, format_of
from dataset.documents.reader import READ, from_folder, parse
from dataset.documents.submission import Submission
from dataset.image_files import is_junk, walk
from dataset.issues import LISTED, Finding, Findings
from errors import DatasetInvalid, ValidationFailed, VisionLoopError
from formats.xml_documents import xml_format
from models_store.description import Task

DOCUMENTS = frozenset({".json", ".xml", ".txt", ".names"})  # suffixes of possible annotations
_ANNOTATIONS = DOCUMENTS | {".yaml", ".yml", ".csv"}
MAX_DOCUMENTS = 50  # maximum number of further documents that are read if there is a description
MAX_DOCUMENT_BYTES = 64 * 2**20  # maximum bytes of such a document
MAX_LINES = 20  # maximum number of lines that are read of a text file
MAX_DEPTH = 4  # maximum number of folder levels that are searched for a description


@dataclass(frozen=True)
class Understood:
    """An upload whose format was detected.

    Attributes:
        top: The data.yaml or folder to inspect.
        form: The format: `yolo`, `folders`, `images`, or the documents' formats.
        intake: The counts of images and objects, if the dataset was converted from documents.
        task: The task that the documents' annotations fit; None: `inspect` determines it.
        findings: Further findings for the inspection's report.
    """

    top: Path
    form: str
    intake: Intake | None = None
    task: Task | None = None
    findings: tuple[Finding, ...] = ()


def understand(
    root: Path,
    task: Task | None,
    spare: Path,
    max_pixels: int,
    classes: Sequence[str] = (),
) -> Understood:
    """Detect the format of an unpacked upload.

    It is a dataset with a data.yaml, annotation documents with their images, one folder of images
    per class, or images alone.

    Args:
        root: Folder of the unpacked zip.
        task: The requested task, if any.
        spare: Folder to create for a dataset that is converted from documents.
        max_pixels: Maximum number of pixels of an image.
        classes: The classes to annotate; the upload is then images alone, in any folders.

    Raises:
        DatasetInvalid, ValidationFailed: It is none of these, or several.
    """
    if classes:
        return _to_annotate(root, task, spare, max_pixels, classes)
    described = find_description(root)
    if described is not None:
        others = _other_documents(root)
        if not others or _has_label_files(root):
            return Understood(described, "yolo", findings=_other_findings(described, others, root))
    class_folders = task in (None, "classify") and _class_folders(root)
    if class_folders and not any(path.suffix.lower() in DOCUMENTS for path in root.rglob("*")):
        return Understood(root, "folders", findings=_tables(root))
    sent = from_folder(root, None, (), (), classify=False)
    _refuse_tables(root, sent)
    if sent.described:
        if sent.forms == ("yolo",) and (root / "classes.txt").is_file():
            return Understood(root, "yolo")  # Label Studio exports YOLO without a data.yaml
        return _made(root, sent, task, spare, max_pixels)
    if class_folders:
        return Understood(root, "folders")
    if sent.images:
        return _made(root, sent, task, spare, max_pixels)
    raise DatasetInvalid(
        "The zip contains no data.yaml, no annotations with their images, no folders of images "
        f"per class, and no images. {READ}."
    )


def find_description(root: Path) -> Path | None:
    """The data.yaml in an unpacked zip; None if there is none.

    Raises:
        DatasetInvalid: There are several, of different datasets.
    """
    found = [file for folder in _folders(root) for file in descriptions(folder)]
    others = [file for file in found[1:] if not _same(found[0], file, root)]
    if others:
        names = [os.path.relpath(file, root) for file in (found[0], *others)]
        raise DatasetInvalid(
            f"The zip contains {len(names)} datasets: {', '.join(names[:5])}. Upload each in a "
            "separate zip, or combine them in one data.yaml that lists all of their folders "
            "(train: [a/images, b/images]). A class id must mean the same class in all of them."
        )
    return found[0] if found else None


def _to_annotate(
    root: Path, task: Task | None, spare: Path, max_pixels: int, classes: Sequence[str]
) -> Understood:
    """Images alone, with the classes that people are going to annotate."""
    others = [path for path in sorted(root.rglob("*")) if path.suffix.lower() in _ANNOTATIONS]
    if others:
        raise DatasetInvalid(
            f"'classes' is for images without annotations, but there is {others[0].name}. Leave "
            "out 'classes', or upload the images alone."
        )
    sent = from_folder(root, None, (), (), classify=False)
    return _made(root, replace(sent, classes=tuple(classes)), task, spare, max_pixels)


def _made(
    root: Path, sent: Submission, task: Task | None, spare: Path, max_pixels: int
) -> Understood:
    top, intake = write_dataset(root, sent, task, spare, max_pixels)
    return Understood(top, intake.form, intake, intake.task, intake.report_findings())


def _class_folders(root: Path) -> bool:
    """Whether there is one folder of images per class, not only folders such as `images`."""
    top = class_parent(root)
    folders = [path for path in top.iterdir() if path.is_dir()]
    named = [path for path in folders if not names_no_class(path.name)]
    return is_class_tree(root) and any(not _is_of_masks(path, folders) for path in named)


def _refuse_tables(root: Path, sent: Submission) -> None:
    """Raises DatasetInvalid if a text file lists images with values, in an unsupported format."""
    names = {PurePosixPath(name).name for name in sent.images}
    for name in sent.ignored:
        if not name.lower().endswith((".txt", ".csv")):
            continue
        with (root / name).open(encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in islice(file, MAX_LINES)]
        for number, line in enumerate(lines):
            image, *more = re.split(r"[\s,;]+", line, maxsplit=1)
            below = lines[number + 1 : number + 2]  # WIDER FACE: a name, then numbers
            values = more or [text for text in below if re.fullmatch(r"[-\d.\s]+", text)]
            if PurePosixPath(image).name in names and any(
                re.match(r"[-\d]", one) for one in values
            ):
                raise DatasetInvalid(
                    f"{name}, line {number + 1}, has values for {image[:100]} in a format that "
                    f"is not supported. {READ}. If the values are not annotations, remove the "
                    "file."
                )


def _tables(root: Path) -> tuple[Finding, ...]:
    """The finding about tables beside class folders; such tables are not read."""
    names = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.csv"))]
    if not names:
        return ()
    message = (
        f"The names of the folders were read as the classes; {', '.join(names[:3])} was not read."
    )
    return (Finding("other_documents", message, len(names), tuple(names[:LISTED])),)


def _is_of_masks(folder: Path, others: Sequence[Path]) -> bool:
    """Whether a folder is named like a mask folder and shares image names with another one."""
    if not MASKS.fullmatch(folder.name):
        return False
    stems = {path.stem for path in folder.iterdir()}
    return any(
        not stems.isdisjoint(path.stem for path in other.iterdir())
        for other in others
        if other != folder
    )


def _other_documents(root: Path) -> list[str]:
    """Annotation documents in formats other than YOLO; at most MAX_DOCUMENTS files are read."""
    found = []
    files = (path for path in sorted(root.rglob("*")) if path.suffix.lower() in (".json", ".xml"))
    for path in islice(files, MAX_DOCUMENTS):
        if path.stat().st_size > MAX_DOCUMENT_BYTES:
            continue
        data, other = path.read_bytes(), False
        if path.suffix.lower() == ".xml":
            other = xml_format(data) is not None
        else:
            with suppress(ValidationFailed):
                other = format_of(parse(data, path.name)) in ("coco", "labelme", "label_studio")
        if other:
            found.append(path.relative_to(root).as_posix())
    return found


def _has_label_files(root: Path) -> bool:
    """Whether a text file is where label files are: in a `labels` folder, or beside its image."""
    for path in root.rglob("*.[tT][xX][tT]"):
        inside = {part.lower() for part in path.relative_to(root).parts[:-1]}
        if inside & LABEL_FOLDERS:
            return True
        if any(path.with_suffix(suffix).is_file() for suffix in (".jpg", ".jpeg", ".png", ".bmp")):
            return True
    return False


def _other_findings(described: Path, others: list[str], root: Path) -> tuple[Finding, ...]:
    if not others:
        return ()
    name = os.path.relpath(described, root)
    message = (
        f"The label files that {name} describes were read. The annotations in "
        f"{', '.join(others[:3])} were not read: to have them read, upload the zip without "
        f"{name}."
    )
    return (Finding("other_documents", message, len(others), tuple(others[:LISTED])),)


def unused_images(root: Path, dataset: Dataset) -> tuple[Finding, ...]:
    """The finding about images of the upload that the dataset does not use."""
    findings = Findings()
    used = {image for images in dataset.splits.values() for image in images}
    used.update(dataset.unlabelled)
    for image in walk(root, [root], Findings()):
        if image not in used:
            findings.add("unused_image", os.path.relpath(image, root))
    return findings.result()


def refuse_two(found: Understood, unused: Sequence[Finding]) -> None:
    """Raises DatasetInvalid if a description omits images that other documents may describe."""
    others = [finding for finding in found.findings if finding.kind == "other_documents"]
    if others and unused:
        raise DatasetInvalid(
            f"{found.top.name} describes only some of the zip's images. It omits "
            f"{unused[0].count} ({unused[0].examples[0]} …), which {others[0].examples[0]} may "
            "describe, so the zip contains two datasets. Upload each in a separate zip."
        )


def count_images(root: Path) -> int:
    """The number of image files in an upload."""
    return sum(1 for _ in walk(root, [root], Findings()))


def _folders(root: Path) -> Iterator[Path]:
    """`root` and its subfolders down to MAX_DEPTH levels, upper ones first."""
    level = [root]
    for _ in range(MAX_DEPTH):
        yield from level
        level = sorted(
            path
            for folder in level
            for path in folder.iterdir()
            if path.is_dir() and not is_junk(path.name)
        )


def _same(one: Path, other: Path, root: Path) -> bool:
    """Whether two descriptions have the same classes and images."""
    try:
        return _described(one, root) == _described(other, root)
    except VisionLoopError:
        return False


def _described(file: Path, root: Path) -> object:
    findings = Findings()
    described = data_yaml.describe(file, [root], findings)
    splits = data_yaml.images(described, [root], findings)
    return described.names, described.keypoints, {key: set(found) for key, found in splits.items()}
