from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from errors import InvalidImage, PayloadTooLarge
from inference import images
from inference.images import ORIENTATION, check_header, decode, decode_at_least, read_header
from inference.jpeg import dct_scale, is_complete
from tests.support.scenes import encoded, scene
from tests.support.seeds import rng

MAX = 1_000_000
SCENE = scene(120, 80)


def close(got: np.ndarray, wanted: np.ndarray, tolerance: float) -> bool:
    return got.shape == wanted.shape and np.abs(got.astype(int) - wanted).mean() <= tolerance


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("PPM", {}, 0),
        ("GIF", {}, 8),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 90}, 5),
        ("AVIF", {"quality": 90}, 5),
        ("JPEG2000", {}, 1),
        ("JPEG", {"quality": 95, "subsampling": 0}, 3),
        ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}, 3),
    ],
)
def test_every_format_shows_the_scene(kind: str, options: dict[str, Any], tolerance: float) -> None:
    data = encoded(SCENE, kind, **options)
    pixels = decode(data, MAX)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert close(pixels, SCENE, tolerance)
    assert check_header(data, MAX) == (120, 80)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_jpeg_pixels_are_those_of_opencv_on_either_path(options: dict[str, Any]) -> None:
    data = encoded(SCENE, "JPEG", **options)
    wanted = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB))
    np.testing.assert_array_equal(decode(data, MAX), wanted)
    np.testing.assert_array_equal(decode(data + b"trailing zip", MAX), wanted)  # Pillow's


STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
SHARP: dict[str, Any] = {"quality": 95, "subsampling": 0}


def photographed(
    upright: np.ndarray, orientation: int, kind: str = "JPEG", **options: Any
) -> bytes:
    """A file whose EXIF orientation turns it to the image `upright`."""
    image = Image.fromarray(upright)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = image.transpose(STORED[orientation]) if orientation in STORED else image
    return encoded(stored, kind, exif=exif, **options)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(kind: str, orientation: int) -> None:
    options: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}, "JPEG": SHARP}
    data = photographed(SCENE, orientation, kind, **options.get(kind, {}))
    assert close(decode(data, MAX), SCENE, 3 if kind == "JPEG" else 0)
    assert check_header(data, MAX) == (120, 80)
    assert read_header(data, MAX).orientation == (1 if kind == "TIFF" else orientation)


@pytest.mark.parametrize("orientation", [0, *range(1, 10)])
def test_a_turned_jpeg_has_the_pixels_of_pillow(orientation: int) -> None:
    data = photographed(SCENE, orientation)
    wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(decode(data, MAX), np.asarray(wanted))


