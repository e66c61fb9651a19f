"""Stores an uploaded zip as a dataset, atomically."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from annotation.uploads.description import count_images, refuse_two, understand, unused_images
from annotation.uploads.intake import intake_of
from dataset import image_scan, zip_archive
from dataset.documents.reader import READ
from dataset.inspection import inspect
from dataset.report import report
from dataset.store import DATA, DatasetStore
from errors import DatasetInvalid
from models_store.description import Task

MADE = "made"  # folder of a dataset converted from documents, until it is renamed to `data`


def add_upload(
    store: DatasetStore, file: Path | IO[bytes], name: str, task: Task | None = None
) -> dict[str, Any]:
    """Unpack and inspect an uploaded zip, and store it as a dataset with a new id.

    Reads and writes files: call it off the event loop.

    Args:
        store: The store for the dataset.
        file: The zip.
        name: The display name.
        task: The task; None: the one that the annotations fit.

    Returns:
        The dataset's card.

    Raises:
        DatasetInvalid, PayloadTooLarge: The zip is invalid or too large; nothing is stored.
    """
    name = name.strip()[:100] or "dataset"
    digest = _sha256(file)
    with store.staged() as staged:
        (staged / DATA).mkdir()
        unpacked = zip_archive.unpack(file, staged / DATA, store.max_upload, store.reserve)
        found = understand(unpacked.root, task, staged / MADE, store.max_pixels)
        if found.intake is not None and found.intake.form == "images":
            _refuse_unread(unpacked.perhaps_labels)
        if found.intake is not None:  # the images were moved to MADE; DATA holds documents only
            shutil.rmtree(staged / DATA)
            (staged / MADE).rename(staged / DATA)
            top = staged / DATA / found.top.relative_to(staged / MADE)
        else:
            top = found.top
        dataset = inspect(top, task or found.task, [staged])
        unused = unused_images(unpacked.root, dataset) if found.intake is None else ()
        refuse_two(found, unused)
        findings = (*unpacked.findings, *found.findings, *unused)
        dataset = replace(dataset, inspection_findings=(*dataset.inspection_findings, *findings))
        intake = found.intake or intake_of(dataset, found.form, count_images(unpacked.root))
        card: dict[str, Any] = {
            "size_bytes": unpacked.size,
            "files": unpacked.files,
            "skipped_files": unpacked.skipped,
            "description": os.path.relpath(top, staged),
            "upload_sha256": digest,
        }
        card |= report(dataset) | intake.to_json()
        image_scan.forget(dataset.root)
        return store.keep(staged, name, card)


def _sha256(file: Path | IO[bytes]) -> str:
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return _sha256(opened)
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
            f"The zip contains images and {shown}, which may contain their annotations in a "
            f"format that is not supported. {READ}. To annotate the images here, upload the "
            "images alone."
        )
