"""Wraps the annotations of parsed documents as `DescribedImage`."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath

from dataset.documents.image_names import content_named, parts_of, without_suffix
from dataset.documents.submission import DescribedImage, Emptiness, Size
from errors import ValidationFailed
from formats.annotations import Annotations


def from_image_document(
    found: Annotations, file: str, format_name: str, key: str
) -> DescribedImage:
    """Wraps a document of a format with one file per image.

    Args:
        found: The parsed annotations.
        file: Path of the document in the zip.
        format_name: Format of the document.
        key: The key or element that names the image, for messages.

    Raises:
        ValidationFailed: The file is named after another image than its content names.
    """
    own = PurePosixPath(file).stem
    folder = folder_of(file)
    parts = parts_of(found.image)
    last = unicodedata.normalize("NFC", parts[-1]) if parts else ""
    if not parts:
        return from_parsed(found, format_name, file, own, folder, stem=True)
    named = last, without_suffix(last), PurePosixPath(last).stem
    if unicodedata.normalize("NFC", own) not in named:
        raise ValidationFailed(
            f"The name of {file} and its {key} {found.image[:100]!r} belong to different images. "
            f"Rename the file, or correct its {key}."
        )
    return from_parsed(found, format_name, file, beside=folder)


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
    """Wraps parsed annotations; the arguments are those of `DescribedImage`."""

    def read(size: Size) -> Annotations:
        return Annotations(found.image, *size, found.objects)

    name = name or found.image
    size = (found.width, found.height) if found.width and found.height else None
    content = content_named(name)
    where = where if where != name or where == source else f"{source}, {name[:100]}"
    return DescribedImage(name, read, content, size, where, source, beside, stem=stem, empty=empty)


def folder_of(file: str) -> str:
    """The folder of a path in a zip; empty for the top folder."""
    return PurePosixPath(file).parent.as_posix() if "/" in file else ""
