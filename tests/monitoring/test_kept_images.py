from __future__ import annotations

import os
import stat
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from errors import NotFound
from monitoring import kept_images
from monitoring.kept_images import KeptImages, average_hash
from settings import Settings
from tests.support.seeds import rng

ANSWER: dict[str, Any] = {"model_id": "signs:1", "predictions": [{"label": "stop"}]}


def photo(seed: int, size: tuple[int, int] = (320, 240), kind: str = "JPEG", **how: Any) -> bytes:
    coarse = rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    buffer = BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(buffer, kind, **how)
    return buffer.getvalue()


@pytest.fixture
def kept(tmp_path: Path) -> KeptImages:
    return KeptImages(Settings(home=tmp_path))


def test_kept_listed_opened_removed(kept: KeptImages) -> None:
    first = kept.keep(photo(1), ANSWER | {"image_result": "data:"}, 0.31)
    second = kept.keep(photo(2), ANSWER | {"model_id": "other:1"}, 0.2)
    assert first is not None
    assert second is not None
    assert [image.id for image in kept.list()] == [second.id, first.id]
    assert kept.list("signs:1") == [first]
    assert first.answer == ANSWER
    assert (first.confidence, first.size_bytes) == (0.31, len(photo(1)))
    assert kept.open(first.id) == photo(1)
    assert kept.size_bytes == len(photo(1)) + len(photo(2))
    kept.remove(first.id)
    assert kept.list() == [second]
    for call in (kept.open, kept.remove):
        with pytest.raises(NotFound):
            call(first.id)
        with pytest.raises(NotFound):
            call("../../etc/passwd")
    assert len(list(kept.folder.iterdir())) == 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
def test_near_duplicates_are_kept_once(kept: KeptImages, kind: str) -> None:
    assert kept.keep(photo(3, kind=kind), ANSWER, 0.3)
    assert kept.keep(photo(3, kind=kind), ANSWER, 0.3) is None
    assert kept.keep(photo(3, (300, 230), quality=40), ANSWER, 0.3) is None
    assert kept.keep(photo(4, kind=kind), ANSWER, 0.3)


def test_a_hash_is_of_the_look_alone() -> None:
    differ = (average_hash(photo(5), 10**9) ^ average_hash(photo(5, quality=30), 10**9)).bit_count()
    assert differ <= 2
    others = (average_hash(photo(5), 10**9) ^ average_hash(photo(6), 10**9)).bit_count()
    assert others > 15


def space(folder: Path) -> int:
    """The disk space of a folder's files in bytes, in blocks of 4,096."""
    return sum(-(-file.stat().st_size // 4096) * 4096 for file in folder.iterdir())


def test_the_oldest_make_room(tmp_path: Path) -> None:
    size = max(len(photo(seed)) for seed in range(6))
    kept = KeptImages(Settings(home=tmp_path, keep_mb=3.2 * (size + 8192) / 2**20))
    ids = [image.id for seed in range(6) if (image := kept.keep(photo(seed), ANSWER, 0.3))]
    left = [image.id for image in kept.list()]
    assert left == list(reversed(ids[-len(left) :]))
    assert 3 <= len(left) < 6
    assert space(kept.folder) <= kept.limit
    assert len(list(kept.folder.iterdir())) == 2 * len(left)
    again = KeptImages(Settings(home=tmp_path, keep_mb=kept.limit / 2**20))
    assert again.keep(photo(7), ANSWER, 0.3)
    assert space(kept.folder) <= kept.limit
    small = KeptImages(Settings(home=tmp_path / "other", keep_mb=0.5 * size / 2**20))
    assert small.keep(photo(0), ANSWER, 0.3) is None


def test_tiny_images_are_bounded_in_number(
    kept: KeptImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_images, "MOST", 3)
    for seed in range(6):
        kept.keep(photo(seed), ANSWER, 0.3)
    assert len(kept.list()) == 3


def test_it_is_all_there_after_a_restart_and_leftovers_are_not(
    kept: KeptImages, tmp_path: Path
) -> None:
    first = kept.keep(photo(1), ANSWER, 0.3)
    second = kept.keep(photo(2), ANSWER, 0.3)
    assert first is not None
    assert second is not None
    (kept.folder / f"{second.id}.json").write_text("{")
    fresh = kept.folder / "1abc.image"
    fresh.write_bytes(b"half")
    old = time.time() - 7200
    for path in kept.folder.glob(f"{second.id}.*"):
        os.utime(path, (old, old))
    again = KeptImages(Settings(home=tmp_path))
    assert again.list() == [first]
    assert {path.name for path in kept.folder.iterdir()} == {
        f"{first.id}.json",
        f"{first.id}.image",
        fresh.name,  # perhaps being written
    }
    assert again.keep(photo(1), ANSWER, 0.3) is None


def test_nobody_else_may_read_it(kept: KeptImages) -> None:
    kept.keep(photo(1), ANSWER, 0.3)
    assert stat.S_IMODE(kept.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept.folder.iterdir()} == {0o600}
