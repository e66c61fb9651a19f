"""What pages show of images: upright thumbnails, and whole images in a format that browsers read.

They are in a cache on disk with a bounded size: thumbnails as JPEG, whole images as PNG.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import cv2
import numpy as np

from errors import InvalidImage
from files import PARTIAL, atomic_write
from inference.images import DECODING, Pixels, decode, decode_at_least, shown_alike
from settings import Settings

SIZES = (160, 320, 640, 1280, 2560)  # pixels of the longer side
QUALITY = 82  # of the JPEG files
MOST_BYTES = 1024 * 2**20  # of all files in the cache
KEPT = 0.8  # share of these bytes that stays when the oldest files are deleted
MEASURED_AFTER = 32 * 2**20  # bytes that a process writes between two measurements of the cache
BIGGEST = 512 * 2**20  # bytes of an image file


class Thumbnails:
    """Makes thumbnails and keeps them; safe to share between threads and processes.

    A file is named by its image's content and by the decoding rules, so it is never outdated.
    """

    def __init__(self, settings: Settings, most_bytes: int = MOST_BYTES) -> None:
        self.folder = settings.paths.thumbnails
        self._max_pixels = settings.max_pixels
        self._most_bytes = most_bytes
        self._written = MEASURED_AFTER  # so that the first write measures

    def find(self, content: str, size: int) -> bytes | None:
        """The thumbnail of an image, if it is in the cache.

        Args:
            content: SHA-256 of the image's file.
            size: One of SIZES.
        """
        try:
            return self._thumbnail(content, size).read_bytes()
        except FileNotFoundError:
            return None

    def make(self, content: str, image: Path, size: int) -> bytes:
        """Make the thumbnail of an image file and keep it. It is never larger than the image.

        Raises:
            InvalidImage: The file cannot be decoded.
            PayloadTooLarge: It has more pixels than allowed.
        """
        thumbnail = encoded(image, size, self._max_pixels)
        self._keep(self._thumbnail(content, size), thumbnail)
        return thumbnail

    def for_browsers(self, content: str, image: Path) -> Path | bytes:
        """A whole image as browsers show it: its own file, or a PNG of what training reads.

        It is a file, since a PNG may have hundreds of MiB and be sent slowly.

        Returns:
            The file; the bytes of a PNG that the disk has no room for.

        Raises:
            InvalidImage: The file cannot be decoded.
            PayloadTooLarge: It has more pixels than allowed.
        """
        kept = self._folder_of(content) / f"{content}.png"
        with contextlib.suppress(OSError):
            os.utime(kept)  # it is not among the oldest files while it is being sent
            return kept
        data = _read(image)
        if shown_alike(data, self._max_pixels):
            return image
        made = _written(decode(data, self._max_pixels), ".png", [])
        return kept if self._keep(kept, made) else made

    def _keep(self, path: Path, data: bytes) -> bool:
        """Write a file of the cache. A full disk must not keep images from being seen."""
        try:
            atomic_write(path, data)
        except OSError:
            return False
        self._written += len(data)
        if self._written >= MEASURED_AFTER:
            self._written = 0
            self.shrink()
        return True

    def shrink(self) -> int:
        """Delete the oldest files if the cache is larger than allowed. Returns their number."""
        files = sorted(_files(self.folder))
        size = sum(found[1] for found in files)
        if size <= self._most_bytes:
            return 0
        deleted = 0
        for _, bytes_of, path in files:
            if size <= KEPT * self._most_bytes:
                break
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
                deleted += 1
            size -= bytes_of
        return deleted

    def _thumbnail(self, content: str, size: int) -> Path:
        return self._folder_of(content) / f"{content}-{size}.jpg"

    def _folder_of(self, content: str) -> Path:
        return self.folder / str(DECODING) / content[:2]


def encoded(image: Path, size: int, max_pixels: int) -> bytes:
    """An image file as a JPEG whose longer side has at most `size` pixels, turned as EXIF says.

    Raises:
        InvalidImage, PayloadTooLarge: As `inference.images.decode`.
    """

    def needed(width: int, height: int) -> tuple[int, int]:
        return _fitted(width, height, size)

    found = decode_at_least(_read(image), max_pixels, needed)
    target = _fitted(found.width, found.height, size)
    pixels = np.ascontiguousarray(found.pixels)
    if (pixels.shape[1], pixels.shape[0]) != target:
        pixels = cv2.resize(pixels, target, interpolation=cv2.INTER_AREA).astype(np.uint8)
    return _written(pixels, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


def _read(image: Path) -> bytes:
    try:
        if image.stat().st_size > BIGGEST:
            raise InvalidImage(f"The file is larger than {BIGGEST // 2**20} MiB.")
        return image.read_bytes()
    except OSError as error:
        raise InvalidImage(f"The file cannot be read: {error.strerror}.") from None


def _written(pixels: Pixels, suffix: str, options: list[int]) -> bytes:
    done, buffer = cv2.imencode(suffix, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise InvalidImage("The image cannot be scaled. Its sides differ too much.")
    return buffer.tobytes()


def _fitted(width: int, height: int, size: int) -> tuple[int, int]:
    """Width and height of a thumbnail; those of a smaller image are its own."""
    scale = min(1.0, size / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _files(folder: Path) -> list[tuple[float, int, str]]:
    """Time, bytes and path of each file of the cache."""
    found = []
    for top, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(PARTIAL)]
        for name in names:
            path = os.path.join(top, name)
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(path)
                found.append((status.st_mtime, status.st_size, path))
    return found
