"""Images with low-confidence predictions, kept on disk for annotation. Off by default.

With an object store they are there too, each as two small objects: `kept/ID`, its bytes, and
`kept-cards/ID`, its metadata, which is written last and deleted first. The folder then has the
metadata of all machines' images.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from filelock import FileLock

from database import now
from errors import BackendUnavailable, NotFound
from files import atomic_path
from inference.images import decode
from models_store.store import new_version
from settings import Settings
from storage.place import open_trees
from storage.trees import TreeNotFound

log = logging.getLogger(__name__)

MOST = 20_000  # images, however small they are: each new one is compared with all
BLOCK = 4096  # bytes by which a file takes up disk space
NEAR = 5  # images whose 64-bit hashes differ in at most this many bits are near-duplicates
SYNC = 2.0  # seconds for which what other machines have kept or removed may be missed
IMAGES, CARDS = "kept", "kept-cards"  # prefixes of keys
UNFINISHED = 3600.0  # age in seconds from which files without metadata are deleted


@dataclass(frozen=True)
class KeptImage:
    """Metadata of a kept image.

    Attributes:
        confidence: The lowest confidence of its predictions; for a classification, the confidence
            of the top class.
        look: The average hash: 64 bits as hexadecimal digits.
        answer: The response of `/infer`.
    """

    id: str
    model_id: str
    kept_at: str
    confidence: float
    size_bytes: int
    look: str
    answer: dict[str, Any]


class KeptImages:
    """A size-limited folder of images and their predictions; the oldest are deleted first.

    Safe to share between threads and processes: one of them keeps an image at a time, and each
    reads at every call what the others have kept or removed. All methods read or write files: do
    not call them on the event loop.
    """

    def __init__(self, settings: Settings) -> None:
        self.folder = settings.paths.kept_images
        self.limit = int(settings.keep_mb * 1024 * 1024)
        self._max_pixels = settings.max_pixels
        self._trees = open_trees(settings)
        self._synced = -SYNC  # monotonic
        self._lock = threading.Lock()
        self._file_lock = settings.paths.locks / "kept.lock"  # held while an image is kept
        self._kept: dict[str, KeptImage] | None = None  # by id, the oldest first
        self._space: dict[str, int] = {}  # by id, bytes of disk space

    def keep(self, image: bytes, answer: dict[str, Any], confidence: float) -> KeptImage | None:
        """Store an image with its predictions.

        Args:
            image: The file's bytes.
            answer: The response of `/infer`; `image_result` is not stored.
            confidence: The lowest confidence in the response.

        Returns:
            None if a near-duplicate is stored already, or the image exceeds the size limit.
        """
        look = average_hash(image, self._max_pixels)
        self._file_lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._lock, FileLock(self._file_lock):
            kept = self._index()
            if len(image) > self.limit or any(_differ(look, o.look) <= NEAR for o in kept.values()):
                return None
            answer = {key: value for key, value in answer.items() if key != "image_result"}
            found = KeptImage(
                id=new_version(),  # sorts by time
                model_id=str(answer["model_id"]),
                kept_at=now(),
                confidence=round(confidence, 4),
                size_bytes=len(image),
                look=f"{look:016x}",
                answer=answer,
            )
            self.folder.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            metadata = json.dumps(asdict(found)).encode()
            if self._trees.shared:
                self._trees.put_bytes(f"{IMAGES}/{found.id}", image)
                self._trees.put_bytes(f"{CARDS}/{found.id}", metadata)
            else:
                _write(self._image(found.id), image)
            _write(self._metadata(found.id), metadata)
            kept[found.id] = found
            self._space[found.id] = _blocks(len(image)) + _blocks(len(metadata))
            self._make_room(kept)
            return found

    def list(self, model_id: str | None = None) -> list[KeptImage]:
        """The kept images, of one model (`name:version`) or of all, the newest first."""
        with self._lock:
            kept = list(self._index().values())
        return [image for image in reversed(kept) if model_id in (None, image.model_id)]

    def open(self, image_id: str) -> bytes:
        """The bytes of an image, as the client sent them.

        Raises:
            NotFound: The image was never kept, or has been deleted.
        """
        with self._lock, contextlib.suppress(FileNotFoundError, TreeNotFound):
            if image_id in self._index():
                if self._trees.shared:
                    return self._trees.get_bytes(f"{IMAGES}/{image_id}")
                return self._image(image_id).read_bytes()
        raise NotFound(
            f"No kept image {image_id[:80]!r}. It may have been deleted to make room for newer "
            "images."
        )

    def remove(self, image_id: str) -> None:
        """Delete an image.

        Raises:
            NotFound: There is no such kept image.
        """
        with self._lock:
            if self._index().pop(image_id, None) is None:
                raise NotFound(
                    f"No kept image {image_id[:80]!r}. GET /models/{{model_id}}/live/kept lists "
                    "those of a model."
                )
            self._delete(image_id)

    @property
    def size_bytes(self) -> int:
        """The total size of the images in bytes."""
        with self._lock:
            return sum(image.size_bytes for image in self._index().values())

    # --- private; the caller holds the lock

    def _index(self) -> dict[str, KeptImage]:
        """The kept images by id, the oldest first; each is read from the folder once."""
        if self._trees.shared and time.monotonic() - self._synced >= SYNC:
            self._sync()
        first, kept = self._kept is None, self._kept or {}
        there = {path.stem: path for path in self.folder.glob("*.json")}
        for image_id in kept.keys() - there.keys():
            del kept[image_id]
            self._space.pop(image_id, None)
        new = sorted(there.keys() - kept.keys())
        for image_id in new:
            with contextlib.suppress(OSError, ValueError, TypeError):
                metadata = there[image_id].read_bytes()
                image = KeptImage(**json.loads(metadata))
                if image.id == image_id and self._has_image(image_id):
                    kept[image_id] = image
                    self._space[image_id] = _blocks(image.size_bytes) + _blocks(len(metadata))
        self._kept = dict(sorted(kept.items())) if new else kept
        if first:
            self._clear_unfinished()
        return self._kept

    def _has_image(self, image_id: str) -> bool:
        return self._trees.shared or self._image(image_id).is_file()

    def _sync(self) -> None:
        """Make the metadata here those of the object store; without it they stay as they are."""
        try:
            shared = {key.rpartition("/")[2] for key in self._trees.list_bytes(CARDS)}
            here = {path.stem for path in self.folder.glob("*.json")}
            for image_id in here - shared:
                self._metadata(image_id).unlink(missing_ok=True)
            for image_id in shared - here:
                with contextlib.suppress(TreeNotFound):  # deleted this moment
                    metadata = self._trees.get_bytes(f"{CARDS}/{image_id}")
                    self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                    _write(self._metadata(image_id), metadata)
            self._synced = time.monotonic()
        except BackendUnavailable as error:
            log.warning("The images that other machines keep cannot be listed: %s", error)

    def _clear_unfinished(self) -> None:
        """Delete incomplete files that a killed server left."""
        for path in self.folder.glob("*"):
            with contextlib.suppress(OSError):
                old = time.time() - path.stat().st_mtime > UNFINISHED
                if old and path.is_file() and path.stem not in (self._kept or {}):
                    path.unlink()

    def _make_room(self, kept: dict[str, KeptImage]) -> None:
        """Delete the oldest images until the rest fits into the limits."""
        size = sum(self._space.values())
        for image_id in list(kept):
            if size <= self.limit and len(kept) <= MOST:
                return
            size -= self._space[image_id]
            del kept[image_id]
            self._delete(image_id)

    def _delete(self, image_id: str) -> None:
        self._space.pop(image_id, None)
        self._trees.delete_bytes(f"{CARDS}/{image_id}")
        self._trees.delete_bytes(f"{IMAGES}/{image_id}")
        for path in (self._metadata(image_id), self._image(image_id)):
            path.unlink(missing_ok=True)

    def _image(self, image_id: str) -> Path:
        return self.folder / f"{image_id}.image"

    def _metadata(self, image_id: str) -> Path:
        return self.folder / f"{image_id}.json"


def _blocks(size: int) -> int:
    """The disk space of a file in bytes."""
    return -(-size // BLOCK) * BLOCK


def average_hash(image: bytes, max_pixels: int) -> int:
    """The average hash of an image (Krawetz, *Looks Like It*, 2011).

    The image is reduced to 8 × 8 greyscale pixels; each of the 64 bits is 1 if a pixel is brighter
    than the mean. JPEGs are decoded at an eighth of their size, which is much faster.
    """
    flags = cv2.IMREAD_REDUCED_GRAYSCALE_8 | cv2.IMREAD_IGNORE_ORIENTATION
    grey = cv2.imdecode(np.frombuffer(image, np.uint8), flags)
    if grey is None:  # a format that OpenCV does not read
        grey = decode(image, max_pixels).mean(axis=2).astype(np.uint8)
    small = cv2.resize(grey, (8, 8), interpolation=cv2.INTER_AREA).astype(np.float32)
    return int.from_bytes(np.packbits(small > small.mean()).tobytes(), "big")


def _differ(look: int, other: str) -> int:
    """The number of bits in which two hashes differ."""
    return (look ^ int(other, 16)).bit_count()


def _write(path: Path, content: bytes) -> None:
    """Write a file atomically; only its owner can read it."""
    with atomic_path(path) as partial:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
