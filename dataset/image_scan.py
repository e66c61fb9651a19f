"""Scans the images of a dataset: readability, size in pixels and content hash of each file.

A scan reads and decodes every file. Its results are cached in VISIONLOOP_HOME and reused for files
whose size and modification time have not changed.
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
from inference.images import DECODING, Pixels, decode, read_header
from inference.jpeg import is_complete
from settings import get_settings

FORMAT = f"4.{DECODING}"
MOST_CACHES = 64  # maximum number of datasets with a cache
BIGGEST = 512 * 2**20  # maximum bytes of one image
KEEP = 60.0  # seconds between two writes of the cache during a scan
_AT_A_TIME = 512  # files per batch; `progress` can end the scan between batches


class ScannedImage(NamedTuple):
    """Scan result of one image file.

    `problem` is empty for a readable image. `converted`: trainers would decode other pixels than
    the service does, so a job's view has the image as PNG.
    """

    size: int
    mtime: int  # ns
    digest: str  # SHA-256 of the bytes
    width: int
    height: int
    problem: str
    converted: bool = False


Progress = Callable[[int, int], None]  # number of images done, total number


def no_progress(done: int, total: int) -> None:
    """A `Progress` that does nothing."""


def scan(
    paths: Sequence[Path],
    root: Path,
    threads: int = 0,
    progress: Progress = no_progress,
) -> dict[Path, ScannedImage]:
    """Scan every image, or take its result from the cache.

    Args:
        paths: The image files.
        root: Identifies the cache; paths below it are cached relative to it.
        threads: Number of threads that read and decode; 0: half the cores, so that the others
            stay free for inference.
        progress: Called now and then with the number of images read and the total. An exception
            that it raises ends the scan.
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
            scan_one = partial(_scan_file, limit=limit)
            cached = [known.get(key) for key in keys]
            for path, key, before, scanned in zip(
                some, keys, cached, pool.map(scan_one, some, cached), strict=True
            ):
                found[path] = scanned
                if scanned is not before:
                    known[key] = scanned
                    changed = True
            progress(len(found), len(paths))
            if changed and time.monotonic() - kept > KEEP:
                cache.write(known, {_key(path, root) for path in paths})
                kept, changed = time.monotonic(), False
    if changed:
        cache.write(known, {_key(path, root) for path in paths})
    return found


def forget(root: Path) -> None:
    """Delete the cache of a dataset."""
    _Cache(root).file.unlink(missing_ok=True)


def move(old: Path, new: Path) -> None:
    """Give the cache of a dataset that was moved, with its files, to its new folder."""
    with contextlib.suppress(OSError):  # then the images are scanned again
        _Cache(old).file.rename(_Cache(new).file)


def reuse(root: Path, images: Iterable[Path], earlier: Iterable[Path]) -> None:
    """Begin the cache of a dataset with the results of others that have the same images.

    Args:
        root: Identifies the cache, as for `scan`.
        images: Images below it, each named by its SHA-256.
        earlier: The roots of datasets that may have been scanned.
    """
    known = {one.digest: one for other in earlier for one in _Cache(other).read().values()}
    found = {}
    for image in images:
        one = known.get(image.stem)
        with contextlib.suppress(OSError):
            if one is not None and (status := image.stat()).st_size == one.size:
                found[_key(image, root)] = one._replace(mtime=status.st_mtime_ns)
    if found:
        _Cache(root).write(found, set(found))


def fingerprint(parts: Iterable[tuple[str, str]], description: object) -> str:
    """SHA-256 (hex) over (name, content hash) pairs, sorted by name, and a description.

    Independent of the dataset's location and of file times.
    """
    total = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name, digest in sorted(parts):
        total.update(f"{name}\0{digest}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def _scan_file(path: Path, known: ScannedImage | None, limit: int) -> ScannedImage:
    """The cached result `known` of a file if it has not changed, else a new scan."""
    try:
        status = path.stat()
        if known and (known.size, known.mtime) == (status.st_size, status.st_mtime_ns):
            return known
        if status.st_size > BIGGEST:
            return ScannedImage(
                status.st_size, status.st_mtime_ns, "", 0, 0, "The file is over 512 MiB."
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
    return ScannedImage(
        status.st_size, status.st_mtime_ns, digest, width, height, problem, converted
    )


def decode_fully(data: bytes, limit: int) -> Pixels | None:
    """Check that an image decodes completely.

    A complete JPEG is decoded at an eighth of its size: this reads all of its data in a third of
    the time.

    Returns:
        The pixels; None for a JPEG that was decoded at reduced size.

    Raises:
        VisionLoopError: The errors of `inference.images.decode`.
    """
    if data[:3] == b"\xff\xd8\xff" and is_complete(data):
        buffer = np.frombuffer(data, np.uint8)
        with contextlib.suppress(cv2.error):
            if cv2.imdecode(buffer, cv2.IMREAD_REDUCED_GRAYSCALE_8) is not None:
                return None
    return decode(data, limit)


def _key(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


class _Cache:
    """The cached scan results of a dataset, one JSON file. A damaged or missing file is ignored."""

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

    def write(self, images: dict[str, ScannedImage], keys: set[str]) -> None:
        """Store the results of `keys`; other images are no longer in the dataset."""
        content = {"format": FORMAT, "pictures": {k: v for k, v in images.items() if k in keys}}
        with contextlib.suppress(OSError):  # a full disk must not fail a check
            atomic_write(self.file, json.dumps(content))
            old = sorted(self.folder.glob("*.json"), key=lambda file: file.stat().st_mtime)
            for file in old[:-MOST_CACHES]:
                file.unlink(missing_ok=True)
