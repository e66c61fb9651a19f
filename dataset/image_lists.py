"""Lists of images, one path a line, as YOLO's tools write them on any machine."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path, PureWindowsPath

from dataset.allowed_roots import REMEDY, is_inside, real_path
from dataset.image_files import SUFFIXES, foreign
from dataset.issues import Findings
from errors import DatasetInvalid, Forbidden, ValidationFailed

BIGGEST = 256 * 2**20  # bytes of a list
TOO_MANY = 0.5  # share of lines whose image is not there, from which something is wrong
FIX = "Write paths from the list's own folder, as in ./images/train/a.jpg."


def listed(file: Path, base: Path, roots: Sequence[Path], findings: Findings) -> list[Path]:
    """The images that a text file names.

    Relative names count from the list's folder, else from `base`. A path of another machine is
    the image at its last folders and name below these, the longest that exist; what was found
    so is told. A line without an image is told, too, and half of them are fatal.

    Raises:
        Forbidden: A name leads out of `roots`.
        DatasetInvalid: The file cannot be used, an image of another machine is not there, or two
            of its lines lead to one image.
    """
    found = _ImageFinder(file, base, roots)
    images: dict[Path, None] = {}
    asked, missing, by_tail = 0, 0, 0
    first_missing = first_tail = ""
    tails: dict[Path, tuple[int, str]] = {}
    for number, name in _names(file, findings):
        asked += 1
        path, literal = found.image(number, name)
        if path is None:
            missing += 1
            first_missing = first_missing or f"line {number}, '{name[:200]}'"
            findings.add("missing_file", f"{file.name} line {number}: {name[:200]}")
            continue
        if not literal:
            before = tails.setdefault(path, (number, name))
            if before[1] != name:
                raise DatasetInvalid(
                    f"{file.name} lines {before[0]} and {number}: '{before[1][:200]}' and "
                    f"'{name[:200]}' can both only be '{os.path.relpath(path, base)}'. {FIX}"
                )
            by_tail += 1
            first_tail = first_tail or (
                f"'{name[:200]}' (line {number}) as '{os.path.relpath(path, base)}'"
            )
        images[path] = None
    if by_tail:
        findings.note(
            "list_path",
            f"{file.name}: {by_tail} of {asked} paths are another machine's, found here by their "
            f"last folders and names: {first_tail}.",
        )
    if asked and missing > TOO_MANY * asked:
        findings.note(
            "missing_files",
            f"{file.name}: {missing} of {asked} listed images do not exist, the first in "
            f"{first_missing}. {FIX}",
            fatal=True,
        )
    if missing and not images:
        raise DatasetInvalid(
            f"{file.name}: none of the {asked} listed images exists; the first is in "
            f"{first_missing}. {FIX}"
        )
    return list(images)


def _names(file: Path, findings: Findings) -> Iterator[tuple[int, str]]:
    """Each line that names an image, and its number."""
    try:
        if file.stat().st_size > BIGGEST:
            raise DatasetInvalid(f"'{file.name}' is no list of images: it is over 256 MiB.")
        data = file.read_bytes()
    except OSError as error:
        raise DatasetInvalid(f"'{file.name}' cannot be read: {error.strerror}.") from None
    codec = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    first_other = ""
    named = False
    for number, line in enumerate(data.decode(codec, "replace").splitlines(), 1):
        name = line.strip().strip("\"'")
        if not name or name.startswith("#"):
            continue
        if os.path.splitext(name)[1].lower() not in SUFFIXES:
            first_other = first_other or f"line {number}, '{name[:200]}'"
            findings.add("listed_line", f"{file.name} line {number}: {name[:200]}")
            continue
        named = True
        yield number, name
    if first_other and not named:
        raise DatasetInvalid(
            f"{file.name} names no image; {first_other}, is not the path of one. Write one path a "
            "line, with the image's suffix."
        )


class _ImageFinder:
    """Finds images, asking for each folder once whether it may be read."""

    def __init__(self, file: Path, base: Path, roots: Sequence[Path]) -> None:
        self.file = file
        self.starts = tuple(dict.fromkeys((file.parent, base)))
        self.roots = roots
        self.allowed: dict[str, bool] = {}

    def image(self, number: int, name: str) -> tuple[Path | None, bool]:
        """The image of a line, and whether it is literally what the line says."""
        try:
            return self._image(number, name)
        except ValidationFailed as error:
            raise DatasetInvalid(f"{self.file.name} line {number}: {error.message}") from None

    def _image(self, number: int, name: str) -> tuple[Path | None, bool]:
        elsewhere = bool(PureWindowsPath(name).drive)
        path = name.replace("\\", "/")
        outside = False
        if not elsewhere:
            for start in self.starts:
                for written in dict.fromkeys((path, *_forms(path))):
                    inside, found = self._there(os.path.join(start, written))
                    outside |= not inside
                    if found is not None:
                        return found, True
        tail = [part for part in foreign(name).split("/") if part not in ("", ".")]
        while tail and tail[0] == "..":
            tail = tail[1:]
        for skipped in range(len(tail) if ".." not in tail else 0):
            for start in self.starts:
                inside, found = self._there(os.path.join(start, *tail[skipped:]))
                if inside and found is not None:
                    return found, False
        if elsewhere or path.startswith("/"):
            raise DatasetInvalid(
                f"{self.file.name} line {number}: '{name[:200]}' is another machine's path, and "
                f"nothing in the dataset is called like its end. {FIX} {REMEDY}"
            )
        if outside:
            raise Forbidden(
                f"{self.file.name} line {number}: '{name[:200]}' is outside the folders this "
                f"server may read. {REMEDY}"
            )
        return None, True

    def _there(self, path: str) -> tuple[bool, Path | None]:
        """Whether it may be read, and the image if it is there."""
        folder = os.path.dirname(path)
        if folder not in self.allowed:
            self.allowed[folder] = is_inside(real_path(folder), self.roots)
        if not self.allowed[folder]:
            return False, None
        if os.path.islink(path) and not is_inside(real_path(path), self.roots):
            return False, None
        return True, Path(os.path.normpath(path)) if os.path.isfile(path) else None


def _forms(path: str) -> tuple[str, ...]:
    """A name with accents as one letter, and apart: macOS stores the latter."""
    if path.isascii():
        return ()
    return unicodedata.normalize("NFC", path), unicodedata.normalize("NFD", path)
