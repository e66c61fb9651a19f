"""What our shell commands share: aligned columns, ages, and the end of a pipe that was closed."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import NoReturn

INVALID = re.compile(r".*invalid choice: '([^']*)' \(choose from (.*)\)")

CLOSED_PIPE = 141  # the exit code that shells give a command ended by SIGPIPE
UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


class Parser(argparse.ArgumentParser):
    """A parser that suggests the known word next to an unknown one (as Python 3.14 can)."""

    def error(self, message: str) -> NoReturn:
        if found := INVALID.fullmatch(message):
            near = get_close_matches(found[1], re.findall(r"[\w-]+", found[2]), 1)
            message += f". Did you mean {near[0]!r}?" if near else ""
        super().error(message)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines with aligned columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "\n".join(lines)


def age(since: str, now: datetime | None = None) -> str:
    """How long ago an ISO 8601 time was, in its largest unit.

    Examples:
        >>> age("2026-11-21T10:00:00+00:00", datetime(2026, 11, 21, 12, 30, tzinfo=UTC))
        '2 h'
    """
    passed = ((now or datetime.now(UTC)) - datetime.fromisoformat(since)).total_seconds()
    for seconds, unit in UNITS:
        if passed >= seconds:
            return f"{passed // seconds:.0f} {unit}"
    return "0 s"


def size(count: int) -> str:
    """A number of bytes in the unit that suits it, as disks are sold: powers of 1,000.

    Examples:
        >>> size(1_234_567)
        '1.2 MB'
    """
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a command and exit with its code.

    A reader that closes the pipe early (`| head -1`) ends it without a traceback. SIGPIPE is not
    restored for that: a server that closes a connection would end the command, too.
    """
    code: int | str | None
    try:
        try:
            code = main()
        except SystemExit as ended:  # of argparse, after --help
            code = ended.code
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's last flush
        code = CLOSED_PIPE
    sys.exit(code)
