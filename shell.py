"""What shell commands share: aligned columns, JSON, ages, and the end of a pipe that was closed."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from database import Database

INVALID = re.compile(r".*invalid choice: '([^']*)' \(choose from (.*)\)")

CLOSED_PIPE = 141  # the exit code that shells give a command ended by SIGPIPE
UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


class Parser(argparse.ArgumentParser):
    """A parser that suggests the known word next to an unknown one (as Python 3.14 can).

    It takes no abbreviated options: one would change its meaning with the next version.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False} | options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, rest = super().parse_known_args(args, namespace)
        for unknown in rest:
            if unknown.startswith("-"):
                self.error(f"there is no option {unknown!r}{self._meant(unknown)}")
        return found, rest

    def _meant(self, unknown: str) -> str:
        name = unknown.partition("=")[0]
        known = [text for text in self._option_string_actions if text.startswith("--")]
        close = [text for text in known if text.startswith(name)] if len(name) > 2 else []
        close = close or get_close_matches(name, known, n=1)
        return f": did you mean {close[0]}?" if close else f"; see {self.prog} --help"

    def error(self, message: str) -> NoReturn:
        if found := INVALID.fullmatch(message):
            near = get_close_matches(found[1], re.findall(r"[\w-]+", found[2]), 1)
            message += f". Did you mean {near[0]!r}?" if near else ""
        super().error(message)


def existing(path: Path, expected: str) -> Path:
    """A path that a user named, if it is there. Raises FileNotFoundError in words if it is not.

    Args:
        path: The path.
        expected: What it is to be.
    """
    if path.exists():
        return path
    where = "" if path.is_absolute() else f" in {Path.cwd()}"
    raise FileNotFoundError(f"There is no {path}{where}. Name {expected}.")


def add_command(
    commands: Any,
    name: str,
    run: Callable[..., Any],
    text: str | None = None,
    parents: Sequence[argparse.ArgumentParser] = (),
) -> argparse.ArgumentParser:
    """Add a command to a parser's sub-parsers.

    Args:
        commands: As `add_subparsers` returns it.
        name: The word that is typed.
        run: What the command does; `options.run` of the parsed arguments.
        text: Its help; default: the docstring of `run`.
        parents: Parsers whose arguments it takes, too.
    """
    about = text or " ".join((run.__doc__ or "").split())
    made: argparse.ArgumentParser
    made = commands.add_parser(name, help=about, description=about, parents=parents)
    made.set_defaults(run=run)
    return made


def said(error: OSError) -> str:
    """What a failed call of the system says, in words, with the file that it is about."""
    if error.filename is None:
        return str(error)
    if isinstance(error, FileNotFoundError):
        return f"There is no file or folder {error.filename}."
    return f"{error.filename}: {error.strerror}."


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines with aligned columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "\n".join(lines)


def print_json(value: Any) -> None:
    """Print what `--json` asks for."""
    print(json.dumps(value, indent=1, ensure_ascii=False))


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


def moment(time: str) -> str:
    """An ISO 8601 time in UTC, to the minute.

    Examples:
        >>> moment("2026-11-21T10:00:59.123+00:00")
        '2026-11-21 10:00 UTC'
    """
    return f"{time[:16].replace('T', ' ')} UTC"


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


def on_database(command: Callable[[Database], object], verbose: bool = False) -> int:
    """Run a command on the database of the settings; returns the exit code.

    Refusals and failures are sentences on stderr. Log messages are shown if `verbose`.
    """
    from pydantic import ValidationError  # what these import is slow to import
    from sqlalchemy.exc import SQLAlchemyError

    from database import Database
    from errors import ValidationFailed, VisionLoopError
    from settings import get_settings, refusals

    logging.basicConfig(level="WARNING", format="%(message)s", stream=sys.stderr)
    if not verbose:
        logging.disable(logging.ERROR)
    try:
        try:
            settings = get_settings()
        except ValidationError as error:
            raise ValidationFailed(" ".join(refusals(error))) from error
        database = Database(settings)
        try:
            command(database)
        finally:
            database.close()
    except VisionLoopError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 1
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        print(f"error: the database cannot be used: {reason}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `run` ends the command
        raise
    except OSError as error:
        print(f"error: {said(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a command and exit with its code.

    A reader that closes the pipe early (`| head -1`) ends it without a traceback. SIGPIPE is not
    restored for that: a server that closes a connection would end the command, too. Output that was
    closed before (`>&-`) goes nowhere.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # its number is that of the next file that is opened
            stream = open(os.devnull, mode)  # noqa: SIM115
            os.set_inheritable(stream.fileno(), True)  # `serve` becomes the server
            setattr(sys, name, stream)
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
