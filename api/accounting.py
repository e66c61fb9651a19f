"""Response models of a correction: how each received annotation and image was handled."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class Row(BaseModel):
    """One revision of a dataset."""

    revision: int = Field(description="number of the revision; 0: as uploaded")
    data_path: str = Field(description="the value to give trainings and evaluations as the dataset")
    created_at: str
    task: str
    pictures: int | None
    annotated: int | None = Field(description="images that a person has annotated since the upload")
    to_review: int = Field(
        description="images left out of training until a person has reviewed them"
    )
    objects: int | None
    kept: bool = Field(
        description=(
            "false: the revision is deleted once there are enough newer revisions, unless a job "
            "or an evaluation uses it"
        )
    )


class ImageCounts(BaseModel):
    received: int = Field(description="images that were described, or sent without annotations")
    matched: int = Field(description="images that are in the dataset")
    new: int = Field(description="new images that are added to the dataset")
    unmatched: int = Field(description="images that match no image of the dataset, or several")


class ObjectCounts(BaseModel):
    received: int = Field(description="objects received, counted as stored or passed over")
    stored: int
    passed_over: dict[str, int] = Field(description="reason → number of objects")


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
        description="class with five or more objects that loses all of them → their number"
    )


class Corrected(Row):
    """What a correction changed."""

    created_at: str | None = Field(
        description="when the revision was created, ISO 8601, UTC; null: no revision was made"
    )  # type: ignore[assignment]
    dataset_id: str
    dry_run: bool = Field(description="true: nothing was changed")
    confirmation_required: bool = Field(
        description="whether the removal is so large that it needs confirm=true; only in a dry run"
    )
    repeated: bool = Field(
        description=(
            "true: everything was stored already, so no revision was made; this is the newest one"
        )
    )
    received: int = Field(description="images whose annotations were stored")
    new_pictures: int
    unchanged: int = Field(
        description="images with unchanged annotations; counted as accepted, unless only=changed"
    )
    unmatched_count: int
    unmatched: list[str] = Field(
        description="names of images that match no image of the dataset, or several"
    )
    unmatched_reasons: dict[str, str] = Field(description="name of an unmatched image → the reason")
    new_classes: list[str]
    accounting: Accounting = Field(description="how everything that was received was handled")
    left_as_they_are: int = Field(
        description="matched images without annotations, which stay as they are"
    )
    renamed: dict[str, str] = Field(
        description="new image whose name was already used → the name that it is stored under"
    )
    ignored_files: list[str] = Field(description="files of the zip that are not annotations")
    removes: Removes
    notes: list[str] = Field(description="sentences about assumptions")
    corrections: dict[str, Any] | None = Field(
        description=(
            "what people changed in the whole revision, by the source of the earlier "
            "annotations; null in a dry run"
        )
    )
