"""Reads image lists: text files with one image path per line, possibly from another machine."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path, PureWindowsPath

from dataset.allowed_roots import REMEDY, is_inside, real_path
from dataset.image_files import SUFFIXES, foreign
from dataset.issues import Findings
from errors import DatasetInvalid, Forbidden, ValidationFailed

BIGGEST = 256 * 2**20  # maximum bytes of a list
TOO_MANY = 0.5  # share of missing images above which the list is rejected
FIX = "Write paths relative to the list's folder, as in ./images/train/a.jpg."


def listed(file: Path, base: Path, roots: Sequence[Path], findings: Findings) -> list[Path]:
    """The images that a list names.

    Relative paths are searched in the list's folder, then in `base`. For an absolute path of
    another machine, the longest ending (folders and file name) that exists in these folders is
    used, and reported. Missing images are reported; if they are more than half, this is fatal.

    Raises:
        Forbidden: A path leads out of `roots`.
        DatasetInvalid: The file cannot be used, a path of another machine matches nothing, or two
            such paths match the same image.
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
                    f"'{name[:200]}' both match only '{os.path.relpath(path, base)}'. {FIX}"
                )
            by_tail += 1
            first_tail = first_tail or (
                f"'{name[:200]}' (line {number}) as '{os.path.relpath(path, base)}'"
            )
        images[path] = None
    if by_tail:
        findings.note(
            "list_path",
            f"{file.name}: {by_tail} of {asked} paths are from another machine. They were matched "
            f"by their last folders and file names: {first_tail}.",
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
    """1-based line number and path of each line that names an image."""
    try:
        if file.stat().st_size > BIGGEST:
            raise DatasetInvalid(
                f"'{file.name}' is over 256 MiB, the limit of an image list. Name folders instead, "
                "or split the dataset."
            )
        data = file.read_bytes()
    except OSError as error:
        raise DatasetInvalid(
            f"'{file.name}' cannot be read: {error.strerror}. Let the server's user read it."
        ) from None
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
            f"{file.name} contains no image path; the first line that is not one is "
            f"{first_other}. Write one path per line, with the suffix of the image."
        )


class _ImageFinder:
    """Finds images, asking for each folder once whether it may be read."""

    def __init__(self, file: Path, base: Path, roots: Sequence[Path]) -> None:
        self.file = file
        self.starts = tuple(dict.fromkeys((file.parent, base)))
        self.roots = roots
        self.allowed: dict[str, bool] = {}

    def image(self, number: int, name: str) -> tuple[Path | None, bool]:
        """The image of a line (None if it does not exist), and whether it matched as written."""
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
                f"{self.file.name} line {number}: '{name[:200]}' is a path of another machine, and "
                f"no image of the dataset matches its last folders and name. {FIX} {REMEDY}"
            )
        if outside:
            raise Forbidden(
                f"{self.file.name} line {number}: '{name[:200]}' is outside the folders this "
                f"server may read. {REMEDY}"
            )
        return None, True

    def _there(self, path: str) -> tuple[bool, Path | None]:
        """Whether a path is inside the allowed roots, and the file if it exists."""
        folder = os.path.dirname(path)
        if folder not in self.allowed:
            self.allowed[folder] = is_inside(real_path(folder), self.roots)
        if not self.allowed[folder]:
            return False, None
        if os.path.islink(path) and not is_inside(real_path(path), self.roots):
            return False, None
        return True, Path(os.path.normpath(path)) if os.path.isfile(path) else None


def _forms(path: str) -> tuple[str, ...]:
    """A non-ASCII path in Unicode NFC and NFD: macOS stores file names in NFD."""
    if path.isascii():
        return ()
    return unicodedata.normalize("NFC", path), unicodedata.normalize("NFD", path)
