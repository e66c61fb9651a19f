"""Decodes the file names of a zip, whose encoding is often not declared.

Old zip programs write names in the code page of their system without declaring it. An entry with
the UTF-8 flag or Info-ZIP's Unicode path field is decoded as declared. For all other entries one
encoding is chosen: UTF-8 if all of them are valid UTF-8, else the code page whose result looks
most like names. The same bytes always decode to the same name, so a label file and its image keep
matching names even if the guess is wrong.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple
from zipfile import ZipInfo

UTF8_FLAG = 0x800
UNICODE_PATH = 0x7075  # id of Info-ZIP's Unicode path extra field
FALLBACK = "cp437"  # the default encoding of zip names: PKWARE's APPNOTE, appendix D.1
SURE = 0.6  # smallest mean plausibility per letter at which an encoding is accepted
AHEAD = 0.1  # smallest lead over the second-best encoding
_FREQUENT = set("äöüßéèêëàâáãåæçñíîïóôõøúûùœÄÖÜÉÀÅØÇÑ")

# Code points of two bytes in UTF-8 that are likely in names: Latin, combining accents, Greek,
# Cyrillic, Hebrew, Arabic
_ORDINARY = (
    (0xA0, 0x17F),
    (0x300, 0x36F),
    (0x386, 0x3CE),
    (0x400, 0x45F),
    (0x5D0, 0x5EA),
    (0x61F, 0x66F),
)


class Names(NamedTuple):
    """The decoded name of each entry, and a note on a guessed encoding (empty if none was)."""

    names: tuple[str, ...]
    assumed: str = ""


def names_of(entries: Sequence[ZipInfo]) -> Names:
    """Decodes the paths of a zip's entries."""
    declared = [_declared(info) for info in entries]
    undeclared = [_raw(info) for info, name in zip(entries, declared, strict=True) if name is None]
    foreign = [raw for raw in undeclared if not raw.isascii()]
    codec = _codec(foreign) if foreign else "utf-8"
    names = tuple(
        name if name is not None else _read(_raw(info), codec)
        for info, name in zip(entries, declared, strict=True)
    )
    if codec == "utf-8":
        return Names(names)
    example = _read(foreign[0], codec)[-80:]
    if codec:
        what = f"were decoded as {codec} ('{example}')"
    else:
        what = f"match no known encoding and were decoded as {FALLBACK} ('{example}')"
    return Names(
        names,
        f"{len(foreign)} names in the zip do not declare their encoding; they {what}. Labels still "
        "match their images. If the names matter, pack the zip with UTF-8 names (7-Zip: parameter "
        "cu=on).",
    )


def _declared(info: ZipInfo) -> str | None:
    """The name of an entry that declares its encoding; None for other entries."""
    if info.flag_bits & UTF8_FLAG:
        return info.orig_filename
    extra = info.extra
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == UNICODE_PATH and len(field) > 5 and field[0] == 1:
            (check,) = struct.unpack_from("<I", field, 1)
            if check == zlib.crc32(_raw(info)):
                try:
                    return field[5:].decode("utf-8")
                except UnicodeDecodeError:
                    return None
    return None


def _raw(info: ZipInfo) -> bytes:
    """The bytes of a name, which zipfile decoded as cp437."""
    try:
        return info.orig_filename.encode("cp437")
    except UnicodeEncodeError:  # a ZipInfo made in memory, not read from a zip
        return info.orig_filename.encode("utf-8", "surrogatepass")


def _read(raw: bytes, codec: str) -> str:
    """The name decoded as `codec`, else as UTF-8, else as the fallback, which decodes any bytes."""
    for name in (codec, "utf-8"):
        if name:
            try:
                return raw.decode(name)
            except UnicodeDecodeError:
                continue
    return raw.decode(FALLBACK)


