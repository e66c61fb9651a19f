"""Fingerprints of content, and the memory of images once looked at."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from PIL import Image

from dataset import image_scan
from settings import get_settings
from tests.support.data_sets import Shapes, checked, line


def test_a_fingerprint_is_of_the_content(shapes: Shapes, tmp_path: Path) -> None:
    folder = shapes()
    first = checked(folder).fingerprint
    copy = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    assert checked(copy).fingerprint == first
    seen = {first}
    for change in (
        lambda: line(copy, "0 .5 .5 .1 .1"),
        lambda: Image.new("RGB", (50, 50)).save(copy / "images/val/0000.jpg"),
        lambda: (copy / "images/train/0000.jpg").rename(copy / "images/train/x.jpg"),
        lambda: (copy / "data.yaml").write_text(
            (copy / "data.yaml").read_text().replace("circle", "disc")
        ),
    ):
        change()
        seen.add(checked(copy).fingerprint)
    assert len(seen) == 5


def test_a_second_look_decodes_nothing_but_what_changed(
    shapes: Shapes, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shapes()
    decoded: list[int] = []
    decode = image_scan.decode_fully

    def counted(data: bytes, limit: int) -> None:
        decoded.append(len(data))
        decode(data, limit)

    monkeypatch.setattr(image_scan, "decode_fully", counted)
    first = checked(folder).fingerprint
    assert len(decoded) == 9
    assert checked(folder).fingerprint == first
    assert len(decoded) == 9
    buffer = io.BytesIO()
    Image.new("RGB", (60, 60)).save(buffer, "JPEG")
    (folder / "images/train/0003.jpg").write_bytes(buffer.getvalue())
    assert checked(folder).fingerprint != first
    assert len(decoded) == 10


def test_the_same_images_in_another_dataset_are_not_decoded_again(
    shapes: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shapes()
    scanned = checked(folder).scan().images
    copies = tmp_path / "revision"
    copies.mkdir()
    for path, one in scanned.items():
        shutil.copyfile(path, copies / f"{one.digest}{path.suffix}")
    changed = next(copies.iterdir())
    changed.write_bytes(changed.read_bytes() + b"more")
    image_scan.reuse(copies, copies.iterdir(), [folder.resolve(), tmp_path / "none"])
    decoded: list[int] = []
    decode = image_scan.decode_fully

    def counted(data: bytes, limit: int) -> None:
        decoded.append(len(data))
        decode(data, limit)

    monkeypatch.setattr(image_scan, "decode_fully", counted)
    again = image_scan.scan(sorted(copies.iterdir()), copies)
    assert len(decoded) == 1
    assert {one.digest for path, one in again.items() if path != changed} == {
        path.stem for path in again if path != changed
    }


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": 1}', b'{"format": 1, "images": 3}'])
def test_a_damaged_memory_only_costs_time(shapes: Shapes, content: bytes) -> None:
    folder = shapes()
    first = checked(folder).fingerprint
    for file in (get_settings().home / "cache" / "pictures").glob("*.json"):
        file.write_bytes(content)
    assert checked(folder).fingerprint == first
