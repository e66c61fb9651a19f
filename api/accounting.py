"""Response models of a correction: how each received annotation and image was handled."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class Row(BaseModel):
    """One revision of a dataset."""

    revision: int = Field(description="0: an upload as it came")
    data_path: str = Field(description="what trainings and evaluations take as dataset")
    created_at: str
    task: str
    pictures: int | None
    annotated: int | None = Field(description="images that a person has annotated since the upload")
    to_review: int = Field(
        description="images left out of training until a person has reviewed them"
    )
    objects: int | None
    kept: bool = Field(
        description="false: deleted to make room for newer ones, unless something names it"
    )


class ImageCounts(BaseModel):
    received: int = Field(description="images that were described, or sent without annotations")
    matched: int = Field(description="that are in the dataset")
    new: int = Field(description="that are added to it")
    unmatched: int = Field(description="that match no image of the dataset, or several")


class ObjectCounts(BaseModel):
    received: int = Field(description="objects received: stored and passed over")
    stored: int
    passed_over: dict[str, int] = Field(description="reason: how many")


class Accounting(BaseModel):
    """How everything received was handled; nothing is left out."""

    images: ImageCounts = Field(description="received = matched + new + unmatched")
    objects: ObjectCounts = Field(description="received = stored + passed over")


class Removes(BaseModel):
    """What a correction removes from the dataset."""

    objects: int = Field(
        description="removed objects, summed over the images that have fewer than before"
    )
    of: int = Field(description="objects that the dataset had before")
    classes: dict[str, int] = Field(
        description="classes that lose all of their objects, if they had five or more: how many"
    )


class Corrected(Row):
    """What a correction changed."""

    created_at: str | None = Field(description="null: no revision was made")  # type: ignore[assignment]
    dataset_id: str
    dry_run: bool = Field(description="true: nothing was changed")
    confirmation_required: bool = Field(
        description="it removes so much that it needs confirm=true; only in a dry run"
    )
    repeated: bool = Field(
        description="all of it was there before: no revision was made, this is the newest"
    )
    received: int = Field(description="images whose annotations were stored")
    new_pictures: int
    unchanged: int = Field(
        description="images that came back unchanged; counted as accepted, unless only=changed"
    )
    unmatched_count: int
    unmatched: list[str] = Field(description="names that match no image of the dataset, or several")
    unmatched_reasons: dict[str, str] = Field(description="the reason of each of these")
    new_classes: list[str]
    accounting: Accounting = Field(description="how everything received was handled")
    left_as_they_are: int = Field(
        description="matched images without annotations, which stay as they are"
    )
    renamed: dict[str, str] = Field(
        description="new images whose name was taken: the name they are stored under"
    )
    ignored_files: list[str] = Field(description="files of the zip that are not annotations")
    removes: Removes
    notes: list[str] = Field(description="assumptions")
    corrections: dict[str, Any] | None = Field(
        description="of the whole revision: what people changed, by the source of the earlier "
        "annotations; null in a dry run"
    )