def _codec(names: Iterable[bytes]) -> str:
    """The encoding of names that are not ASCII; empty if none fits clearly."""
    distinct = sorted(set(names))
    texts = [text for name in distinct if (text := _decoded(name, "utf-8")) is not None]
    if len(texts) == len(distinct) and _plausible(texts, "utf-8", _unicode) >= SURE:
        return "utf-8"  # must be plausible too: some GBK names, such as 图片, are valid UTF-8
    judged: dict[str, tuple[float, list[str]]] = {}
    for codec, weigh in _JUDGES.items():
        read = [text for name in distinct if (text := _decoded(name, codec)) is not None]
        if len(read) == len(distinct):
            judged[codec] = (_plausible(read, codec, weigh), read)
    ranked = sorted(judged, key=lambda codec: -judged[codec][0])
    if not ranked or judged[ranked[0]][0] < SURE:
        return ""
    score, texts = judged[ranked[0]]
    for other in ranked[1:]:
        near, read = judged[other]
        if read != texts and score - near < AHEAD:
            return ""
    return ranked[0]


def _decoded(raw: bytes, codec: str) -> str | None:
    try:
        return raw.decode(codec)
    except UnicodeDecodeError:
        return None


Weigh = Callable[[bytes, str, str], float]


def _plausible(texts: Sequence[str], codec: str, weigh: Weigh) -> float:
    """How plausible it is that texts are names: the mean over non-ASCII letters, 0 to 1."""
    total, count = 0.0, 0
    for text in texts:
        padded = f" {text} "
        for i, letter in enumerate(text):
            if letter.isascii():
                continue
            count += 1
            total += weigh(letter.encode(codec), letter, padded[i] + padded[i + 2])
    return total / max(count, 1)


def _unicode(raw: bytes, letter: str, around: str) -> float:
    if len(raw) > 2:
        return 1.0 if letter.isprintable() else 0.5
    code = ord(letter)
    return 1.0 if any(first <= code <= last for first, last in _ORDINARY) else 0.1


def _chinese(raw: bytes, letter: str, around: str) -> float:
    if len(raw) == 1 or raw[1] < 0xA1:
        return 0.1  # characters that GBK adds to GB 2312, rare in names
    if 0xB0 <= raw[0] <= 0xD7:
        return 1.0  # the frequent characters of GB 2312
    return 0.5 if raw[0] > 0xD7 else 0.6 if raw[0] in (0xA1, 0xA3) else 0.2


def _traditional(raw: bytes, letter: str, around: str) -> float:
    return 0.95 if 0xA4 <= raw[0] <= 0xC6 else 0.3


def _japanese(raw: bytes, letter: str, around: str) -> float:
    if len(raw) == 1:
        return 0.15  # half-width katakana
    if "ぁ" <= letter <= "ヿ":
        return 1.0
    return 0.9 if 0x81 <= raw[0] <= 0x97 else 0.3


def _korean(raw: bytes, letter: str, around: str) -> float:
    return 0.8 if 0xB0 <= raw[0] <= 0xC8 and raw[1] >= 0xA1 else 0.1


def _latin(raw: bytes, letter: str, around: str) -> float:
    if not letter.isalpha() or ord(letter) > 0x17F:
        return 0.0
    if not any(beside.isascii() and beside.isalpha() for beside in around):
        return 0.4
    return 1.0 if letter in _FREQUENT else 0.7


def _cyrillic(raw: bytes, letter: str, around: str) -> float:
    if not "А" <= letter <= "ё":
        return 0.0
    if any(beside.isascii() and beside.isalpha() for beside in around):
        return 0.2
    return 0.95 if letter.islower() or around[1].lower() != around[1] or around[0] == " " else 0.6


_JUDGES: dict[str, Weigh] = {
    "gbk": _chinese,
    "cp932": _japanese,
    "big5": _traditional,
    "cp949": _korean,
    "cp1252": _latin,
    "cp437": _latin,
    "cp850": _latin,
    "cp1251": _cyrillic,
    "cp866": _cyrillic,
}
