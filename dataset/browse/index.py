"""The index of a revision's images: one SQLite file, with what listings filter and count by."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from files import atomic_path
from inference.images import DECODING

State = Literal["unlabelled", "predicted", "labelled", "corrected", "empty", "unreadable"]
STATES: tuple[State, ...] = get_args(State)
DRAFT = "draft"  # value of the filter `state` for images with a draft

Facet = Literal["split", "class", "state", "author", "problem"]
FACETS: tuple[Facet, ...] = get_args(Facet)

NO_SPLIT = "none"  # value of the filter `split` for images that no split has
MOST_BOXES = 100  # boxes of an image that the index has
FORMAT = f"2.{DECODING}"  # changes with the tables and with what they have

_TABLES = """
CREATE TABLE images (
    position INTEGER PRIMARY KEY, content TEXT, name TEXT, folded TEXT, file TEXT, width INTEGER,
    height INTEGER, split TEXT, state TEXT, author TEXT, objects INTEGER, classes TEXT,
    boxes TEXT, problems TEXT
);
CREATE TABLE image_classes (name TEXT, position INTEGER, PRIMARY KEY (name, position))
    WITHOUT ROWID;
CREATE TABLE image_problems (kind TEXT, position INTEGER, PRIMARY KEY (kind, position))
    WITHOUT ROWID;
CREATE TABLE notes (key TEXT PRIMARY KEY, value TEXT);
CREATE INDEX by_content ON images (content);
"""


@dataclass
class IndexedImage:
    """What the index has of an image.

    Attributes:
        content: SHA-256 of its file; empty if the file could not be read.
        name: Its path as users know it.
        file: Path of the file, relative to the dataset's folder.
        width, height: In pixels after EXIF rotation; 0 if it cannot be decoded.
        split: Its split; empty if it has none.
        state: Whether it is annotated, and by whom.
        author: `original` (as uploaded), `person`, a person's name, or a model's id; empty: nobody.
        classes: Class → number of its objects; for `classify` 1 for its class.
        boxes: Class name and x1, y1, x2, y2 as fractions of the image, for each object.
        problems: Kind of a problem → what it is, such as the lines of its label file.
    """

    content: str
    name: str
    file: str
    width: int
    height: int
    split: str
    state: State
    author: str = ""
    classes: dict[str, int] = field(default_factory=dict)
    boxes: list[tuple[str, float, float, float, float]] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def objects(self) -> int:
        """The number of its objects; for `classify` 1 if it has a class."""
        return sum(self.classes.values())


@dataclass(frozen=True)
class ImageFilter:
    """Which images of an index are wanted; an empty value does not filter.

    Attributes:
        split, class, state, author, problem: A value of the facet. `class` is in `label`, because
            it is a keyword.
        text: A part of the name, compared without case.
        drafts: SHA-256 of the images with a draft, for the state `draft`.
    """

    split: str = ""
    label: str = ""
    state: str = ""
    author: str = ""
    problem: str = ""
    text: str = ""
    drafts: frozenset[str] = frozenset()

    def without(self, facet: Facet) -> dict[str, str]:
        """The wanted values of the other facets."""
        return {name: value for name, value in self.wanted.items() if name != facet}

    @property
    def wanted(self) -> Mapping[str, str]:
        """Facet, or `text` → the wanted value."""
        values = {
            "split": self.split,
            "class": self.label,
            "state": self.state,
            "author": self.author,
            "problem": self.problem,
            "text": self.text,
        }
        return {name: value for name, value in values.items() if value}


@dataclass(frozen=True)
class Page:
    """Some images of an index.

    Attributes:
        rows: The images, with `position`.
        following: Position after which the next page begins; None: there are no more images.
    """

    rows: list[dict[str, Any]]
    following: int | None


def write_index(target: Path, images: Iterable[IndexedImage], notes: Mapping[str, Any]) -> None:
    """Write an index, atomically.

    Args:
        target: The file.
        images: The images, in the order of listings.
        notes: Further values, each stored as JSON. Read after all images, so that an iterator may
            fill it.
    """
    with atomic_path(target) as partial, contextlib.closing(sqlite3.connect(partial)) as database:
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        database.executescript(_TABLES)
        for position, image in enumerate(images, 1):
            _insert(database, position, image)
        pairs = [(key, json.dumps(value)) for key, value in notes.items()]
        database.executemany("INSERT INTO notes VALUES (?, ?)", pairs)
        database.commit()


def _insert(database: sqlite3.Connection, position: int, image: IndexedImage) -> None:
    boxes = [[box[0], *(round(value, 4) for value in box[1:])] for box in image.boxes[:MOST_BOXES]]
    values = (
        position,
        image.content,
        image.name,
        image.name.casefold(),
        image.file,
        image.width,
        image.height,
        image.split or NO_SPLIT,
        image.state,
        image.author,
        image.objects,
        json.dumps(image.classes, ensure_ascii=False),
        json.dumps(boxes, ensure_ascii=False),
        json.dumps(image.problems, ensure_ascii=False),
    )
    places = ", ".join("?" * len(values))
    database.execute(f"INSERT INTO images VALUES ({places})", values)  # noqa: S608
    labels = [(label, position) for label in image.classes]
    database.executemany("INSERT INTO image_classes VALUES (?, ?)", labels)
    kinds = [(kind, position) for kind in image.problems]
    database.executemany("INSERT INTO image_problems VALUES (?, ?)", kinds)


class ImageIndex:
    """Reads the index of a revision; safe to share between threads.

    Every method opens the file: it may be deleted at any time, and is then written again.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        address = f"{self.file.absolute().as_uri()}?mode=ro&immutable=1"
        with contextlib.closing(sqlite3.connect(address, uri=True)) as database:
            database.row_factory = sqlite3.Row
            yield database

    def note(self, key: str) -> Any:
        """A value that was stored with the index; None if there is none."""
        with self._open() as database:
            row = database.execute("SELECT value FROM notes WHERE key = ?", (key,)).fetchone()
        return json.loads(row["value"]) if row is not None else None

    def path_of(self, content: str) -> str | None:
        """The path of an image, relative to the dataset's folder; None: there is no such image."""
        query = "SELECT file FROM images WHERE content = ? LIMIT 1"
        with self._open() as database:
            row = database.execute(query, (content,)).fetchone()
        return None if row is None else str(row["file"])

    def page(self, wanted: ImageFilter, after: int, limit: int) -> Page:
        """The images after a position, in order of their positions."""
        where, values = _where(wanted.wanted, wanted.drafts)
        condition = f"position > ? AND {where}"
        query = f"SELECT * FROM images WHERE {condition} ORDER BY position LIMIT ?"  # noqa: S608
        with self._open() as database:
            found = database.execute(query, (after, *values, limit + 1)).fetchall()
        rows = [_row(row, wanted.drafts) for row in found[:limit]]
        return Page(rows, rows[-1]["position"] if len(found) > limit else None)

    def count(self, wanted: ImageFilter) -> int:
        """The number of images."""
        where, values = _where(wanted.wanted, wanted.drafts)
        with self._open() as database:
            return _count(database, where, values)

    def facets(self, wanted: ImageFilter) -> dict[str, dict[str, int]]:
        """Facet → value → number of images, with the other facets' filters applied."""
        found: dict[str, dict[str, int]] = {}
        with self._open() as database:
            for facet in FACETS:
                where, values = _where(wanted.without(facet), wanted.drafts)
                found[facet] = dict(database.execute(_counting(facet, where), values).fetchall())
            where, values = _where(wanted.without("state") | {"state": DRAFT}, wanted.drafts)
            if drafts := _count(database, where, values):
                found["state"][DRAFT] = drafts
        found["author"].pop("", None)
        return found

    def examples(self, kind: str, limit: int) -> list[dict[str, Any]]:
        """The first images with a kind of problem."""
        return self.page(ImageFilter(problem=kind), 0, limit).rows


