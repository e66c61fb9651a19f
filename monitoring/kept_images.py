"""Pictures that a model was not sure of, kept for whoever annotates next. Off by default."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from database import now
from errors import NotFound
from files import atomic_path
from inference.images import decode
from models_store.store import new_version
from settings import Settings

NEAR = 5  # of 64 bits: two pictures whose hashes differ in no more are near-duplicates
UNFINISHED = 3600.0  # seconds after which a file without its card is cleared away


@dataclass(frozen=True)
class KeptImage:
    """What is noted beside a kept picture.

    Attributes:
        confidence: The lowest of the answer's predictions, the best class's for classify.
        answer: As `/infer` gave it.
        look: The average hash, 64 bits as hexadecimal digits.
    """

    id: str
    model_id: str
    kept_at: str
    confidence: float
    size_bytes: int
    look: str
    answer: dict[str, Any]


class KeptImages:
    """A folder of pictures and answers, with a limit; the oldest go first.

    For one process at a time; its threads may share it. All methods read or write files: call
    them off the event loop.
    """

    def __init__(self, settings: Settings) -> None:
        self.folder = settings.paths.kept_images
        self.limit = int(settings.keep_mb * 1024 * 1024)
        self._max_pixels = settings.max_pixels
        self._lock = threading.Lock()
        self._kept: dict[str, KeptImage] | None = None  # by id, the oldest first

    def keep(self, image: bytes, answer: dict[str, Any], confidence: float) -> KeptImage | None:
        """Store a picture beside its answer.

        Returns:
            None where a near-duplicate is there already, or it is larger than the limit.
        """
        look = average_hash(image, self._max_pixels)
        with self._lock:
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
            _write(self._picture(found.id), image)
            _write(self._card(found.id), json.dumps(asdict(found)).encode())
            kept[found.id] = found
            self._make_room(kept)
            return found

    def list(self, model_id: str | None = None) -> list[KeptImage]:
        """What is kept, of one model (`name:version`) or of all, the newest first."""
        with self._lock:
            kept = list(self._index().values())
        return [image for image in reversed(kept) if model_id in (None, image.model_id)]

    def open(self, image_id: str) -> bytes:
        """The bytes of a picture, as they were sent.

        Raises:
            NotFound: It is not kept, or no longer.
        """
        with self._lock, contextlib.suppress(FileNotFoundError):
            if image_id in self._index():
                return self._picture(image_id).read_bytes()
        raise NotFound(f"No kept picture {image_id[:80]!r}. It may have made room for newer ones.")

    def remove(self, image_id: str) -> None:
        """Delete a picture.

        Raises:
            NotFound: It is not kept.
        """
        with self._lock:
            if self._index().pop(image_id, None) is None:
                raise NotFound(f"No kept picture {image_id[:80]!r}.")
            self._delete(image_id)

    @property
    def size_bytes(self) -> int:
        """Of all pictures together."""
        with self._lock:
            return sum(image.size_bytes for image in self._index().values())

    # --- inside; the lock is held

    def _index(self) -> dict[str, KeptImage]:
        if self._kept is None:
            self._kept = {}
            for path in sorted(self.folder.glob("*.json")):
                with contextlib.suppress(OSError, ValueError, TypeError):
                    image = KeptImage(**json.loads(path.read_bytes()))
                    if image.id == path.stem and self._picture(image.id).is_file():
                        self._kept[image.id] = image
            self._clear_unfinished()
        return self._kept

    def _clear_unfinished(self) -> None:
        """What a killed server left half written."""
        for path in self.folder.glob("*"):
            with contextlib.suppress(OSError):
                old = time.time() - path.stat().st_mtime > UNFINISHED
                if old and path.name.partition(".")[0] not in (self._kept or {}):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _make_room(self, kept: dict[str, KeptImage]) -> None:
        size = sum(image.size_bytes for image in kept.values())
        for image in list(kept.values()):
            if size <= self.limit:
                return
            size -= image.size_bytes
            del kept[image.id]
            self._delete(image.id)

    def _delete(self, image_id: str) -> None:
        for path in (self._card(image_id), self._picture(image_id)):
            path.unlink(missing_ok=True)

    def _picture(self, image_id: str) -> Path:
        return self.folder / f"{image_id}.image"

    def _card(self, image_id: str) -> Path:
        return self.folder / f"{image_id}.json"


def average_hash(image: bytes, max_pixels: int) -> int:
    """64 bits: where an 8 × 8 grey copy of the picture is brighter than its mean.

    The average hash of Krawetz, *Looks Like It*, 2011. JPEGs are decoded at an eighth of
    their size, which takes a fraction of the time.
    """
    flags = cv2.IMREAD_REDUCED_GRAYSCALE_8 | cv2.IMREAD_IGNORE_ORIENTATION
    grey = cv2.imdecode(np.frombuffer(image, np.uint8), flags)
    if grey is None:  # a format that OpenCV does not read
        grey = decode(image, max_pixels).mean(axis=2).astype(np.uint8)
    small = cv2.resize(grey, (8, 8), interpolation=cv2.INTER_AREA).astype(np.float32)
    return int.from_bytes(np.packbits(small > small.mean()).tobytes(), "big")


def _differ(look: int, other: str) -> int:
    return (look ^ int(other, 16)).bit_count()


def _write(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, as a whole or not at all."""
    with atomic_path(path) as partial:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