LARGE = scene(803, 602)
HALF, QUARTER, EIGHTH = (802 // 2, 600 // 2), (803 // 4, 602 // 4), (803 // 8, 602 // 8)


@pytest.mark.parametrize(
    ("needed", "scale"),
    [((803, 602), 1), ((403, 301), 1), ((402, 301), 2), (HALF, 2), ((202, 151), 2), (QUARTER, 4),
     ((1, 152), 2), (EIGHTH, 8), ((1, 1), 8)],
)  # fmt: skip
def test_a_jpeg_is_decoded_no_larger_than_needed(needed: tuple[int, int], scale: int) -> None:
    asked: list[tuple[int, int]] = []

    def at_least(width: int, height: int) -> tuple[int, int]:
        asked.append((width, height))
        return needed

    found = decode_at_least(encoded(LARGE, **SHARP), MAX, at_least)
    assert asked == [(803, 602)]
    assert (found.width, found.height, found.scale) == (803, 602, scale)
    assert found.pixels.shape == (-(-602 // scale), -(-803 // scale), 3)
    assert close(found.pixels, averaged(LARGE, scale), 3)


def averaged(pixels: np.ndarray, scale: int) -> np.ndarray:
    """The means of squares; those at the right and lower edge reach beyond it."""
    height, width = (-(-side // scale) * scale for side in pixels.shape[:2])
    whole = np.pad(
        pixels.astype(float),
        ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0)),
        "edge",
    )
    return whole.reshape(height // scale, scale, width // scale, scale, 3).mean(axis=(1, 3))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("way", ["plain", "progressive", "grey", "cmyk", "film"])
def test_every_jpeg_is_scaled_and_turned(way: str, orientation: int) -> None:
    upright = scene(160, 96)
    options: dict[str, Any] = {**SHARP, "progressive": way == "progressive"}
    data = photographed(upright, orientation, **options)
    if way in ("grey", "cmyk"):
        stored = Image.open(io.BytesIO(data))
        data = encoded(
            stored.convert("L" if way == "grey" else "CMYK"), "JPEG", exif=stored.getexif()
        )
    elif way == "film":
        data += b"\0\0\0\x18ftypmp42" + bytes(1000)
    full = decode(data, MAX)
    found = decode_at_least(data, MAX, lambda width, height: (width // 4, height // 4))
    assert (found.width, found.height, found.scale) == (160, 96, 4)
    assert found.pixels.flags.c_contiguous
    assert close(found.pixels, averaged(full, 4), 2)


@pytest.mark.parametrize(
    ("orientation", "size", "scale"),
    [(1, (801, 601), 8), (5, (801, 601), 8), (6, (800, 601), 8), (6, (804, 601), 4),
     (6, (801, 600), 1), (8, (801, 600), 8), (8, (801, 602), 2), (3, (804, 600), 4)],
)  # fmt: skip
def test_scaled_pixels_begin_at_the_edge_of_a_turned_image(
    orientation: int, size: tuple[int, int], scale: int
) -> None:
    assert dct_scale(*size, orientation, (1, 1)) == scale


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_other_formats_are_decoded_in_full(kind: str) -> None:
    found = decode_at_least(encoded(LARGE, kind), MAX, lambda *_: (10, 10))
    assert (found.width, found.height, found.scale) == (803, 602, 1)
    assert found.pixels.shape == LARGE.shape


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_is_refused_at_every_scale(
    share: float, orientation: int, progressive: bool
) -> None:
    data = photographed(LARGE, orientation, progressive=progressive)
    for needed in ((803, 602), (100, 75)):
        with pytest.raises(InvalidImage, match="truncated"):
            decode_at_least(data[: int(len(data) * share)], MAX, lambda *_, n=needed: n)


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_image() -> None:
    data = encoded(LARGE)
    thumbnail = encoded(scene(16, 16))
    segment = b"\xff\xe2" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    whole = data[:2] + segment + data[2:]
    np.testing.assert_array_equal(decode(whole, MAX), decode(data, MAX))
    with pytest.raises(InvalidImage, match="truncated"):
        decode(whole[: len(whole) // 2], MAX)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_with_a_marker_that_breaks_its_scan_is_refused_at_every_scale(
    mode: str, orientation: int
) -> None:
    upright = np.asarray(Image.fromarray(LARGE).convert(mode))
    data = bytearray(photographed(upright, orientation))
    middle = len(data) // 2
    data[middle : middle + 2] = b"\xff\xc0"  # OpenCV fills what follows with grey
    for needed in ((803, 602), (100, 75)):
        with pytest.raises(InvalidImage, match="damaged"):
            decode_at_least(bytes(data), MAX, lambda *_, n=needed: n)


def test_a_complete_jpeg_of_many_scans_is_read_by_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_to_rgb", None)  # what Pillow decodes needs this
    for data in (encoded(LARGE, progressive=True), encoded(LARGE, restart_marker_rows=1)):
        assert decode(data + b"\xff\xc0 a film", MAX).shape == LARGE.shape


def test_a_jpeg_of_tiny_segments_is_looked_at_for_a_bounded_time() -> None:
    data = encoded(SCENE)
    assert is_complete(data)
    scan = data.index(b"\xff\xda")
    assert is_complete(data[:scan] + b"\xff\xe5\x00\x02" * 9_000 + data[scan:])
    assert not is_complete(data[:-2] + b"\xff\xe5\x00\x02" * 11_000 + data[-2:])


def test_the_limit_of_pixels_is_that_of_the_full_image() -> None:
    with pytest.raises(PayloadTooLarge):
        decode_at_least(encoded(LARGE), 400_000, lambda *_: (10, 10))


def grey() -> Image.Image:
    return Image.fromarray(SCENE).convert("L")


def deep(values: np.ndarray, kind: str = "PNG") -> bytes:
    return encoded(Image.fromarray(values), kind)


def test_modes_become_rgb() -> None:
    wanted = np.repeat(np.asarray(grey())[..., None], 3, axis=2)
    sixteen = np.asarray(grey()).astype(np.uint16) * 257
    assert close(decode(encoded(grey(), "PNG"), MAX), wanted, 0)
    assert close(decode(encoded(grey(), "JPEG"), MAX), wanted, 2)
    assert close(decode(deep(sixteen), MAX), wanted, 0)
    assert close(decode(deep(sixteen, "TIFF"), MAX), wanted, 0)
    assert close(decode(deep(sixteen.astype(np.int32), "TIFF"), MAX), wanted, 0)
    assert close(decode(deep(sixteen.astype(np.float32) / 65535, "TIFF"), MAX), wanted, 0)
    assert close(decode(deep(np.asarray(grey()).astype(np.float32), "TIFF"), MAX), wanted, 0)
    bilevel = decode(encoded(grey().convert("1"), "PNG"), MAX)
    assert set(np.unique(bilevel)) == {0, 255}


def test_sixteen_bit_colour_keeps_its_high_byte() -> None:
    ok, data = cv2.imencode(".png", SCENE[..., ::-1].astype(np.uint16) * 256 + 17)
    assert ok
    assert close(decode(data.tobytes(), MAX), SCENE, 0)


def test_cmyk_jpeg_has_the_right_colours() -> None:
    data = encoded(Image.fromarray(SCENE).convert("CMYK"), "JPEG", quality=95)
    assert close(decode(data, MAX), SCENE, 6)


def test_palette_shows_its_colours() -> None:
    image = Image.fromarray(SCENE).quantize(256)
    assert close(decode(encoded(image, "PNG"), MAX), np.asarray(image.convert("RGB")), 0)
    assert close(
        decode(encoded(image, "PNG", transparency=bytes(range(256))), MAX),
        np.asarray(image.convert("RGB")),
        0,
    )


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_dropped_as_opencv_does(kind: str) -> None:
    alpha = np.linspace(0, 255, 120).astype(np.uint8)[None, :].repeat(80, axis=0)
    image = Image.fromarray(np.dstack((SCENE, alpha)))
    options: dict[str, Any] = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    assert close(decode(encoded(image, kind, **options), MAX), SCENE, 0)
    la = Image.fromarray(np.dstack((np.asarray(grey()), alpha)), "LA")
    assert close(decode(encoded(la, "PNG"), MAX), np.asarray(grey().convert("RGB")), 0)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.fromarray(scene(60, 40, seed)) for seed in range(3)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert close(decode(data, MAX), np.asarray(frames[0]), 8 if kind == "GIF" else 0)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "AVIF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95])
def test_truncated_files_are_refused(kind: str, share: float) -> None:
    data = encoded(scene(200, 150), kind)
    with pytest.raises(InvalidImage) as caught:
        decode(data[: int(len(data) * share)], MAX)
    assert caught.value.message.endswith(".")
    assert "/" not in caught.value.message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"\xff\xd8",
        b"\xff\xd8\xff\xd9",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.4\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        b"GIF89a",
        b"\x89PNG\r\n\x1a\n",
        b"<html></html>",
    ],
)
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidImage):
        decode(data, MAX)
    with pytest.raises(InvalidImage):
        check_header(data, MAX)


def chunk(kind: bytes, body: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + crc


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(1001, 1000), (1500, 1000), (50_000, 50_000), (2**31 - 1, 1)])
def test_too_many_pixels_are_refused_before_decoding(size: tuple[int, int]) -> None:
    data = png_header(*size)
    tracemalloc.start()
    try:
        for read in (decode, check_header):
            with pytest.raises(PayloadTooLarge, match="pixels"):
                read(data, MAX)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_bilevel_bomb_is_refused() -> None:
    data = encoded(Image.new("1", (3000, 3000)), "PNG")
    assert len(data) < 5000
    with pytest.raises(PayloadTooLarge):
        decode(data, MAX)
    assert decode(data, 9_000_000).shape == (3000, 3000, 3)


def test_jpeg_with_absurdly_many_scans_is_refused() -> None:
    data = encoded(scene(900, 900), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    end = data.rindex(b"\xff\xd9")
    repeated = data[:end] + data[start:end] * 5000 + data[end:]
    with pytest.raises(InvalidImage, match="scans"):
        decode(repeated, MAX)


def test_jpeg_with_a_lying_header_is_refused() -> None:
    small = encoded(scene(64, 64), "JPEG")
    lying = small.replace(b"\x00\x40\x00\x40", b"\x1b\x58\x1b\x58")  # 7000 × 7000
    assert check_header(lying, 50_000_000) == (7000, 7000)
    with pytest.raises(InvalidImage):
        decode(lying, 50_000_000)
    assert decode(encoded(Image.new("RGB", (3000, 3000)), "JPEG"), 9_000_000).max() == 0


def test_png_bomb_of_comments_is_refused() -> None:
    data = encoded(scene(20, 20), "PNG")
    comment = chunk(b"zTXt", b"key\0\0" + zlib.compress(b"a" * 1_000_000))
    assert decode(data[:33] + comment + data[33:], MAX).shape == (20, 20, 3)
    with pytest.raises(InvalidImage):
        check_header(data[:33] + comment * 50 + data[33:], MAX)


JPEG, PNG = encoded(SCENE, "JPEG"), encoded(SCENE, "PNG")
MANY = 300_000
BOMBS = {
    "empty comments": JPEG[:2] + b"\xff\xfe\0\2" * MANY + JPEG[2:],
    "empty APP3": JPEG[:2] + b"\xff\xe3\0\2" * MANY + JPEG[2:],
    "fill bytes": JPEG[:2] + b"\xff" * 3 * MANY + JPEG[2:],
    "empty chunks": PNG[:33] + chunk(b"prVt", b"") * MANY + PNG[33:],
    "a line": b"P6 #" + b"x" * 3 * MANY + b"\n1 1 255 abc",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_of_tiny_pieces_is_refused_after_few_reads(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []

    def remember(file: Any, formats: Any) -> Image.Image:
        opened.append(file)
        return Image.open(file, "r", formats)

    monkeypatch.setattr(images, "pillow_open", remember)
    for read in (check_header, decode):
        with pytest.raises(InvalidImage, match="small parts"):
            read(BOMBS[name], MAX)
    assert [file.reads <= 25_000 for file in opened] == [True, True]


def test_tiny_pieces_behind_the_picture_are_refused_too() -> None:
    assert decode(PNG[:-12] + chunk(b"prVt", b"") * 1000 + PNG[-12:], MAX).shape == SCENE.shape
    with pytest.raises(InvalidImage, match="small parts"):
        decode(PNG[:-12] + chunk(b"prVt", b"") * MANY + PNG[-12:], MAX)


def test_a_large_picture_in_ordinary_pieces_is_read() -> None:
    noise = rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    ok, data = cv2.imencode(".png", noise)  # in pieces of 8 KiB
    assert ok
    assert data.tobytes().count(b"IDAT") > 500
    assert decode(data.tobytes(), 3_000_000).shape == noise.shape


def test_thin_pictures() -> None:
    assert decode(encoded(scene(1, 3000), "PNG"), MAX).shape == (3000, 1, 3)
    assert decode(encoded(scene(8000, 8), "JPEG"), MAX).shape == (8, 8000, 3)


@given(
    kind=st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "AVIF", "JPEG2000"]),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=20),
    cut=st.floats(0.5, 1),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_damaged_files_give_a_picture_or_our_error(
    kind: str, changes: list[tuple[float, int]], cut: float
) -> None:
    data = bytearray(encoded(scene(40, 30), kind))
    for place, value in changes:
        data[int(place * (len(data) - 1))] = value
    damaged = bytes(data[: int(len(data) * cut)])
    try:
        pixels = decode(damaged, MAX)
    except (InvalidImage, PayloadTooLarge):
        return
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert pixels.dtype == np.uint8


def test_png_header_is_read_without_decoding() -> None:
    buffer = io.BytesIO()
    Image.fromarray(scene(900, 900)).save(buffer, "PNG")
    assert check_header(buffer.getvalue()[:2000], MAX) == (900, 900)
