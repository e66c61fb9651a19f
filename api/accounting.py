"""What became of everything that came: the answer to a correction."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class Row(BaseModel):
    revision: int = Field(description="0: an upload as it came")
    data_path: str = Field(description="what trainings and evaluations take")
    created_at: str
    task: str
    pictures: int | None
    annotated: int | None = Field(description="pictures with a person's word since the upload")
    to_review: int = Field(description="pictures left out of training until a person has looked")
    objects: int | None
    kept: bool = Field(description="false: makes room for newer ones, unless something names it")


class ImageCounts(BaseModel):
    received: int = Field(description="images that were described, or came without a word")
    matched: int = Field(description="that the data set has")
    new: int = Field(description="that join it")
    unmatched: int = Field(description="that are none of the data set's, or several")


class ObjectCounts(BaseModel):
    received: int = Field(description="objects that came: stored and passed over")
    stored: int
    passed_over: dict[str, int] = Field(description="reason: how many")


class Accounting(BaseModel):
    """What became of all that came: nothing of it is left out."""

    images: ImageCounts = Field(description="received = matched + new + unmatched")
    objects: ObjectCounts = Field(description="received = stored + passed over")


class Removes(BaseModel):
    objects: int = Field(description="fewer than before, over the images that have fewer")
    of: int = Field(description="objects that were marked in the data set before")
    classes: dict[str, int] = Field(
        description="classes of five objects or more of which none is left: how many there were"
    )


class Corrected(Row):
    created_at: str | None = Field(description="null: nothing was made")  # type: ignore[assignment]
    dataset_id: str
    dry_run: bool = Field(description="what would happen: nothing was changed")
    confirmation_required: bool = Field(
        description="it removes so much that it needs confirm=true; only a dry run tells it so"
    )
    repeated: bool = Field(
        description="a person had said all of it before: no revision was made, this is the newest"
    )
    received: int = Field(description="images whose annotations were taken")
    new_pictures: int
    unchanged: int = Field(
        description="images that came back as they were; counted as accepted, unless only=changed"
    )
    unmatched_count: int
    unmatched: list[str] = Field(description="names that are no image's here, or several's")
    unmatched_reasons: dict[str, str] = Field(description="of these: why")
    new_classes: list[str]
    accounting: Accounting = Field(description="what became of all that came")
    left_as_they_are: int = Field(description="matched images of which nothing is said")
    renamed: dict[str, str] = Field(
        description="new images whose name is another one's here: the name they are stored under"
    )
    ignored_files: list[str] = Field(description="files of the zip that are no annotations")
    removes: Removes
    notes: list[str] = Field(description="what was assumed")
    corrections: dict[str, Any] | None = Field(
        description="of the whole revision: by who spoke before, what people changed; null in a "
        "dry run"
    )
