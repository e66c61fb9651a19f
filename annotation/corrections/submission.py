"""Takes corrections of one dataset, as JSON, document or zip, and builds a revision from each."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from sqlalchemy.orm import Session

from annotation.corrections.application import corrected, preview
from annotation.corrections.correction import Correction, CorrectionRules
from annotation.corrections.reader import read_correction
from annotation.corrections.revising import BuildProject, revise
from annotation.datasets import AnnotatedDatasets, upload_source
from annotation.history import is_upload, newest, revision_row
from annotation.image_records import ImageRecord
from annotation.known_names import names_of
from annotation.originals import adopt, originals
from annotation.tables import AnnotatedDataset
from dataset import zip_archive
from dataset.documents.reader import from_folder, from_json, parse
from dataset.documents.submission import Submission
from dataset.revisions import get_revision
from dataset.store import DatasetStore
from formats.annotations import Format
from settings import Settings


@dataclass(frozen=True)
class CorrectionPolicy:
    """The options with which a correction is read and applied.

    Attributes:
        form: Its file format; None: detected from the content.
        only_changed: Skip images whose annotations are unchanged.
        background: Whether an image that a document lists without annotations is a background.
        refuse_new: Reject classes that the dataset does not have.
        confirm: The client confirms the removal of many annotations.
        dry_run: Store nothing; return what would change.
        author: The person's name; empty if it is not known.
        check: See `AnnotationEntries.correct`.
        finish: If everything is stored already, build the revision that an interrupted request
            has not built.
        differs: The annotations differ from the stored ones, even if only by a rounding.
    """

    form: Format | None = None
    only_changed: bool = False
    background: bool = False
    refuse_new: bool = False
    confirm: bool = False
    dry_run: bool = False
    author: str = ""
    check: Callable[[Session], None] = lambda _: None
    finish: bool = False
    differs: bool = False


@dataclass(frozen=True)
class CorrectionSubmission:
    """Takes a correction of a dataset; one method per kind of request body.

    The methods read and write files: call them off the event loop. They return the response: the
    new revision (or the newest one if nothing changed), and what happened to each submitted image
    and object.

    Attributes:
        dataset_id: Id of the dataset.
        policy: The options of the correction.
        datasets, annotated: The stores of the dataset and its annotations.
        settings: The folder and the largest size of uploads.
        build_project: Builds the revision of an annotation tool's project.
    """

    dataset_id: str
    policy: CorrectionPolicy
    datasets: DatasetStore
    annotated: AnnotatedDatasets
    settings: Settings
    build_project: BuildProject

    def take_json(self, body: bytes) -> dict[str, Any]:
        """Take a JSON document.

        Raises:
            VisionLoopError: As `take` raises it, or the document cannot be read.
        """
        names, points = self.names()
        return self.take(from_json(parse(body, "The body"), self.policy.form, names, points))

    def take_document(self, file: IO[bytes], name: str) -> dict[str, Any]:
        """Take a single document, not in a zip; `name` is its file name.

        Raises:
            VisionLoopError: As `take` raises it, or the document cannot be read.
        """
        names, points = self.names()
        with self._temporary_folder() as folder:
            folder.joinpath(*zip_archive.safe_name(name)).write_bytes(file.read())
            return self.take(from_folder(folder, self.policy.form, names, points))

    def take_zip(self, file: IO[bytes]) -> dict[str, Any]:
        """Take a zip of documents or label files, and of new images, if any.

        Raises:
            VisionLoopError: As `take` raises it, or the zip cannot be unpacked or read.
        """
        names, points = self.names()
        classify = self.datasets.get(self.dataset_id)["task"] == "classify"
        with self._temporary_folder() as folder:
            unpacked = zip_archive.unpack(
                file, folder, self.settings.max_upload_bytes, self.settings.disk_reserve
            )
            sent = from_folder(unpacked.root, self.policy.form, names, points, classify)
            found = [finding.message for finding in unpacked.findings]
            return self.take(replace(sent, notes=[*found, *sent.notes]))

    def take(self, sent: Submission) -> dict[str, Any]:
        """Apply a submission that was read, atomically.

        Raises:
            DatasetNotFound: There is no such dataset.
            ValidationFailed: As `read_correction` raises it.
            Conflict: So many objects would be removed that the client must confirm it.
            BackendUnavailable: Other processes have locked the dataset for too long.
        """
        names, _ = self.names()
        images = self._images()
        correction = read_correction(images, sent, self._rules(names))
        unconfirmed = correction.needs_confirmation and not self.policy.confirm
        if self.policy.dry_run:
            row = self._expected_row(images, correction)
            return self._answer(row, correction, dry_run=True, confirmation_required=unconfirmed)
        if unconfirmed:
            raise correction.removes.error()
        if self.policy.differs or (self.policy.finish and self._is_unfinished()):
            correction.repeated = False
        if correction.repeated:
            number = newest(self.datasets, self.dataset_id)
        else:
            dataset = self._growing_dataset()
            with corrected(
                self.annotated, dataset, correction, self.policy.author, self.policy.check
            ):
                card = revise(self.annotated, self.datasets, dataset, self.build_project)
                number = card["revision"]
        revision = get_revision(self.datasets.local(self.dataset_id), number)
        row = revision_row(self.dataset_id, revision)
        return self._answer(row, correction, corrections=revision.corrections)

    def _rules(self, names: list[str]) -> CorrectionRules:
        return CorrectionRules(
            dataset=self.dataset_id,
            names=names,
            task=self.datasets.get(self.dataset_id)["task"],
            max_pixels=self.annotated.entries.max_pixels,
            only_changed=self.policy.only_changed,
            background=self.policy.background,
            refuse_new=self.policy.refuse_new,
        )

    def _answer(self, row: dict[str, Any], correction: Correction, **more: Any) -> dict[str, Any]:
        standard = {
            "dry_run": False,
            "confirmation_required": False,
            "repeated": correction.repeated,
            "corrections": None,
        }
        return {"dataset_id": self.dataset_id, **row, **standard, **correction.to_json(), **more}

    def names(self) -> tuple[list[str], list[str]]:
        """The dataset's class names and keypoint names."""
        return names_of(self.datasets.get(self.dataset_id), self._known_dataset())

    def _images(self) -> list[ImageRecord]:
        """The dataset's images. Unlike `_growing_dataset`, it adds no row for an upload."""
        dataset = self._known_dataset()
        if dataset is not None:
            return list(self.annotated.entries.records(dataset.id))
        return list(originals(self.datasets.open(self.dataset_id)))

    def _is_unfinished(self) -> bool:
        """Whether annotations are stored that no revision contains."""
        dataset = self._known_dataset()
        return dataset is not None and dataset.built < dataset.changes

    def _known_dataset(self) -> AnnotatedDataset | None:
        card = self.datasets.get(self.dataset_id)
        return self.annotated.find(card.get("source") or upload_source(self.dataset_id))

    def _growing_dataset(self) -> AnnotatedDataset:
        """The dataset's row in the annotation store; added for an upload that has none."""
        if is_upload(self.datasets, self.dataset_id):
            return adopt(self.annotated, self.datasets, self.dataset_id)
        return self.annotated.get(self.dataset_id)

    def _expected_row(self, images: list[ImageRecord], correction: Correction) -> dict[str, Any]:
        """The list entry of the revision that a correction would create."""
        number = newest(self.datasets, self.dataset_id) + (not correction.repeated)
        after = preview(images, correction)
        return {
            "revision": number,
            "data_path": f"{self.dataset_id}@{number}",
            "created_at": None,
            "task": self.datasets.get(self.dataset_id)["task"],
            "pictures": len(after),
            "annotated": sum(by_person for _, by_person, _ in after),
            "to_review": sum(not trains for _, _, trains in after),
            "objects": sum(len(found) for found, _, _ in after),
            "kept": True,
        }

    @contextmanager
    def _temporary_folder(self) -> Iterator[Path]:
        uploads = self.settings.paths.uploads
        uploads.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="dataset-", dir=uploads))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
