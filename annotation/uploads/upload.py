"""Stores an upload, a zip or several files, as a dataset, atomically."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from annotation.uploads.description import count_images, refuse_two, understand, unused_images
from annotation.uploads.intake import intake_of
from annotation.uploads.loose_files import LooseFile, place
from dataset import image_scan, zip_archive
from dataset.class_folders import split_folders
from dataset.documents.reader import READ
from dataset.image_scan import Progress, no_progress
from dataset.inspection import inspect
from dataset.report import report
from dataset.store import DATA, DatasetStore
from errors import DatasetInvalid
from models_store.description import Task

MADE = "made"  # folder of a dataset converted from documents, until it is renamed to `data`

Content = Path | IO[bytes] | Sequence[LooseFile]
"""What is uploaded: a zip, or several files."""


@dataclass(frozen=True)
class UploadOptions:
    """What the client says about an upload.

    Attributes:
        name: The display name.
        task: The task; None: the one that the annotations fit.
        classes: The classes of images without annotations, in order; empty: none is known yet.
        key: Names the upload; what is sent again with its key is the same dataset. Empty: each
            upload is a dataset.
    """

    name: str
    task: Task | None = None
    classes: tuple[str, ...] = ()
    key: str = ""


def add_upload(
    store: DatasetStore, file: Content, name: str, task: Task | None = None
) -> dict[str, Any]:
    """Store an upload as a dataset with a new id; as `store_upload`. Returns its card."""
    return store_upload(store, file, UploadOptions(name, task))


def keyed_id(store: DatasetStore, content: Content, options: UploadOptions) -> str:
    """The id of the dataset that an upload with a key becomes, whichever machine receives it.

    It depends on the key, the options and the content. Empty without a key.
    """
    if not options.key:
        return ""
    if isinstance(content, Sequence):
        files = [[file.name, _sha256(file.content)] for file in content]
    else:
        files = [["", _sha256(content)]]
    name = _shown_name(options)
    said = json.dumps([options.key, name, options.task, options.classes, files])
    return store.new_id(name, hashlib.sha256(said.encode()).digest())


def store_upload(
    store: DatasetStore,
    content: Content,
    options: UploadOptions,
    dataset_id: str = "",
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Unpack and inspect an upload, and store it as a dataset.

    Reads and writes files: call it off the event loop.

    Args:
        store: The store for the dataset.
        content: The zip or the files.
        options: What the client says about it.
        dataset_id: Id of the new dataset; empty: a new one.
        progress: Called while the images are read, with their number so far and in all. An
            exception that it raises ends the upload, and nothing is stored.

    Returns:
        The dataset's card.

    Raises:
        DatasetInvalid, PayloadTooLarge: The upload is invalid or too large; nothing is stored.
    """
    name = _shown_name(options)
    digest = "" if isinstance(content, Sequence) else _sha256(content)
    with store.staged() as staged:
        (staged / DATA).mkdir()
        if isinstance(content, Sequence):
            unpacked = place(content, staged / DATA, store.max_upload, store.reserve)
        else:
            unpacked = zip_archive.unpack(content, staged / DATA, store.max_upload, store.reserve)
        found = understand(
            unpacked.root, options.task, staged / MADE, store.max_pixels, options.classes
        )
        if found.intake is not None and found.intake.form == "images":
            _refuse_unread(unpacked.perhaps_labels)
        if found.intake is not None:  # the images were moved to MADE; DATA holds documents only
            shutil.rmtree(staged / DATA)
            (staged / MADE).rename(staged / DATA)
            top = staged / DATA / found.top.relative_to(staged / MADE)
        else:
            top = found.top
        task = options.task or found.task
        # A folder of images without splits may be any; a class is meant if there are two.
        one = task == "classify" or (top.is_dir() and bool(split_folders(top)))
        dataset = inspect(top, task, [staged], min_classes=1 if one else 2)
        unused = unused_images(unpacked.root, dataset) if found.intake is None else ()
        refuse_two(found, unused)
        findings = (*unpacked.findings, *found.findings, *unused)
        dataset = replace(dataset, inspection_findings=(*dataset.inspection_findings, *findings))
        try:
            scanned = dataset.scan(progress).images
            if found.intake is not None:  # only the headers of its images were read before
                found.intake.count_broken(
                    sum(bool(scanned[one].problem) for one in dataset.unlabelled)
                )
            intake = found.intake or intake_of(dataset, found.form, count_images(unpacked.root))
            card: dict[str, Any] = {
                "size_bytes": unpacked.size,
                "files": unpacked.files,
                "skipped_files": unpacked.skipped,
                "description": os.path.relpath(top, staged),
                "upload_sha256": digest,
            }
            card |= report(dataset) | intake.to_json()
            kept = store.keep(staged, name, card, dataset_id)
        except BaseException:
            image_scan.forget(dataset.root)  # of a folder that is deleted
            raise
        # The next reader of the images need not decode them again.
        inside = dataset.root.relative_to(staged.resolve())
        image_scan.move(dataset.root, (store.folder / kept["id"]).resolve() / inside)
        return kept


def _shown_name(options: UploadOptions) -> str:
    return options.name.strip()[:100] or "dataset"


def _sha256(file: Path | IO[bytes]) -> str:
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return _sha256(opened)
    file.seek(0)
    found = hashlib.sha256()
    while part := file.read(2**20):
        found.update(part)
    file.seek(0)
    return found.hexdigest()


def _refuse_unread(names: Sequence[str]) -> None:
    """Raises DatasetInvalid if an upload of images alone has files that may be annotations."""
    if names:
        shown = ", ".join(names[:5])
        raise DatasetInvalid(
            f"The upload contains images and {shown}, which may contain their annotations in a "
            f"format that is not supported. {READ}. To annotate the images here, upload the "
            "images alone."
        )
