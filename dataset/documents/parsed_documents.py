"""What whole documents say of their images, once they are read."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath

from dataset.documents.image_names import content_named, parts_of, without_suffix
from dataset.documents.submission import DescribedImage, Emptiness, Size
from errors import ValidationFailed
from formats.annotations import Annotations


def from_image_document(found: Annotations, file: str, form: str, key: str) -> DescribedImage:
    """Of a form with a file per image: what it calls its image and its own name must agree."""
    own = PurePosixPath(file).stem
    folder = folder_of(file)
    parts = parts_of(found.image)
    last = unicodedata.normalize("NFC", parts[-1]) if parts else ""
    if not parts:
        return from_parsed(found, form, file, own, folder, stem=True)
    named = last, without_suffix(last), PurePosixPath(last).stem
    if unicodedata.normalize("NFC", own) not in named:
        raise ValidationFailed(
            f"{file} is named after another image than its {key} {found.image[:100]!r} says. "
            "Rename the file, or correct what it says."
        )
    return from_parsed(found, form, file, beside=folder)


def from_parsed(
    found: Annotations,
    source: str,
    where: str,
    name: str = "",
    beside: str = "",
    *,
    stem: bool = False,
    empty: Emptiness = "stated",
) -> DescribedImage:
    def read(size: Size) -> Annotations:
        return Annotations(found.image, *size, found.objects)

    name = name or found.image
    size = (found.width, found.height) if found.width and found.height else None
    content = content_named(name)
    where = where if where != name or where == source else f"{source}, {name[:100]}"
    return DescribedImage(name, read, content, size, where, source, beside, stem=stem, empty=empty)


def folder_of(file: str) -> str:
    return PurePosixPath(file).parent.as_posix() if "/" in file else ""
