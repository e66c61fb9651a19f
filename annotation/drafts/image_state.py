"""What is known about an image of a dataset: its annotations by people and by models."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import select

from annotation.confidence_bands import Bands
from annotation.datasets import AnnotatedDatasets, upload_source
from annotation.drafts.form import base_of, to_shapes
from annotation.entries import source_annotation
from annotation.history import exported, newest
from annotation.image_records import (
    AUTHOR,
    HUMAN_KINDS,
    ORIGINAL,
    ORIGINAL_RANK,
    PERSON,
    ImageRecord,
    effective,
)
from annotation.known_names import names_of
from annotation.originals import originals
from annotation.prelabels import prelabels_until
from annotation.tables import AnnotatedDataset, AnnotationEntry
from database import now
from dataset.store import DatasetStore
from errors import NotFound
from formats.annotation_tools import TOOLS
from formats.annotations import Annotations
from models_store.description import Task

Source = Literal["all", "person", "model"]

_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class ImageState:
    """The annotations of one image.

    Attributes:
        content: SHA-256 of its file.
        name: Its path as users know it.
        split: Its split; empty if none is assigned yet.
        size: Width and height in pixels after EXIF rotation.
        stored: The annotations by people, or of the upload; None if there are none.
        by: Who made them: a person's name, `person` if it is not known, or `original`; empty if
            nobody has annotated the image.
        at: When they arrived; empty: with the upload, or not known.
        prelabels: The newest prediction of a model; None if there is none.
        model_id: The model.
    """

    content: str
    name: str
    split: str
    size: tuple[int, int]
    stored: Annotations | None = None
    by: str = ""
    at: str = ""
    prelabels: Annotations | None = None
    model_id: str = ""

    @property
    def base(self) -> str:
        """Names the stored annotations, see `form.base_of`."""
        return base_of(self.stored)


@dataclass(frozen=True)
class ImageReader:
    """Reads the annotations of single images. Reads files: call it off the event loop.

    Attributes:
        datasets, annotated: The stores of the datasets and their annotations.
    """

    datasets: DatasetStore
    annotated: AnnotatedDatasets

    def current(self, dataset_id: str, content: str) -> ImageState:
        """The newest annotations of an image.

        Raises:
            DatasetNotFound, NotFound: There is no such dataset or image.
        """
        card = self.datasets.get(dataset_id)
        dataset = self.known(dataset_id)
        if dataset is None:
            record = _originals(self.datasets, dataset_id, card["created_at"]).get(content)
            if record is None:
                raise _unknown(dataset_id, content)
            return replace(_state(record), **self._prelabels_of_tools(content, card["task"]))
        return self._current(dataset, card["task"], content)

    def at(self, dataset_id: str, content: str, revision: int) -> ImageState:
        """The annotations of an image in a revision.

        Raises:
            DatasetNotFound, NotFound: There is no such dataset, revision or image.
        """
        for record in exported(self.datasets, dataset_id, revision).records:
            if record.content == content:
                return _state(record)
        raise _unknown(dataset_id, content, f" in revision {revision}")

    def describe(
        self, dataset_id: str, content: str, revision: int | None = None, source: Source = "all"
    ) -> dict[str, Any]:
        """An image for the annotator: its sizes, the dataset's classes, its objects.

        Args:
            dataset_id: Id of the dataset.
            content: SHA-256 of the image's file.
            revision: Number of a revision; None: the newest annotations, in a revision or not.
            source: Whose objects are in the answer.

        Raises:
            DatasetNotFound, NotFound: There is no such dataset, revision or image.
        """
        card = self.datasets.get(dataset_id)
        dataset = self.known(dataset_id)
        names, points = names_of(card, dataset)
        options = dataset.options if dataset is not None else {}
        bands = Bands.model_validate(options.get("bands") or {})
        if revision is None:
            state = self.current(dataset_id, content)
        else:
            state = self.at(dataset_id, content, revision)
        stored, prelabels = state.stored, state.prelabels
        return {
            "dataset_id": dataset_id,
            "content": state.content,
            "name": state.name,
            "split": state.split or None,
            "width": state.size[0],
            "height": state.size[1],
            "task": card["task"],
            "classes": list(dict.fromkeys([*names, *card["classes"]])),
            "keypoint_names": points,
            "revision": self._newest(dataset_id) if revision is None else revision,
            "base": state.base,
            "annotated": stored is not None,
            "by": state.by or None,
            "at": state.at or None,
            "model_id": state.model_id or None,
            "bands": bands.model_dump(),
            "objects": to_shapes(stored, "person", state.by)
            if stored is not None and source != "model"
            else [],
            "suggestions": to_shapes(prelabels, "model", state.model_id, bands)
            if prelabels is not None and source != "person"
            else [],
        }

    def file(self, dataset_id: str, content: str) -> Path:
        """The file of an image.

        Raises:
            DatasetNotFound, NotFound: There is no such dataset or image.
        """
        try:
            return self.annotated.entries.image_path(dataset_id, content)
        except NotFound:
            card = self.datasets.get(dataset_id)
            if self.known(dataset_id) is not None:
                raise
            record = _originals(self.datasets, dataset_id, card["created_at"]).get(content)
            if record is None:
                raise
            return record.file

    def known(self, dataset_id: str) -> AnnotatedDataset | None:
        """The row of a dataset; None for an upload whose annotations were never changed."""
        card = self.datasets.get(dataset_id)
        return self.annotated.find(card.get("source") or upload_source(dataset_id))

    def _newest(self, dataset_id: str) -> int | None:
        try:
            return newest(self.datasets, dataset_id)
        except NotFound:
            return None

    def _current(self, dataset: AnnotatedDataset, task: Task, content: str) -> ImageState:
        row = AnnotationEntry
        query = select(row).where(
            row.dataset_id == dataset.id, row.content == content, row.annotations.is_not(None)
        )
        with self.annotated.database.read() as session:
            rows = list(session.scalars(query.order_by(row.rank, row.stamp, row.updated_at)))
        if not rows:
            raise _unknown(dataset.id, content)
        found = [source_annotation(entry) for entry in rows]
        sized = Annotations.from_json(found[-1].annotations)
        named = [str(one.origin["name"]) for one in found if one.origin.get("name")]
        splits = [str(one.origin["split"]) for one in found if one.origin.get("split")]
        state = ImageState(
            content,
            named[0] if named else f"{content}{rows[0].suffix}",
            splits[0] if splits else "",
            (sized.width, sized.height),
        )
        last = effective(found)
        if last.kind in HUMAN_KINDS:
            by = str(last.origin.get(AUTHOR) or PERSON)
            stored = Annotations.from_json(last.annotations)
            state = replace(state, stored=stored, by=by, at=last.at)
        elif last.kind == "original" and last.rank == ORIGINAL_RANK:
            state = replace(state, stored=Annotations.from_json(last.annotations), by=ORIGINAL)
        models = [one for one in found if one.kind == "model"]
        if models:
            guessed = Annotations.from_json(models[-1].annotations)
            return replace(state, prelabels=guessed, model_id=str(models[-1].origin.get("by", "")))
        return replace(state, **self._prelabels_of_tools(content, task))

    def _prelabels_of_tools(self, content: str, task: Task) -> dict[str, Any]:
        """The newest prediction that an annotation tool was sent for an image, as fields."""
        with self.annotated.database.read() as session:
            rows = prelabels_until(session, content, now())
        fit = [row for row in rows if row["tool"] in TOOLS and TOOLS[row["tool"]].task == task]
        if not fit:
            return {}
        found = Annotations.from_json(fit[0]["annotations"])
        return {"prelabels": found, "model_id": fit[0]["by"]}


def _unknown(dataset_id: str, content: str, where: str = "") -> NotFound:
    return NotFound(
        f"No image {content[:64]!r} in '{dataset_id[:80]}'{where}. Images are named by the SHA-256 "
        "of their files, as the annotation queue and diffs name them."
    )


def _state(record: ImageRecord) -> ImageState:
    found = record.annotations
    state = ImageState(
        record.content,
        record.name or record.file.name,
        record.split,
        (found.width, found.height),
    )
    if record.by == PERSON or (record.by == ORIGINAL and record.trains):
        state = replace(state, stored=found, by=record.author or record.by)
        if record.before is not None and record.before_by != ORIGINAL:
            state = replace(state, prelabels=record.before, model_id=record.before_by)
        return state
    if record.by == ORIGINAL:
        return state
    return replace(state, prelabels=found, model_id=record.by)


def _originals(
    datasets: DatasetStore, dataset_id: str, created_at: str
) -> Mapping[str, ImageRecord]:
    """SHA-256 → record of each image of an upload; `created_at` tells it from another of its id."""
    with _one_at_a_time:  # the first call reads all label files
        return _read_originals(datasets, dataset_id, created_at)


@lru_cache(maxsize=2)
def _read_originals(
    datasets: DatasetStore, dataset_id: str, created_at: str
) -> Mapping[str, ImageRecord]:
    return {record.content: record for record in originals(datasets.open(dataset_id))}
