"""What whole documents say of their images, once they are read."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath

from dataset.documents.image_names import content_named, parts_of, without_suffix
from dataset.documents.source_annotations import Emptiness, Marks, Size
from errors import ValidationFailed
from formats.annotations import Annotations


def of_file(found: Annotations, file: str, form: str, key: str) -> Marks:
    """Of a form with a file per image: what it calls its image and its own name must agree."""
    own = PurePosixPath(file).stem
    folder = folder_of(file)
    parts = parts_of(found.image)
    last = unicodedata.normalize("NFC", parts[-1]) if parts else ""
    if not parts:
        return read_already(found, form, file, own, folder, stem=True)
    named = last, without_suffix(last), PurePosixPath(last).stem
    if unicodedata.normalize("NFC", own) not in named:
        raise ValidationFailed(
            f"{file} is named after another image than its {key} {found.image[:100]!r} says. "
            "Rename the file, or correct what it says."
        )
    return read_already(found, form, file, beside=folder)


def read_already(
    found: Annotations,
    source: str,
    where: str,
    name: str = "",
    beside: str = "",
    *,
    stem: bool = False,
    empty: Emptiness = "stated",
) -> Marks:
    def read(size: Size) -> Annotations:
        return Annotations(found.image, *size, found.objects)

    name = name or found.image
    size = (found.width, found.height) if found.width and found.height else None
    content = content_named(name)
    where = where if where != name or where == source else f"{source}, {name[:100]}"
    return Marks(name, read, content, size, where, source, beside, stem=stem, empty=empty)


def folder_of(file: str) -> str:
    return PurePosixPath(file).parent.as_posix() if "/" in file else ""
