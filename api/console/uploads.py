"""What the routes for uploads share: the files and options of a form."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import Annotated, Any, ClassVar

from fastapi import Request
from pydantic import Field, WithJsonSchema, field_validator
from starlette.datastructures import FormData, UploadFile

from annotation.uploads.loose_files import LooseFile, is_image_name
from annotation.uploads.upload import Content
from api.requests import read_form
from api.schemas import RequestFields
from dataset.class_matching import tidy
from dataset.data_yaml import MOST_CLASSES
from errors import NoFileUploaded, ValidationFailed
from models_store.description import Task
from nesting import check_json_depth

MOST_FILES = 256  # of one form; each is an open file of the server
LONGEST_CLASS = 200  # characters
IN_MEMORY = 128 * 1024  # bytes above which one of several files is kept on disk
TASKS = "detect, segment, pose or classify; empty: the task that fits the labels"
FILES = "a zip, or an image; repeat the field for up to 256 images, or other files of a dataset"
CLASSES = (
    "classes to annotate, for images without annotations: a JSON array of names, or names "
    "separated by commas"
)
BACKGROUND = (
    "true: answer 202 at once with a job of kind `import`, which checks the upload and makes the "
    "dataset; its progress and errors are in GET /jobs/{job_id}"
)


class UploadFields(RequestFields):
    """Name, task and classes of a dataset that is uploaded."""

    files: ClassVar[tuple[str, ...]] = ("file",)

    name: str = Field("", max_length=100, description="a name of at most 100 characters")
    task: Task | None = Field(None, description=TASKS)
    # A form's field is one text.
    classes: Annotated[tuple[str, ...], WithJsonSchema({"type": "string"})] = Field(
        (), description=CLASSES
    )
    background: bool = Field(False, description=BACKGROUND)

    @field_validator("classes", mode="before")
    @classmethod
    def _from_form(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if not value.lstrip().startswith("["):
            return [name for name in map(str.strip, value.split(",")) if name]
        try:
            check_json_depth(value, "It")
            return json.loads(value)
        except (ValidationFailed, ValueError):
            raise ValueError("not a JSON array") from None

    @field_validator("classes")
    @classmethod
    def _are_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(map(tidy, value))
        if len(names) > MOST_CLASSES:
            raise ValueError(f"at most {MOST_CLASSES:,} classes")
        if any(not name or len(name) > LONGEST_CLASS or not name.isprintable() for name in names):
            raise ValueError(f"names of 1 to {LONGEST_CLASS} printable characters")
        if len(set(names)) < len(names):
            raise ValueError("each name once")
        return names


async def read_upload(request: Request) -> FormData:
    """The form of an upload; its files are on disk if they are large."""
    return await read_form(request, IN_MEMORY, images=MOST_FILES)


def uploaded(form: FormData) -> tuple[Content, str]:
    """The zip or the files of a form, and a name for what they are.

    Raises:
        NoFileUploaded: There is no file.
        ValidationFailed: A zip is not the only file.
    """
    files = [file for file in form.getlist("file") if isinstance(file, UploadFile)]
    files = [file for file in files if file.filename or file.size]
    if not files:
        raise NoFileUploaded("Send a zip, or images, as files in the form field 'file'.")
    names = [file.filename or "" for file in files]
    if len(files) == 1 and not is_image_name(names[0]):
        return files[0].file, PurePath(names[0]).stem
    zips = [name for name in names if name.lower().endswith(".zip")]
    if zips:
        raise ValidationFailed(
            f"Send one zip alone, or images: got {zips[0][:100]!r} and {len(names) - 1} other "
            "files."
        )
    folder = PurePath(names[0]).parts[0] if "/" in names[0] else PurePath(names[0]).stem
    loose = [LooseFile(name, file.file) for name, file in zip(names, files, strict=True)]
    return loose, folder
