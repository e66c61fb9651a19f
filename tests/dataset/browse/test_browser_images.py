"""Whole images for browsers: the pixels that training reads, of every kind of file."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.browse import thumbnails
from dataset.browse.thumbnails import Thumbnails
from errors import InvalidImage, PayloadTooLarge
from inference.images import DECODING, decode, read_header
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
    content, path = kept(tmp_path, name, ODD[name])
    assert (cache.for_browsers(content, path) == path) == (name in SHOWN_ALIKE)


@pytest.mark.parametrize("name", ODD)
def test_a_browser_gets_the_pixels_and_the_size_that_training_reads(
    cache: Thumbnails, tmp_path: Path, name: str
) -> None:
    content, path = kept(tmp_path, name, ODD[name])
    header = read_header(ODD[name], LIMIT)
    is_turned = "turned" in name and name not in PASSED_OVER
    assert (header.width, header.height) == ((HEIGHT, WIDTH) if is_turned else (WIDTH, HEIGHT))
    made = cache.for_browsers(content, path)
    assert isinstance(made, Path)
    if name in SHOWN_ALIKE:
        return
    image = Image.open(made)
    assert (image.format, image.mode) == ("PNG", "RGB")
    assert image.size == (header.width, header.height)
    assert np.array_equal(np.asarray(image), decode(ODD[name], LIMIT))


def test_a_png_is_made_once_and_kept_while_it_is_looked_at(
    cache: Thumbnails, tmp_path: Path
) -> None:
    content, path = kept(tmp_path, "plain.tif", ODD["plain.tif"])
    made = cache.for_browsers(content, path)
    assert isinstance(made, Path)
    os.utime(made, (0, 0))
    path.unlink()
    assert cache.for_browsers(content, path) == made
    assert made.stat().st_mtime > 0
    assert cache.find(content, 160) is None


def test_what_older_decoding_rules_made_is_not_shown(
    cache: Thumbnails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, path = kept(tmp_path, "plain.tif", ODD["plain.tif"])
    made = cache.for_browsers(content, path)
    cache.make(content, path, 160)
    monkeypatch.setattr(thumbnails, "DECODING", DECODING + 1)
    assert cache.find(content, 160) is None
    assert cache.for_browsers(content, path) != made
    small = Thumbnails(Settings(home=tmp_path / "home"), most_bytes=1)
    assert small.shrink() == 3, "what nobody shows any more counts, and goes first"


def test_a_png_without_room_on_the_disk_is_shown_all_the_same(
    cache: Thumbnails, tmp_path: Path
) -> None:
    cache.folder.parent.mkdir(parents=True)
    cache.folder.write_bytes(b"no folder")
    content, path = kept(tmp_path, "plain.tif", ODD["plain.tif"])
    made = cache.for_browsers(content, path)
    assert isinstance(made, bytes)
    assert np.array_equal(decode(made, LIMIT), decode(ODD["plain.tif"], LIMIT))


def test_a_file_that_is_no_image_or_too_large_is_an_error(tmp_path: Path) -> None:
    cache = Thumbnails(Settings(home=tmp_path / "home", max_pixels=1000))
    content, path = kept(tmp_path, "large.tif", ODD["plain.tif"])
    with pytest.raises(PayloadTooLarge):
        cache.for_browsers(content, path)
    content, path = kept(tmp_path, "none.tif", b"II*\0 no image")
    with pytest.raises(InvalidImage):
        cache.for_browsers(content, path)
    assert not list(cache.folder.rglob("*.png"))


def test_whole_images_count_in_the_bounded_cache(tmp_path: Path) -> None:
    cache = Thumbnails(Settings(home=tmp_path / "home"), most_bytes=1000)
    for name in ("plain.tif", "deep.tif"):
        content, path = kept(tmp_path, name, ODD[name])
        cache.for_browsers(content, path)
    assert cache.shrink() >= 1
