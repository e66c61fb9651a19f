"""Whole images for browsers: the pixels that training reads, of every kind of file."""

from __future__ import annotations

import io
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.browse.thumbnails import Thumbnails
from errors import InvalidImage, PayloadTooLarge
from inference.images import decode, read_header
from settings import Settings
from tests.support.odd_images import HEIGHT, PASSED_OVER, SHOWN_ALIKE, WIDTH, odd_images

LIMIT = 10**6
ODD = odd_images()


@pytest.fixture
def cache(tmp_path: Path) -> Thumbnails:
    return Thumbnails(Settings(home=tmp_path / "home"))


def kept(folder: Path, name: str, data: bytes) -> tuple[str, Path]:
    path = folder / name
    path.write_bytes(data)
    return sha256(data).hexdigest(), path


@pytest.mark.parametrize("name", ODD)
def test_only_files_that_browsers_show_alike_are_sent_as_they_are(
    cache: Thumbnails, tmp_path: Path, name: str
) -> None:
    _, path = kept(tmp_path, name, ODD[name])
    assert cache.shown_alike(path) == (name in SHOWN_ALIKE)


@pytest.mark.parametrize("name", ODD)
def test_a_png_has_the_pixels_and_the_size_that_training_reads(
    cache: Thumbnails, tmp_path: Path, name: str
) -> None:
    content, path = kept(tmp_path, name, ODD[name])
    made = cache.make(content, path, None)
    image = Image.open(io.BytesIO(made))
    assert (image.format, image.mode) == ("PNG", "RGB")
    assert np.array_equal(np.asarray(image), decode(ODD[name], LIMIT))
    header = read_header(ODD[name], LIMIT)
    assert image.size == (header.width, header.height)
    is_turned = "turned" in name and name not in PASSED_OVER
    assert image.size == ((HEIGHT, WIDTH) if is_turned else (WIDTH, HEIGHT))
    assert cache.find(content, None) == made
    assert cache.find(content, 160) is None


def test_a_file_that_is_no_image_or_too_large_is_an_error(tmp_path: Path) -> None:
    cache = Thumbnails(Settings(home=tmp_path / "home", max_pixels=1000))
    content, path = kept(tmp_path, "large.tif", ODD["plain.tif"])
    with pytest.raises(PayloadTooLarge):
        cache.shown_alike(path)
    with pytest.raises(PayloadTooLarge):
        cache.make(content, path, None)
    _, path = kept(tmp_path, "none.tif", b"II*\0 no image")
    with pytest.raises(InvalidImage):
        cache.shown_alike(path)
    assert not list(cache.folder.rglob("*.png"))


def test_whole_images_count_in_the_bounded_cache(tmp_path: Path) -> None:
    cache = Thumbnails(Settings(home=tmp_path / "home"), most_bytes=1000)
    for name in ("plain.tif", "deep.tif"):
        content, path = kept(tmp_path, name, ODD[name])
        cache.make(content, path, None)
    assert cache.shrink() >= 1
