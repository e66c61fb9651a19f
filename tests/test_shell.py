"""What our shell commands share."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shell import CLOSED_PIPE, age, columns, said

ROOT = Path(__file__).parents[1]
LONG = """
import sys
from shell import run
def main():
    for number in range(200_000):
        print(number)
run(main)
"""
SHORT = "from shell import run; run(lambda: print('one') or 3)"


def test_columns_are_aligned_and_lines_have_no_trailing_spaces() -> None:
    assert columns([("A", "LONG", ""), ("wide", "b", "c")]) == "A     LONG\nwide  b     c"


@pytest.mark.parametrize(
    ("passed", "shown"),
    [(0.2, "0 s"), (59, "59 s"), (60, "1 min"), (7199, "1 h"), (200_000, "2 d"), (-5, "0 s")],
)
def test_an_age_has_its_largest_unit(passed: float, shown: str) -> None:
    now = datetime(2026, 11, 21, 12, tzinfo=UTC)
    assert age((now - timedelta(seconds=passed)).isoformat(), now) == shown


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError(2, "No such file", "/a"), "There is no file or folder /a."),
        (PermissionError(13, "Permission denied", "/a"), "/a: Permission denied."),
        (OSError("the disk is gone"), "the disk is gone"),
    ],
)
def test_failures_of_the_system_are_said_in_words(error: OSError, words: str) -> None:
    assert said(error) == words


def test_a_closed_pipe_ends_a_command_without_a_traceback() -> None:
    command = [sys.executable, "-c", LONG]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "0\n"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == CLOSED_PIPE


@pytest.mark.parametrize("program", ["training", "models_store"])
def test_help_into_a_closed_pipe(program: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", program, "--help"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


def test_the_exit_code_is_that_of_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHORT], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (3, "one\n")


def test_every_command_uses_the_parser_without_abbreviations() -> None:
    files = [path for path in ROOT.rglob("*.py") if ".venv" not in path.parts]
    named = {p for p in files if "argparse.ArgumentParser(" in p.read_text(encoding="utf-8")}
    assert named == {Path(__file__)}
