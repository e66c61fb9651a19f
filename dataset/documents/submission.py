"""What a document says of one image, and all that came in one request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from formats.annotations import Annotations

Size = tuple[int, int]
Emptiness = Literal["finished", "stated", "unstated", "unfinished"]


@dataclass(frozen=True)
class DescribedImage:
    """What is said of one image.

    Attributes:
        name: The image's, or its path, as the document has it.
        read: What is said, given the image's width and height.
        content: SHA-256 of the image's file, where the document states it.
        size: Width and height that the document states.
        where: File, and number of the task or image, for messages.
        source: The document; of forms with a file per image the form.
        beside: The folder that the name may count from.
        stem: The name is a label file's: the image's without its suffix.
        empty: What it means where no object is marked. `finished`: there is none, whatever the
            reader did not take. `stated`: there is none, if the reader took all. `unstated`:
            nobody has looked, perhaps. `unfinished`: nobody has finished it.
        why: Of what is unfinished: skipped, only predictions, not annotated.
        skipped: Reason → objects that the reader did not take.
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


@dataclass(frozen=True)
class Submission:
    """What came.

    Attributes:
        marks: What is said.
        images: Images by their paths in the zip.
        contents: Their SHA-256, likewise.
        skipped: Objects that readers of whole documents did not take, by reason.
        ignored: Files that are no annotation documents.
        notes: Sentences about what was assumed.
        classes: Names that came, in the order of their ids; documents without one add none.
        forms: Of the documents that were read.
    """

    described: Sequence[DescribedImage]
    images: Mapping[str, Path] = field(default_factory=dict)
    contents: Mapping[str, str] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    ignored: Sequence[str] = ()
    notes: Sequence[str] = ()
    classes: Sequence[str] = ()
    forms: Sequence[str] = ()