# The names and conditions in these queries are our own; what a client sends is a bound value.


def _count(database: sqlite3.Connection, where: str, values: Sequence[str]) -> int:
    query = f"SELECT count(*) FROM images WHERE {where}"  # noqa: S608
    return int(database.execute(query, values).fetchone()[0])


def _counting(facet: Facet, where: str) -> str:
    column, source = str(facet), "images"
    if facet == "class":
        column, source = "image_classes.name", "image_classes JOIN images USING (position)"
    if facet == "problem":
        column, source = "image_problems.kind", "image_problems JOIN images USING (position)"
    return f"SELECT {column}, count(*) FROM {source} WHERE {where} GROUP BY 1"  # noqa: S608


_CONDITIONS = {
    "split": "images.split = ?",
    "state": "images.state = ?",
    "author": "images.author = ?",
    "class": "images.position IN (SELECT position FROM image_classes WHERE name = ?)",
    "problem": "images.position IN (SELECT position FROM image_problems WHERE kind = ?)",
    "text": "instr(images.folded, ?)",
}


def _where(wanted: Mapping[str, str], drafts: frozenset[str]) -> tuple[str, Sequence[str]]:
    """The condition of a query, and its values; the names in it are our own."""
    parts, values = ["1"], []
    for name, value in wanted.items():
        if (name, value) == ("state", DRAFT):
            parts.append("images.content IN (SELECT value FROM json_each(?))")
            values.append(json.dumps(sorted(drafts)))
        else:
            parts.append(_CONDITIONS[name])
            values.append(value.casefold() if name == "text" else value)
    return " AND ".join(parts), values


def _row(row: sqlite3.Row, drafts: frozenset[str]) -> dict[str, Any]:
    names = ("position", "content", "name", "file", "width", "height", "state", "author", "objects")
    return {name: row[name] for name in names} | {
        "split": "" if row["split"] == NO_SPLIT else row["split"],
        "classes": json.loads(row["classes"]),
        "boxes": json.loads(row["boxes"]),
        "problems": json.loads(row["problems"]),
        "draft": row["content"] in drafts,
    }
