"""What the check accepts, training reads to the same pixels: of every form that files have."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from ultralytics.data.utils import check_image
from ultralytics.utils.patches import imread, imread_unicode

from inference.images import decode
from tests.support.data_sets import Shapes, checked, kinds
from tests.support.odd_images import turned_oddly
from tests.support.seeds import rng

SIDE = 48
RANDOM = rng(3)
COARSE = RANDOM.integers(30, 220, (5, 5, 3)).astype(np.uint8)
RGB = cv2.resize(COARSE, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
GREY = RGB[..., 0]
ALPHA = np.dstack([RGB, np.full((SIDE, SIDE), 90, np.uint8)])

ODD = turned_oddly()


def pillow(array: np.ndarray, form: str, **options: object) -> bytes:
    mode = options.pop("mode", None)
    image = Image.fromarray(array)
    buffer = io.BytesIO()
    (image.convert(str(mode)) if mode else image).save(buffer, form, **options)
    return buffer.getvalue()


def turned(form: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return pillow(RGB[:30], form, exif=exif)


def encoded(suffix: str, array: np.ndarray) -> bytes:
    return bytes(cv2.imencode(suffix, array)[1])


def pages() -> bytes:
    return pillow(RGB, "TIFF", save_all=True, append_images=[Image.fromarray(RGB[::-1].copy())])


FILES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "jpeg": (".jpg", lambda: pillow(RGB, "JPEG", quality=95)),
    "progressive jpeg": (".jpg", lambda: pillow(RGB, "JPEG", progressive=True)),
    "grey jpeg": (".jpg", lambda: pillow(GREY, "JPEG")),
    "cmyk jpeg": (".jpg", lambda: pillow(RGB, "JPEG", mode="CMYK")),
    "turned jpeg": (".jpg", lambda: turned("JPEG")),
    "jpeg with a tail": (".jpg", lambda: pillow(RGB, "JPEG") + b"SEFT" * 8),
    "two jpegs in one": (".jpg", lambda: pillow(RGB, "JPEG") + pillow(RGB[::-1], "JPEG")),
    "jpeg called tif": (".tif", lambda: turned("JPEG")),
    "png": (".png", lambda: pillow(RGB, "PNG")),
    "rgba png": (".png", lambda: pillow(ALPHA, "PNG")),
    "grey alpha png": (".png", lambda: pillow(ALPHA, "PNG", mode="LA")),
    "palette png": (".png", lambda: pillow(RGB, "PNG", mode="P")),
    "bilevel png": (".png", lambda: pillow(GREY, "PNG", mode="1")),
    "16-bit png": (".png", lambda: encoded(".png", RGB.astype(np.uint16) * 257 + 3)),
    "16-bit grey png": (".png", lambda: encoded(".png", GREY.astype(np.uint16) * 257 + 3)),
    "turned png": (".png", lambda: turned("PNG")),
    "gif": (".gif", lambda: pillow(RGB, "GIF")),
    "gif called jpg": (".jpg", lambda: pillow(RGB, "GIF")),
    "gif called png": (".png", lambda: pillow(RGB, "GIF")),
    "ppm called bmp": (".bmp", lambda: pillow(RGB, "PPM")),
    "bmp": (".bmp", lambda: pillow(RGB, "BMP")),
    "webp": (".webp", lambda: pillow(RGB, "WEBP", quality=90)),
    "webp with alpha": (".webp", lambda: pillow(ALPHA, "WEBP", lossless=True)),
    "turned webp": (".webp", lambda: turned("WEBP")),
    "avif": (".avif", lambda: pillow(RGB, "AVIF", quality=90)),
    "turned avif": (".avif", lambda: turned("AVIF")),
    "avif called jpg": (".jpg", lambda: pillow(RGB, "AVIF", quality=90)),
    "jpeg 2000": (".jp2", lambda: pillow(RGB, "JPEG2000")),
    "mpo": (".mpo", lambda: pillow(RGB, "MPO", save_all=True,
                                   append_images=[Image.fromarray(RGB[::-1].copy())])),
    "tiff": (".tif", lambda: pillow(RGB, "TIFF")),
    "lzw tiff": (".tiff", lambda: pillow(RGB, "TIFF", compression="tiff_lzw")),
    "grey tiff": (".tif", lambda: pillow(GREY, "TIFF")),
    "rgba tiff": (".tif", lambda: pillow(ALPHA, "TIFF")),
    "cmyk tiff": (".tif", lambda: pillow(RGB, "TIFF", mode="CMYK")),
    "palette tiff": (".tif", lambda: pillow(RGB, "TIFF", mode="P")),
    "bilevel tiff": (".tif", lambda: pillow(GREY, "TIFF", mode="1")),
    "turned tiff": (".tif", lambda: turned("TIFF")),
    "16-bit grey tiff": (".tif", lambda: encoded(".tiff", GREY.astype(np.uint16) * 257)),
    "32-bit tiff": (".tif", lambda: pillow(GREY.astype(np.int32) * 200, "TIFF")),
    "float tiff": (".tif", lambda: pillow(GREY.astype(np.float32) / 255, "TIFF")),
    "float tiff in upper case": (".TIFF", lambda: pillow(GREY.astype(np.float32), "TIFF")),
    "float tiff called jpg": (".jpg", lambda: pillow(GREY.astype(np.float32) / 255, "TIFF")),
    "pages": (".tif", pages),
}  # fmt: skip
FILES |= {name: (name[name.index(".") :], partial(bytes, data)) for name, data in ODD.items()}


@pytest.mark.parametrize("what", FILES)
def test_training_sees_the_pixels_that_the_check_saw(
    shapes: Shapes, tmp_path: Path, what: str
) -> None:
    suffix, make = FILES[what]
    folder, data = shapes(), make()
    (folder / "images/train/0000.jpg").unlink()
    image = folder / f"images/train/0000{suffix}"
    image.write_bytes(data)
    dataset = checked(folder)
    before = dataset.fingerprint, sorted(folder.rglob("*"))
    assert kinds(dataset) == {}
    view = dataset.materialise(tmp_path / "job").parent
    (seen,) = (view / "images/train").glob("0000.*")
    assert (view / "labels/train/0000.txt").is_file()
    expected = decode(data, 10**8)
    assert check_image(str(seen))[1] == expected.shape[:2]
    for read in (imread, imread_unicode):
        pixels = read(str(seen))
        if read is imread_unicode and seen.suffix == ".avif":
            continue  # a classifier's reader passes them to Pillow before
        assert pixels is not None
        assert pixels.shape == expected.shape
        assert np.mean(cv2.absdiff(pixels[..., ::-1].copy(), expected)) <= 1
    assert image.read_bytes() == data
    assert (checked(folder).fingerprint, sorted(folder.rglob("*"))) == before


@pytest.mark.parametrize("what", ["jpeg", "progressive jpeg", "png", "rgba png", "tiff", "avif"])
def test_what_trainers_read_is_linked_not_copied(shapes: Shapes, tmp_path: Path, what: str) -> None:
    suffix, make = FILES[what]
    folder = shapes()
    image = folder / f"images/val/extra{suffix}"
    image.write_bytes(make())
    view = checked(folder).materialise(tmp_path / "job").parent
    assert (view / f"images/val/extra{suffix}").is_symlink()


def spoiled() -> dict[str, bytes]:
    whole = pillow(RGB, "JPEG")
    tiff = pillow(RGB, "TIFF")
    return {
        "empty.jpg": b"",
        "text.png": b"<html>404 Not Found</html>",
        "cut.jpg": whole[: len(whole) // 2],
        "cut.tif": tiff[: len(tiff) // 2],
        "float-rgb.tif": encoded(".tiff", RGB.astype(np.float32)),
        "zeros.jpg": bytes(5000),
        "lying.png": pillow(RGB, "PNG")[:16] + struct.pack(">II", 1, 2**31 - 1) + bytes(900),
    }


def test_unreadable_files_are_left_out_and_each_is_listed(shapes: Shapes, tmp_path: Path) -> None:
    folder = shapes()
    for name, data in spoiled().items():
        (folder / "images/train" / name).write_bytes(data)
    dataset = checked(folder)
    view = dataset.materialise(tmp_path / "job").parent
    left_out = {name for name in spoiled() if not (view / "images/train" / name).is_symlink()}
    assert kinds(dataset)["corrupt_image"] == len(left_out)
    for seen in (view / "images/train").iterdir():
        assert imread(str(seen)) is not None
    assert left_out >= set(spoiled()) - {"float-rgb.tif"}


def test_a_file_spoiled_after_the_check_does_not_end_the_job(
    shapes: Shapes, tmp_path: Path
) -> None:
    folder = shapes()
    image = folder / "images/train/late.tif"
    image.write_bytes(FILES["float tiff"][1]())
    dataset = checked(folder)
    dataset.scan()
    image.write_bytes(b"II*\0")
    view = dataset.materialise(tmp_path / "job").parent
    assert len(list((view / "images/train").iterdir())) == 6
