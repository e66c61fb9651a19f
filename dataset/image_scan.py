"""What the images of a dataset are: readable or not, how large, which content.

Looking means reading and decoding every file, so what was found is kept in VISIONLOOP_HOME and
used again for files whose size and time have not changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from cores import cpu_count
from dataset.image_files import CONVERTED
from dataset.trainer_pixels import needs_pixels, reads_the_same
from errors import VisionLoopError
from files import atomic_write
from inference.images import Pixels, decode, read_header
from settings import get_settings

FORMAT = 2
MOST_CACHES = 64  # datasets remembered
BIGGEST = 512 * 2**20  # bytes of one image
KEEP = 60.0  # seconds after which what was found is kept, lest a crash cost all of it
_AT_A_TIME = 512  # files handed to the threads; between them a check can be interrupted


class ScannedImage(NamedTuple):
    """One image file. `problem` is empty for a readable one; `converted`: trainers do not read
    it to the same pixels, so a job's view has them as PNG."""

    size: int
    mtime: int  # ns
    digest: str  # SHA-256 of the bytes
    width: int
    height: int
    problem: str
    converted: bool = False


Progress = Callable[[int, int], None]  # how many of how many are done


def no_progress(done: int, total: int) -> None:
    """Tells nobody."""


def scan(
    paths: Sequence[Path],
    root: Path,
    threads: int = 0,
    progress: Progress = no_progress,
) -> dict[Path, ScannedImage]:
    """Read every image, or remember it from last time.

    Args:
        paths: The image files.
        root: Names the cache; paths below it are remembered relative to it.
        threads: That read and decode; 0: one for two cores, so that inference keeps its own.
        progress: Told now and then how many of how many images were read; what it raises ends
            the scan.
    """
    cache = _Cache(root)
    known = cache.read()
    found: dict[Path, ScannedImage] = {}
    changed, kept = False, time.monotonic()
    limit = get_settings().max_pixels
    with ThreadPoolExecutor(threads or max(1, cpu_count() // 2)) as pool:
        for start in range(0, len(paths), _AT_A_TIME):
            some = paths[start : start + _AT_A_TIME]
            keys = [_key(path, root) for path in some]
            look_at = partial(_look, limit=limit)
            remembered = [known.get(key) for key in keys]
            for path, key, before, picture in zip(
                some, keys, remembered, pool.map(look_at, some, remembered), strict=True
            ):
                found[path] = picture
                if picture is not before:
                    known[key] = picture
                    changed = True
            progress(len(found), len(paths))
            if changed and time.monotonic() - kept > KEEP:
                cache.write(known, {_key(path, root) for path in paths})
                kept, changed = time.monotonic(), False
    if changed:
        cache.write(known, {_key(path, root) for path in paths})
    return found


def forget(root: Path) -> None:
    """Drop what was remembered of a dataset."""
    _Cache(root).file.unlink(missing_ok=True)


def fingerprint(parts: Iterable[tuple[str, str]], description: object) -> str:
    """SHA-256 over names with content hashes, in order of name, and the classes.

    Independent of where the dataset lies and of file times.
    """
    total = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name, digest in sorted(parts):
        total.update(f"{name}\0{digest}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def _look(path: Path, known: ScannedImage | None, limit: int) -> ScannedImage:
    try:
        facts = path.stat()
        if known and (known.size, known.mtime) == (facts.st_size, facts.st_mtime_ns):
            return known
        if facts.st_size > BIGGEST:
            return ScannedImage(
                facts.st_size, facts.st_mtime_ns, "", 0, 0, "The file is over 512 MiB."
            )
        data = path.read_bytes()
    except OSError as error:
        return ScannedImage(0, 0, "", 0, 0, f"The file cannot be read: {error.strerror}.")
    width = height = 0
    problem, converted = "", False
    try:
        header = read_header(data, limit)
        width, height = header.width, header.height
        suffix = path.suffix.lower()
        pixels = decode(data, limit) if needs_pixels(suffix, header) else decode_fully(data, limit)
        converted = suffix in CONVERTED or not reads_the_same(data, suffix, header, pixels)
    except VisionLoopError as error:
        problem = error.message
    digest = hashlib.sha256(data).hexdigest()
    return ScannedImage(facts.st_size, facts.st_mtime_ns, digest, width, height, problem, converted)


def decode_fully(data: bytes, limit: int) -> Pixels | None:
    """Raises what `inference.images.decode` raises; a whole JPEG is decoded at an eighth of
    its size, which reads all of its data in a third of the time, and gives None."""
    if data[:3] == b"\xff\xd8\xff" and data.endswith(b"\xff\xd9"):
        buffer = np.frombuffer(data, np.uint8)
        with contextlib.suppress(cv2.error):
            if cv2.imdecode(buffer, cv2.IMREAD_REDUCED_GRAYSCALE_8) is not None:
                return None
    return decode(data, limit)


def _key(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


class _Cache:
    """A JSON file per dataset; a damaged or missing one only costs time."""

    def __init__(self, root: Path) -> None:
        self.folder = get_settings().paths.image_cache
        name = hashlib.sha256(os.fsencode(root)).hexdigest()[:32]
        self.file = self.folder / f"{name}.json"

    def read(self) -> dict[str, ScannedImage]:
        try:
            content = json.loads(self.file.read_bytes())
            if content["format"] != FORMAT:
                return {}
            return {key: ScannedImage(*values) for key, values in content["pictures"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return {}

    def write(self, pictures: dict[str, ScannedImage], keys: set[str]) -> None:
        """What concerns `keys`; the others are gone from the dataset."""
        content = {"format": FORMAT, "pictures": {k: v for k, v in pictures.items() if k in keys}}
        with contextlib.suppress(OSError):  # a full disk must not fail a check
            atomic_write(self.file, json.dumps(content))
            old = sorted(self.folder.glob("*.json"), key=lambda file: file.stat().st_mtime)
            for file in old[:-MOST_CACHES]:
                file.unlink(missing_ok=True)
