from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from process_log import JsonFormatter, SingleLineRecord, TextFormatter
from request_id import of_request
from tests.support.serving import ROOT

HOSTILE = "7\nFAKE 200\r\x00\x1b[2J\x85\u2028\u202e\udcff"

# A process that does all that could write a line past the loggers.
NOISY = """
import logging, os, sys, threading, warnings
from settings import get_settings
import process_log
process_log.configure(get_settings(), lambda: "noisy")
if get_settings().log_format == "json":
    process_log.capture_stderr()
log = logging.getLogger("visionloop")
log.debug("debug")
log.info("info %s", "one\\ntwo", extra={"job_id": "j1"})
log.warning("warning")
logging.getLogger("somebody").info("a library's info")
logging.getLogger("uvicorn.error").error("a library's error")
logging.getLogger("bentoml.serve").info("BentoML's info")
warnings.warn("a warning of Python")
print("printed", {"a": 1})
os.write(2, b"written by C\\n")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("caught")
thread = threading.Thread(target=lambda: [][0], name="worker")
thread.start()
thread.join()
log.error("error")
raise ValueError("un\\ncaught")
"""


def noisy(**settings: str) -> subprocess.CompletedProcess[str]:
    environment = {f"VISIONLOOP_{name.upper()}": value for name, value in settings.items()}
    command = [sys.executable, "-c", NOISY]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_as_json_every_line_is_an_object_whoever_wrote_it() -> None:
    ended = noisy(log_format="json", log_level="DEBUG")
    assert (ended.returncode, ended.stderr) == (1, "")
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    by_message = {line["message"]: line for line in lines}
    assert by_message["info one\ntwo"]["job_id"] == "j1"
    assert by_message["debug"]["level"] == "DEBUG"
    assert "a library's info" in by_message
    assert by_message["printed {'a': 1}"]["logger"] == "visionloop.printed"
    assert by_message["written by C"]["logger"] == "visionloop.stderr"
    assert "ZeroDivisionError" in by_message["caught"]["exception"]
    assert by_message["The thread worker ends"]["level"] == "ERROR"
    assert by_message["The process ends"]["exception"].endswith("ValueError: un\ncaught")
    assert any("a warning of Python" in line["message"] for line in lines)
    assert {line["process"] for line in lines} == {"noisy"}
    assert [line["message"] for line in lines].count("a library's error") == 1


@pytest.mark.parametrize(
    ("level", "shown", "hidden"),
    [
        ("DEBUG", ["debug", "info", "a library's info"], []),
        ("INFO", ["info", "BentoML's info", "warning"], ["debug", "a library's info"]),
        ("WARNING", ["warning", "a library's error"], ["info", "BentoML's info"]),
        ("ERROR", ["error", "caught", "The process ends"], ["info", "warning"]),
    ],
)
def test_the_level_holds_for_everyone(level: str, shown: list[str], hidden: list[str]) -> None:
    output = noisy(log_level=level).stdout
    for text in shown:
        assert f"[noisy] {text}" in output
    for text in hidden:
        assert f"[noisy] {text}" not in output


@pytest.fixture
def lines() -> Iterator[Callable[[], list[str]]]:
    """What loggers write, as a server's processes log; without the end of the last line."""
    before, stream = logging.getLogRecordFactory(), io.StringIO()
    handler = logging.StreamHandler(stream)
    log = logging.getLogger("visionloop")
    level = log.level
    logging.setLogRecordFactory(SingleLineRecord)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield lambda: stream.getvalue().removesuffix("\n").split("\n")
    logging.setLogRecordFactory(before)
    log.removeHandler(handler)
    log.setLevel(level)


def test_texts_of_clients_forge_no_line(lines: Callable[[], list[str]]) -> None:
    log = logging.getLogger("visionloop")
    log.warning("Label Studio project %s", HOSTILE)
    try:
        raise ValueError("wrong\nFAKE\x1b[2J")
    except ValueError:
        log.exception("It failed")
    written = lines()
    escaped = "7\\nFAKE 200\\r\\x00\\x1b[2J\\x85\\u2028\\u202e\\udcff"
    assert written[:2] == [f"Label Studio project {escaped}", "It failed"]
    assert written[0].isprintable()
    assert all(line.startswith("  ") for line in written[2:])
    assert written[-2:] == ["  ValueError: wrong", "  FAKE\\x1b[2J"]


def record(message: str, **more: Any) -> logging.LogRecord:
    made = SingleLineRecord("visionloop", logging.INFO, "", 0, message, (), None)
    vars(made).update(more)
    return made


def test_json_keeps_a_hostile_text_in_one_line_of_ascii() -> None:
    line = JsonFormatter(lambda: "a").format(record(HOSTILE, path=HOSTILE))
    assert line.isascii()
    assert line.isprintable()
    found = json.loads(line)
    assert (found["message"], found["path"]) == (HOSTILE, HOSTILE)


def test_a_line_has_the_id_of_the_request_in_whose_context_it_was_made() -> None:
    with of_request("r-1"):
        inside = record("in")
    outside = record("out")
    text, as_json = TextFormatter(lambda: "a"), JsonFormatter(lambda: "a")
    assert text.format(inside).endswith("[INFO] [a] in (request=r-1)")
    assert text.format(outside).endswith("[INFO] [a] out")
    assert json.loads(as_json.format(inside))["request_id"] == "r-1"
    assert "request_id" not in json.loads(as_json.format(outside))
