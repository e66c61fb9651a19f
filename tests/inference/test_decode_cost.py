"""What decoding costs is known, and bounded, before a pixel is decoded."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dataset.trainer_pixels import reads_the_same
from errors import InvalidImage, PayloadTooLarge
from inference.decode_cost import RATES, TIFF_RATES
from inference.images import FORMATS, Header, check_header, decode, read_header
from inference.jpeg2000 import check_codestream
from tests.support.examples import EXAMPLES
from tests.support.scenes import encoded, scene

MOST = 50_000_000  # the default of VISIONLOOP_MAX_PIXELS
SCENE = scene(320, 200)
WRITTEN = set(TIFF_RATES) - {"tiff_deflate"}  # Pillow does not write the old deflate
SIZE, TILE = 8, 24  # places of the size and the tile's size in a codestream


def codestream(**options: Any) -> bytearray:
    return bytearray(encoded(Image.fromarray(SCENE), "JPEG2000", no_jp2=True, **options))


def sized(width: int, height: int, tile: tuple[int, int] | None = None) -> bytes:
    """A JPEG 2000 that claims a size."""
    data = codestream()
    struct.pack_into(">II", data, SIZE, width, height)
    struct.pack_into(">II", data, TILE, *(tile or (width, height)))
    return bytes(data)


def png(width: int, height: int) -> bytes:
    """A PNG of zeros, a thousandth of its pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(height * (3 * width + 1)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", head), chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    )


def test_a_large_jpeg_2000_is_refused_before_it_is_decoded() -> None:
    data = sized(7000, 7000)
    for read in (check_header, decode):
        with pytest.raises(PayloadTooLarge, match="as JPEG2000, which would take about 12 s"):
            read(data, MOST)
    assert check_header(sized(4000, 4000), MOST) == (4000, 4000)


def test_a_jpeg_2000_that_only_pillow_reads_is_bounded_more_narrowly() -> None:
    rgba = bytearray(encoded(Image.fromarray(SCENE).convert("RGBA"), "JPEG2000", no_jp2=True))
    struct.pack_into(">II", rgba, SIZE, 4000, 4000)
    struct.pack_into(">II", rgba, TILE, 4000, 4000)
    with pytest.raises(PayloadTooLarge):
        check_header(bytes(rgba), MOST)


@pytest.mark.parametrize("options", [{}, {"no_jp2": True}, {"tile_size": (64, 64)},
    {"irreversible": True}, {"precinct_size": (128, 128)}, {"num_resolutions": 1},
    {"quality_mode": "rates", "quality_layers": [80, 40, 20, 10, 5]}, {"progression": "RPCL"},
    {"codeblock_size": (16, 16), "precinct_size": (64, 64)}])  # fmt: skip
@pytest.mark.parametrize("mode", ["RGB", "L", "YCbCr", "RGBA", "LA"])
def test_what_encoders_make_is_decoded_as_pillow_does(options: dict[str, Any], mode: str) -> None:
    image = Image.fromarray(SCENE).convert(mode)
    data = encoded(image, "JPEG2000", **options)
    wanted = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode(data, MOST), wanted)


def of_precincts() -> bytes:
    """Precincts of one pixel: 16 million of them in an image of 4,000 × 4,000."""
    data = bytearray(codestream(precinct_size=(128, 128)))
    struct.pack_into(">II", data, SIZE, 4000, 4000)
    struct.pack_into(">II", data, TILE, 4000, 4000)
    at = data.index(b"\xff\x52")
    levels = data[at + 9]
    data[at + 14 : at + 15 + levels] = bytes(levels + 1)
    return bytes(data)


def of_layers() -> bytes:
    data = bytearray(sized(4000, 4000))
    struct.pack_into(">H", data, data.index(b"\xff\x52") + 6, 65_535)
    return bytes(data)


def in_a_tile() -> bytes:
    """The layers are stated in the header of a tile-part."""
    data = bytearray(sized(4000, 4000))
    at, begin = data.index(b"\xff\x52"), data.index(b"\xff\x90")
    (length,) = struct.unpack_from(">H", data, at + 2)
    style = bytearray(data[at : at + 2 + length])
    struct.pack_into(">H", style, 6, 65_535)
    (part,) = struct.unpack_from(">I", data, begin + 6)
    struct.pack_into(">I", data, begin + 6, part + len(style))
    return bytes(data[: begin + 12] + style + data[begin + 12 :])


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (sized(4000, 4000, (1, 1)), r"tiles \(16000000\)"),
        (sized(4000, 4000, (8, 8)), r"tiles \(250000\)"),
        (of_precincts(), "too many packets"),
        (of_layers(), "too many packets"),
        (in_a_tile(), "too many packets"),
        (sized(4000, 4000, (0, 5)), "damaged"),
    ],
)
def test_a_jpeg_2000_of_many_parts_is_refused(data: bytes, told: str) -> None:
    with pytest.raises(InvalidImage, match=told):
        check_header(data, MOST)


