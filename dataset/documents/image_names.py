"""Finds the image that a name or path in an annotation document refers to."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import PurePosixPath
from typing import Generic, Literal, TypeVar
from urllib.parse import unquote, urlsplit

from dataset.image_files import SUFFIXES

T = TypeVar("T")
Parts = tuple[str, ...]
How = Literal["path", "name"]

_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")  # prefix that Label Studio gives uploaded files
_CONTENT = re.compile(r"[0-9a-f]{64}")
_LOCAL_FILE = re.compile(r"^(?:[a-z]+://[^/]*)?/data/local-files/\?(?:.*&)?d=([^&]*)")
_ADDRESS = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*://")


@dataclass(frozen=True)
class NameMatch(Generic[T]):
    """Result of looking up a name.

    Attributes:
        item: The image; None if no image or more than one matches.
        how: Whether it matched by path, or by file name alone.
        several: The matching names if there is more than one.
    """

    item: T | None = None
    how: How = "name"
    several: Sequence[str] = ()


class NameIndex(Generic[T]):
    """Index of images by path, file name, and file name without suffix.

    Names are compared exactly first, then normalised to Unicode NFC.
    """

    def __init__(self, named: Iterable[tuple[str, T]]) -> None:
        self._literal = _Table(lambda text: text)
        self._composed = _Table(lambda text: unicodedata.normalize("NFC", text))
        self._items: list[T] = []
        for name, item in named:
            parts = parts_of(name)
            if parts:
                self._literal.add(parts, len(self._items))
                self._composed.add(parts, len(self._items))
                self._items.append(item)

    def find(self, name: str, beside: str = "", stem: bool = False) -> NameMatch[T]:
        """The image that a name in a document refers to.

        Args:
            name: A path, URL or file name as written in the document.
            beside: The folder that the name may be relative to.
            stem: The name is that of a label file: the image's file name without its suffix.
        """
        for paths in (list(_paths(name, beside, stem)), list(_uploaded(name))):
            for table in (self._literal, self._composed):
                for path in paths:
                    if rows := table.fitting(path, stem):
                        return self._decided(table, rows, [path, *paths])
        return NameMatch()

    def with_stem(self, name: str) -> list[T]:
        """The images with this name, whatever their suffix."""
        parts = parts_of(name)
        rows = self._literal.stems.get(without_suffix(parts[-1]), ()) if parts else ()
        return [self._items[number] for _, number in rows]

    def _decided(
        self, table: _Table, rows: list[tuple[Parts, int]], paths: list[Parts]
    ) -> NameMatch[T]:
        """Of several images with the same name, the one whose folders match best."""
        wanted = [tuple(map(table.form, _bare(path))) for path in paths]
        last = rows[0][0][-1]
        with_suffix = table.names[last] is rows  # else the rows match by stem only

        def only(found: Iterable[tuple[Parts, int]]) -> list[tuple[Parts, int]]:
            return [row for row in found if not with_suffix or row[0][-1] == last]

        wanted = [path for path in wanted if path[-1] == without_suffix(last)]
        for path in wanted:
            exact = only(table.paths.get(path, ()))
            if len(exact) == 1:
                return NameMatch(self._items[exact[0][1]], "path" if len(path) > 1 else "name")
        if len(rows) == 1:
            parts, number = rows[0]
            inside = any(_common(_bare(parts), path) == len(parts) for path in wanted)
            return NameMatch(self._items[number], "path" if inside and len(parts) > 1 else "name")
        ends = {path[-2:] for path in wanted if len(path) > 1}
        near = only(row for end in ends for row in table.ends.get(end, ()))
        shared = [max(_common(_bare(parts), path) for path in wanted) for parts, _ in near]
        if (best := _only_best(shared, 2)) is not None:
            rows = near
        else:  # decide by the common top folders
            above = [max(_common(parts[::-1], path[::-1]) for path in wanted) for parts, _ in rows]
            best = _only_best(above, 1)
        if best is not None:
            return NameMatch(self._items[rows[best][1]], "path")
        return NameMatch(several=["/".join(parts) for parts, _ in rows])


class _Table:
    """Index of paths by their last parts, in the Unicode normalisation form `form`."""

    def __init__(self, form: Callable[[str], str]) -> None:
        self.form = form
        self.names: dict[str, list[tuple[Parts, int]]] = {}
        self.stems: dict[str, list[tuple[Parts, int]]] = {}
        self.paths: dict[Parts, list[tuple[Parts, int]]] = {}
        self.ends: dict[Parts, list[tuple[Parts, int]]] = {}

    def add(self, parts: Parts, number: int) -> None:
        parts = tuple(map(self.form, parts))
        self.names.setdefault(parts[-1], []).append((parts, number))
        self.stems.setdefault(without_suffix(parts[-1]), []).append((parts, number))
        self.paths.setdefault(_bare(parts), []).append((parts, number))
        self.ends.setdefault(_bare(parts)[-2:], []).append((parts, number))

    def fitting(self, path: Parts, stem: bool) -> list[tuple[Parts, int]]:
        last = self.form(path[-1])
        if stem:
            return self.stems.get(last) or self.names.get(last, [])
        plain = without_suffix(last) == last
        return self.names.get(last) or (self.stems.get(last, []) if plain else [])


def parts_of(name: str) -> Parts:
    """The parts of a path of any operating system, with `.` and `..` resolved."""
    parts: list[str] = []
    for part in name.replace("\\", "/").split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part not in ("", ".", ".."):
            parts.append(part)
    return tuple(parts)


def without_suffix(name: str) -> str:
    """A path without its image suffix; other suffixes stay, as in `frame.001`."""
    suffix = PurePosixPath(name).suffix
    return name[: -len(suffix)] if suffix.lower() in SUFFIXES else name


def content_named(name: str) -> str:
    """The SHA-256 in hex if an image is named by it, else an empty string."""
    parts = parts_of(name)
    stem = without_suffix(parts[-1]) if parts else ""
    return stem if _CONTENT.fullmatch(stem) else ""


def comparable(name: str) -> str:
    """A file name as it is compared on file systems that ignore case and Unicode composition."""
    return unicodedata.normalize("NFC", name).casefold()


def _bare(parts: Parts) -> Parts:
    return (*parts[:-1], without_suffix(parts[-1]))


def _only_best(counts: Sequence[int], least: int) -> int | None:
    """The index of the highest count, if it is at least `least` and unique; else None."""
    best = max(counts, default=0)
    return counts.index(best) if best >= least and counts.count(best) == 1 else None


def _common(one: Parts, other: Parts) -> int:
    """The number of equal parts, counted from the end."""
    count = 0
    for here, there in zip(reversed(one), reversed(other), strict=False):
        if here != there:
            break
        count += 1
    return count


def _paths(name: str, beside: str, stem: bool) -> Iterator[Parts]:
    """The paths that a name may refer to, the literal one first."""
    for text in _spellings(name):
        for folder in dict.fromkeys((beside, "")):
            parts = parts_of(f"{folder}/{text}" if folder else text)
            if not parts:
                continue
            if stem and "labels" in parts[:-1]:
                folders = ("images" if part == "labels" else part for part in parts[:-1])
                yield (*folders, parts[-1])
            yield parts


def _spellings(name: str) -> Iterator[str]:
    """A name, then for a URL its path, as written and percent-decoded."""
    yield name
    local = _LOCAL_FILE.match(name)
    if local:
        yield local[1]
        yield unquote(local[1])
    elif _ADDRESS.match(name):
        with suppress(ValueError):  # not a URL, such as http://[a.jpg
            path = urlsplit(name).path
            yield path
            yield unquote(path)
    elif name.startswith("/data/"):  # paths of Label Studio's server
        yield unquote(name)


def _uploaded(name: str) -> Iterator[Parts]:
    """The file names of a name's spellings, without the prefix of Label Studio's uploads."""
    for text in _spellings(name):
        parts = parts_of(text)
        prefix = _UPLOADED.match(parts[-1]) if parts else None
        if prefix and ("upload" in parts[:-1] or not _is_date(prefix[0][:8])):
            yield (parts[-1][prefix.end() :],)


def _is_date(digits: str) -> bool:
    """Whether eight digits are a date from 1900 to 2099, in any usual order."""
    if not digits.isdecimal():
        return False
    first, last = digits[:4], digits[4:]
    orders = (
        (first, last[:2], last[2:]),
        (last, first[2:], first[:2]),
        (last, first[:2], first[2:]),
    )
    for year, month, day in orders:
        try:
            if 1900 <= date(int(year), int(month), int(day)).year <= 2099:
                return True
        except ValueError:
            continue
    return False
