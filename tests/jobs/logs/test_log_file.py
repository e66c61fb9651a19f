from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from jobs.logs.log_file import LogWriter, clean, read_last, read_lines

STAMPED = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] (.*)")


def texts(path: Path) -> list[str]:
    found = [STAMPED.fullmatch(line) for line in path.read_text().splitlines()]
    return [match[1] if match else "no stamp" for match in found]


def pipe_into(writer: LogWriter, *pieces: bytes) -> None:
    reading, writing = os.pipe()
    thread = writer.drain(reading)
    with open(writing, "wb", buffering=0) as pipe:
        for piece in pieces:
            pipe.write(piece)
    thread.join(5)
    assert not thread.is_alive()


def test_output_becomes_stamped_lines(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "job" / "log")
    writer.say("Process 1 started.")
    pipe_into(writer, b"one\ntw", b"o\n\n  three", b" ")
    writer.say("four\nfive")
    assert texts(writer.path) == ["Process 1 started.", "one", "two", "  three", "four", "five"]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"plain", b"plain"),
        (b"\x1b[34m\x1b[1mval:\x1b[0m 3", b"val: 3"),
        (b"10%\r50%\r100%", b"100%"),
        (b"100%\r", b"100%"),
        (b"\x1b[K\r 1/2\r\x1b[K 2/2", b" 2/2"),
        (b"bell\x07 and null\x00", b"bell and null"),
        (b"\r\r", b""),
        ("größer – 5 €".encode(), "größer – 5 €".encode()),
    ],
)
def test_a_line_is_what_a_terminal_would_show_in_the_end(line: bytes, shown: bytes) -> None:
    assert clean(line) == shown


def test_a_progress_bar_without_end_is_no_burden(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "log")
    pipe_into(writer, b"\r".join(b"%9d%%" % i for i in range(20_000)), b"\ndone\n")
    assert texts(writer.path) == ["    19999%", "done"]


def test_a_log_has_an_end_but_not_for_the_last_words(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "log", limit=1000)
    pipe_into(writer, b"x" * 70 + b"\n", *[b"y" * 90 + b"\n"] * 100)
    writer.say("Failed: because.")
    assert texts(writer.path)[-1] == "Failed: because."
    assert writer.path.stat().st_size < 70_000
    again = LogWriter(tmp_path / "log", limit=1000)
    size = writer.path.stat().st_size
    pipe_into(again, b"more\n")
    assert writer.path.stat().st_size == size


def test_a_full_disk_stops_nobody() -> None:
    writer = LogWriter(Path("/dev/full"))
    writer.say("lost")
    pipe_into(writer, b"lost too\n")


def test_reading_goes_on_where_it_ended_and_leaves_half_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert read_lines(path) == []
    path.write_bytes("ä\nb\u2028c\nhalf".encode())
    assert read_lines(path) == [(3, "ä"), (9, "b\u2028c")]
    with path.open("ab") as file:
        file.write(b" full\n")
    assert read_lines(path, 9) == [(19, "half full")]
    assert read_lines(path, 19) == []
    assert read_lines(path, 1000)[0] == (3, "ä")  # not of this file: from the beginning


def test_the_last_lines_of_a_long_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("".join(f"line {i}\n" for i in range(10_000)))
    assert read_last(path, 3) == ["line 9997", "line 9998", "line 9999"]
    assert len(read_last(path, 20_000)) == 10_000
    assert read_last(tmp_path / "none", 3) == []


@pytest.mark.parametrize("long", [10, 3000, 500_000])
def test_the_last_lines_are_found_however_long_they_are(tmp_path: Path, long: int) -> None:
    path = tmp_path / "log"
    lines = [f"line {number}" for number in range(100)] + ["x" * long, "end"]
    path.write_text("".join(f"{line}\n" for line in lines))
    for count in (1, 2, 5, 200):
        assert read_last(path, count) == lines[-count:]
