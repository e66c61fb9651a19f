"""Names of a zip's entries in code pages that nobody states."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset.zip_archive import unpack
from dataset.zip_names import UNICODE_PATH, UTF8_FLAG, names_of


def packed(names: list[bytes], flag: int = 0, extra: bytes = b"") -> io.BytesIO:
    """A zip whose entries have these bytes as names, as an old packer writes them."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as archive:
        warnings.simplefilter("ignore")  # names that are the same until they are replaced
        for i, name in enumerate(names):
            info = zipfile.ZipInfo("x" * len(name))
            info.extra = extra
            archive.writestr(info, str(i))
    data = bytearray(buffer.getvalue())
    for mark, offset, flags in ((b"PK\x03\x04", 30, 6), (b"PK\x01\x02", 46, 8)):
        place = 0
        for name in names:
            place = data.index(mark, place)
            data[place + offset : place + offset + len(name)] = name
            data[place + flags : place + flags + 2] = struct.pack("<H", flag)
            place += offset + len(name)
    return io.BytesIO(bytes(data))


def read(file: io.BytesIO) -> tuple[tuple[str, ...], str]:
    with zipfile.ZipFile(file) as archive:
        return names_of(archive.infolist())


WORDS = {
    "gbk": ["图片/停车标志_001.jpg", "训练/汽车.jpg", "猫.jpg", "狗.txt", "人.jpg",
            "数据集/中国.png"],
    "cp932": ["画像/テスト_01.jpg", "犬.jpg", "ねこ.txt", "新しいフォルダー/写真.png"],
    "big5": ["圖片/停車.jpg", "訓練資料/貓狗.txt", "臺灣.jpg"],
    "cp1252": ["Straße/Müller.jpg", "été.jpg", "façade/ñandú.txt", "Größe.png", "Überhol.jpg"],
    "cp437": ["Straße/Müller.jpg", "été.jpg", "Größe.png", "Öl-Haus.jpg", "señal.jpg"],
    "cp1251": ["Дорога/знак.jpg", "обучение/машина.txt", "кошка.jpg"],
    "cp866": ["Дорога/знак.jpg", "обучение/машина.txt", "кошка.jpg"],
    "utf-8": ["图片/é.jpg", "ж.txt", "犬.jpg"],
}  # fmt: skip


@pytest.mark.parametrize("codec", WORDS)
def test_an_unsaid_code_page_is_recognised_from_all_names(codec: str) -> None:
    names, assumed = read(packed([word.encode(codec) for word in WORDS[codec]]))
    assert list(names) == WORDS[codec]
    assert bool(assumed) == (codec != "utf-8")
    assert codec == "utf-8" or f"decoded as {codec}" in assumed


@pytest.mark.parametrize("codec", ["gbk", "cp932", "cp1252", "cp437", "cp1251"])
def test_a_single_name_is_recognised_too(codec: str) -> None:
    for word in WORDS[codec]:
        if not word.isascii() and word not in ("猫.jpg", "人.jpg", "犬.jpg", "狗.txt"):
            assert read(packed([word.encode(codec)]))[0] == (word,)


def test_flagged_and_plain_names_may_stand_side_by_side() -> None:
    assert read(packed(["ж.jpg".encode()], UTF8_FLAG)) == (("ж.jpg",), "")
    assert read(packed([b"a.jpg", b"b/c.txt"])) == (("a.jpg", "b/c.txt"), "")


def test_the_unicode_path_field_counts_where_its_check_is_right() -> None:
    raw, meant = b"\xcd\xbc\xc6\xac.jpg", "Großes Ø.jpg"
    for known, expected in ((raw, meant), (b"other", None)):
        body = struct.pack("<BI", 1, zlib.crc32(known)) + meant.encode()
        extra = struct.pack("<HH", UNICODE_PATH, len(body)) + body
        names, _ = read(packed([raw], extra=extra))
        assert names[0] == (expected or raw.decode("gbk"))


def test_what_cannot_be_told_keeps_a_name_and_is_said() -> None:
    names, assumed = read(packed([b"\xb0\xb1\xfe\xff.jpg", b"\x81.txt"]))
    assert names == (b"\xb0\xb1\xfe\xff.jpg".decode("cp437"), b"\x81.txt".decode("cp437"))
    assert "do not declare their encoding" in assumed


stems = st.binary(min_size=1, max_size=12).filter(
    lambda raw: (
        all(byte > 0x20 and byte not in b'./\\:\x7f"<>|*?' for byte in raw)
        and not raw.startswith(b"__MACOSX")
    )
)


@given(st.lists(stems, min_size=1, max_size=5, unique=True))
def test_an_image_and_its_label_stay_together(stems: list[bytes]) -> None:
    entries = [stem + suffix for stem in stems for suffix in (b".jpg", b".txt")]
    names, _ = read(packed(entries))
    assert len(set(names)) == len(entries)
    for image, label in zip(names[0::2], names[1::2], strict=True):
        assert image[:-4] == label[:-4]


def test_the_report_says_what_was_assumed(tmp_path: Path) -> None:
    entries = [word.encode("gbk") for word in WORDS["gbk"]]
    unpacked = unpack(packed(entries), tmp_path, 2**20)
    assert {finding.kind for finding in unpacked.findings} == {"zip_names"}
    assert (tmp_path / "图片/停车标志_001.jpg").is_file()
