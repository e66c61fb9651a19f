"""The annotations submitted in one request: its documents, images and notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from formats.annotations import Annotation, Annotations

Size = tuple[int, int]
Emptiness = Literal["finished", "stated", "unstated", "unfinished"]


@dataclass(frozen=True)
class DescribedImage:
    """The annotations that a document has for one image.

    Attributes:
        name: The image's name or path as written in the document.
        read: Returns the annotations, given the image's (width, height) in pixels.
        content: SHA-256 of the image's file, if the document gives it.
        size: Width and height in pixels, if the document gives them.
        where: File, and number of the task or image, for messages.
        source: The document's path; for formats with one file per image, the format.
        beside: The folder that the name may be relative to.
        stem: The name is that of a label file: the image's file name without its suffix.
        empty: How an image without annotations is understood. `finished`: it has no objects, and
            this holds even if the reader skipped some results. `stated`: it has no objects, but
            only if the reader skipped nothing. `unstated`: perhaps nobody has annotated it.
            `unfinished`: its annotation is not finished.
        why: The reason for `unfinished`: skipped, only predictions, not annotated.
        skipped: Reason → number of objects that the reader skipped.
        stored: Further objects, which the dataset has exactly so: they are not checked again.
    """

    name: str
    read: Callable[[Size], Annotations]
    content: str = ""
    size: Size | None = None
    where: str = ""
    source: str = ""
    beside: str = ""
    stem: bool = False
    empty: Emptiness = "stated"
    why: str = ""
    skipped: Counter[str] = field(default_factory=Counter)
    stored: tuple[Annotation, ...] = ()


@dataclass(frozen=True)
class Submission:
    """The content of one request.

    Attributes:
        described: The annotations, per image of each document.
        images: Path in the zip → image file.
        contents: Path in the zip → SHA-256 of the image.
        skipped: Reason → number of objects that readers of multi-image documents skipped.
        ignored: Files that are not annotation documents.
        notes: Sentences about assumptions.
        classes: Class names in order of id; documents without a class list add none.
        forms: Formats of the documents.
    """

    described: Sequence[DescribedImage]
    images: Mapping[str, Path] = field(default_factory=dict)
    contents: Mapping[str, str] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    ignored: Sequence[str] = ()
    notes: Sequence[str] = ()
    classes: Sequence[str] = ()
    forms: Sequence[str] = ()
