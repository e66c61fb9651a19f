"""Thumbnails: turned as EXIF says, of every kind of image, in a cache that stays small."""

from __future__ import annotations

import io
import os
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.browse.thumbnails import Thumbnails
from errors import InvalidImage, PayloadTooLarge
from settings import Settings
from tests.support.seeds import rng


@pytest.fixture
def cache(tmp_path: Path) -> Thumbnails:
    return Thumbnails(Settings(home=tmp_path / "home"))


def kept(folder: Path, image: Image.Image, name: str, **options: object) -> tuple[str, Path]:
    """An image file, and its SHA-256."""
    path = folder / name
    image.save(path, **options)  # type: ignore[arg-type]
    return sha256(path.read_bytes()).hexdigest(), path


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def noise(width: int, height: int, *channels: int) -> np.ndarray:
    return rng(0).integers(0, 256, (height, width, *channels), np.uint8)


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("RGB", "a.jpg"), ("L", "a.jpg"), ("CMYK", "a.jpg"), ("L", "a.png"), ("RGBA", "a.png"),
        ("P", "a.png"), ("I;16", "a.png"), ("I;16", "a.tif"), ("1", "a.bmp"), ("RGB", "a.webp"),
    ],
)  # fmt: skip
def test_every_kind_of_image_has_a_thumbnail(
    cache: Thumbnails, tmp_path: Path, mode: str, name: str
) -> None:
    if mode == "I;16":
        image = Image.fromarray(noise(400, 200).astype(np.uint16) * 257)
    else:
        image = Image.fromarray(noise(400, 200, 3)).convert(mode)
    content, path = kept(tmp_path, image, name)
    data = cache.make(content, path, 160)
    assert (opened(data).format, opened(data).size) == ("JPEG", (160, 80))
    assert cache.find(content, 160) == data
    assert cache.find(content, 320) is None


def test_a_thumbnail_is_upright_and_never_enlarged(cache: Thumbnails, tmp_path: Path) -> None:
    pixels = np.zeros((60, 120, 3), np.uint8)
    pixels[:, :60] = 255  # the left half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right by 90°
    content, path = kept(tmp_path, Image.fromarray(pixels), "a.jpg", exif=exif, quality=95)
    made = np.asarray(opened(cache.make(content, path, 640)))
    assert made.shape[:2] == (120, 60)
    assert made[:50].mean() > 200 > 50 > made[-50:].mean()  # white is above


def test_a_broken_image_is_an_error_and_nothing_is_kept(cache: Thumbnails, tmp_path: Path) -> None:
    content, path = kept(tmp_path, Image.fromarray(noise(64, 64, 3)), "a.png")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InvalidImage):
        cache.make(content, path, 160)
    path.unlink()
    with pytest.raises(InvalidImage, match="cannot be read"):
        cache.make(content, path, 160)
    assert not list(cache.folder.rglob("*.jpg"))


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    cache = Thumbnails(Settings(home=tmp_path / "home", max_pixels=10_000))
    content, path = kept(tmp_path, Image.fromarray(noise(200, 200, 3)), "a.png")
    with pytest.raises(PayloadTooLarge):
        cache.make(content, path, 160)


def test_the_oldest_thumbnails_go_when_the_cache_is_full(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    many = Thumbnails(settings)
    made = []
    for number in range(6):
        image = Image.fromarray(rng(number).integers(0, 256, (100, 100, 3), np.uint8))
        content, path = kept(tmp_path, image, f"{number}.png")
        size = len(many.make(content, path, 160))
        made.append(content)
        file = next(many.folder.rglob(f"{content}*"))
        os.utime(file, (number, number))
    small = Thumbnails(settings, most_bytes=4 * size)
    assert small.shrink() >= 2
    assert many.find(made[0], 160) is None
    assert many.find(made[-1], 160) is not None
    assert sum(path.stat().st_size for path in many.folder.rglob("*.jpg")) <= 4 * size