def test_a_jpeg_2000_of_two_sizes_is_refused() -> None:
    data = bytearray(encoded(Image.fromarray(SCENE), "JPEG2000"))
    struct.pack_into(">II", data, data.index(b"\xff\x4f\xff\x51") + SIZE, 7000, 7000)
    with pytest.raises(InvalidImage, match="two sizes"):
        check_header(bytes(data), MOST)


@pytest.mark.properties
@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=12), st.booleans())
@settings(max_examples=EXAMPLES)
def test_any_codestream_is_checked_or_refused(changes: list[tuple[int, int]], boxes: bool) -> None:
    data = bytearray(encoded(Image.fromarray(SCENE), "JPEG2000")) if boxes else codestream()
    for at, value in changes:
        data[at] = value
    try:
        check_codestream(bytes(data), 320, 200)
    except InvalidImage:
        return


def test_a_plain_ppm_of_millions_of_numbers_is_refused() -> None:
    data = b"P3 4000 4000 255\n" + b"1 " * 24_000_000
    with pytest.raises(PayloadTooLarge, match="plain PPM"):
        check_header(data, MOST)
    assert decode(b"P3 2 1 255\n1 2 3 4 5 6\n", MOST).tolist() == [[[1, 2, 3], [4, 5, 6]]]


@pytest.mark.parametrize("compression", [*sorted(WRITTEN), "lzma"])
def test_a_tiff_has_an_ordinary_compression(compression: str) -> None:
    bilevel = compression in ("tiff_ccitt", "group3", "group4")
    image = Image.fromarray(SCENE).convert("1" if bilevel else "RGB")
    data = encoded(image, "TIFF", compression=None if compression == "raw" else compression)
    if compression == "lzma":
        with pytest.raises(InvalidImage, match="compression 'lzma' is not supported"):
            decode(data, MOST)
    else:
        assert decode(data, MOST).shape == SCENE.shape


def test_every_format_has_a_rate_within_what_is_allowed() -> None:
    assert set(FORMATS) < set(RATES)
    for name, rate in (*RATES.items(), *TIFF_RATES.items()):
        assert name == "JPEG2000" or rate.most < 80 or rate.pixel < 80, name


@pytest.mark.parametrize(
    "kind", ["ICO", "DDS", "TGA", "PCX", "SGI", "ICNS", "EPS", "PDF", "IM", "SPIDER", "MSP", "XBM"]
)
def test_formats_that_are_not_promised_are_refused_by_name(kind: str) -> None:
    image = Image.fromarray(scene(64, 64)).convert("L" if kind == "SPIDER" else "RGB")
    data = encoded(image.convert("1") if kind in ("MSP", "XBM") else image, kind)
    for read in (check_header, decode):
        with pytest.raises(
            InvalidImage, match=r"not an image that can be read\. Send one of: JPEG"
        ):
            read(data, MOST)


def test_heavy_images_are_told_apart_by_their_header() -> None:
    assert read_header(png(7000, 7000), MOST).heavy()
    assert read_header(sized(2000, 2000), MOST).heavy()
    assert not read_header(encoded(SCENE, "JPEG"), MOST).heavy()
    assert not read_header(png(2000, 2000), MOST).heavy()
    assert not read_header(encoded(Image.new("RGB", (4000, 3000)), "JPEG"), MOST).heavy()


def test_a_large_jpeg_is_heavy_only_at_full_size() -> None:
    header = Header(8000, 6000, "JPEG", True, seconds=0.3)
    assert header.heavy()
    assert header.heavy(lambda width, height: (width, height))
    assert not header.heavy(lambda *_: (640, 480))
    assert header._replace(format="PNG").heavy(lambda *_: (640, 480))
    assert header._replace(seconds=0.5).heavy(lambda *_: (640, 480))  # of many scans, or bytes


def test_of_a_file_of_many_pages_two_are_decoded_and_training_gets_another() -> None:
    first = Image.fromarray(scene(64, 48))
    data = encoded(first, "TIFF", save_all=True, append_images=[first] * 3)
    header = Header(64, 48, "TIFF", False, 0.0)
    pixels = decode(data, MOST)
    assert not reads_the_same(data, ".tif", header, pixels)
    assert reads_the_same(encoded(first, "TIFF"), ".tif", header, pixels)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_frames_after_the_first_are_not_decoded(kind: str) -> None:
    frames = [Image.fromarray(scene(40, 30, seed)) for seed in range(2)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:] * 100)
    assert decode(data, MOST).shape == (30, 40, 3)
