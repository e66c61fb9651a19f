"""Bytes that were changed as an attacker or a damaged disk changes them, for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

TOKENS = (
    b"", b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"NaN", b"Infinity", b"1e999",
    b"-1", b"9" * 5000, b"9" * 30, b"\\ud800", b"\\u0000", b"[" * 200, b'{"a":' * 200, b"<a>" * 200,
    b"null", b"true", b"&a", b"*a", b"<<: ", b"!!", b"%", b"]]>", b"&#0;", b"&x;", b"<![CDATA[",
    b"<!DOCTYPE a>", b"../" * 50, b"a" * 5000, b"\r", b"\n", b"\t", b"'", b'"', b"-",
)  # fmt: skip


@st.composite
def mangled(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` of which up to four pieces are others, perhaps cut off."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 8))
        piece = draw(st.sampled_from(TOKENS) | st.binary(max_size=6))
        data = data[:at] + piece + data[at + length :]
    return data[: draw(st.integers(0, len(data)))] if draw(st.integers(0, 4)) == 0 else data
