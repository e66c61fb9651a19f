"""Adds images to a dataset that people annotate; each file is accounted for."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from annotation.corrections.revising import BuildProject, revise
from annotation.datasets import AnnotatedDatasets
from annotation.entries import image_entry
from annotation.history import is_upload
from annotation.image_records import ORIGINAL, PRELABEL_RANK
from annotation.originals import NOT_ANNOTATED, adopt
from annotation.tables import AnnotatedDataset, AnnotationEntry
from annotation.uploads.loose_files import place
from annotation.uploads.upload import Content
from dataset import zip_archive
from dataset.documents.image_names import comparable
from dataset.image_files import suffix_of, walk
from dataset.image_scan import BIGGEST, decode_fully
from dataset.issues import Findings
from dataset.store import DatasetStore
from errors import DatasetInvalid, VisionLoopError
from formats.annotations import Annotations
from inference.images import check_header
from settings import Settings

Outcome = Literal["taken", "duplicate", "refused"]
OUTCOMES: tuple[Outcome, ...] = ("taken", "duplicate", "refused")
ANNOTATIONS = frozenset({".json", ".xml", ".txt", ".yaml", ".yml", ".csv", ".names"})


@dataclass(frozen=True)
class ReceivedImage:
    """What became of an image file.

    Attributes:
        name: Its path in the upload.
        outcome: `taken`, `duplicate` (the dataset, or the upload, has it already) or `refused`.
        content: SHA-256 of the file; empty if it was refused.
        reason: Why it was not taken, or has another name now; else empty.
    """

    name: str
    outcome: Outcome
    content: str = ""
    reason: str = ""


class ImageIntake:
    """Adds images to one dataset. Its methods read and write files: call them off the event loop.

    Args:
        datasets, annotated: The stores of the dataset and its annotations.
        settings: The folder and the largest size of uploads.
        build_project: Builds the revision of an annotation tool's project.
    """

    def __init__(
        self,
        datasets: DatasetStore,
        annotated: AnnotatedDatasets,
        settings: Settings,
        build_project: BuildProject,
    ) -> None:
        self._datasets = datasets
        self._annotated = annotated
        self._settings = settings
        self._build_project = build_project

    def add(self, dataset_id: str, content: Content) -> dict[str, Any]:
        """Add the images of a zip, or several, to a dataset; they wait for annotation.

        The images that were taken are in a new revision. What the dataset has already is not
        stored again, so an upload that is sent once more changes nothing.

        Returns:
            `revision`, the newest one; `images`, a row per file; and `counts` per outcome.

        Raises:
            DatasetNotFound: There is no such dataset.
            DatasetInvalid, PayloadTooLarge: The upload is invalid, or has annotations.
            BackendUnavailable: Other processes have locked the dataset for too long.
        """
        card = self._datasets.get(dataset_id)
        with self._unpacked(content) as (files, skipped):
            dataset = self._growing(dataset_id)
            known = self._annotated.entries.contents(dataset.id)
            names = {comparable(name) for name in self._annotated.entries.names(dataset.id)}
            rows: list[ReceivedImage] = []
            entries: list[AnnotationEntry] = []
            for name, path in files:
                row, entry = self._take(dataset.id, name, path, known, names)
                rows.append(row)
                if entry is not None:
                    entries.append(entry)
                    known.add(row.content)
            if entries:
                with self._added(dataset, entries):
                    card = revise(self._annotated, self._datasets, dataset, self._build_project)
        counts = Counter(row.outcome for row in rows)
        return {
            "dataset_id": dataset_id,
            "revision": card.get("revision", 0),
            "counts": {outcome: counts[outcome] for outcome in OUTCOMES},
            "skipped_files": skipped,
            "images": [asdict(row) for row in rows],
        }

    @contextmanager
    def _added(
        self, dataset: AnnotatedDataset, entries: Sequence[AnnotationEntry]
    ) -> Iterator[None]:
        """Add entries, as a context; if the block raises, they and their files are deleted."""
        store = self._annotated.entries
        keys = [entry.key for entry in entries]
        files = [store.file(dataset.id, str(entry.content), entry.suffix) for entry in entries]
        try:
            store.add_images(dataset.id, entries)
            yield
        except BaseException:
            store.remove(dataset.id, keys)
            for file in files:
                file.unlink(missing_ok=True)
            raise

    def _growing(self, dataset_id: str) -> AnnotatedDataset:
        if is_upload(self._datasets, dataset_id):
            return adopt(self._annotated, self._datasets, dataset_id)
        return self._annotated.get(dataset_id)

    def _take(
        self, dataset_id: str, name: str, path: Path, known: set[str], names: set[str]
    ) -> tuple[ReceivedImage, AnnotationEntry | None]:
        """What becomes of a file, and the entry of an image that is taken, whose file is stored.

        Args:
            dataset_id: Id of the dataset.
            name, path: The file.
            known: SHA-256 of the images that are there.
            names: Their names as `comparable`; that of the image is added.
        """
        try:
            if path.stat().st_size > BIGGEST:
                raise DatasetInvalid(f"The file is larger than {BIGGEST // 2**20} MiB.")
            data = path.read_bytes()
            content = sha256(data).hexdigest()
            if content in known:
                reason = "the dataset has an image with the same content"
                return ReceivedImage(name, "duplicate", content, reason), None
            suffix_of(data)
            size = check_header(data, self._settings.max_pixels)
            decode_fully(data, self._settings.max_pixels)
        except VisionLoopError as error:
            return ReceivedImage(name, "refused", reason=error.message), None
        content, suffix = self._annotated.entries.keep(dataset_id, data)
        kept_as = _free_name(name, content, names)
        entry = image_entry(
            "original",
            content,
            suffix,
            Annotations(kept_as, *size),
            rank=PRELABEL_RANK,
            document={"by": ORIGINAL, "name": kept_as, "split": "", **NOT_ANNOTATED},
        )
        reason = "" if kept_as == name else f"kept as {kept_as}: another image has its name"
        return ReceivedImage(name, "taken", content, reason), entry

    @contextmanager
    def _unpacked(self, content: Content) -> Iterator[tuple[list[tuple[str, Path]], int]]:
        """The names and files of the images, and the number of other files.

        Raises:
            DatasetInvalid: There are no images, or there are annotations.
        """
        uploads, bounds = self._settings.paths.uploads, self._settings
        uploads.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="dataset-", dir=uploads) as folder:
            unpack = place if isinstance(content, Sequence) else zip_archive.unpack
            found = unpack(
                content,  # type: ignore[arg-type]
                Path(folder),
                bounds.max_upload_bytes,
                bounds.disk_reserve,
            )
            root = found.root
            _refuse_annotations(root)
            images = walk(root, [root], Findings())
            files = [(path.relative_to(root).as_posix(), path) for path in images]
            if not files:
                raise DatasetInvalid("There are no images. Send JPEG, PNG, WebP, BMP or TIFF.")
            yield files, found.skipped


def _free_name(name: str, content: str, names: set[str]) -> str:
    """The name of a new image: its own, unless another one has it. It is added to `names`.

    Annotations that are sent later name their image, so two must not have the same name.
    """
    path, found, length = PurePosixPath(name), name, 8
    while comparable(found) in names:
        found = str(path.with_name(f"{path.stem}-{content[:length]}{path.suffix}"))
        length += 8
    names.add(comparable(found))
    return found


def _refuse_annotations(root: Path) -> None:
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() in ANNOTATIONS:
            raise DatasetInvalid(
                f"{path.relative_to(root).as_posix()[:200]} is not an image, and nothing was "
                "added. Send annotations, with their new images in the same zip, to POST "
                "/api/datasets/{id}/annotations."
            )
