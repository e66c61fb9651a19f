"""The shell commands, from their parsers, and the targets of make."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from cli import COMMANDS, OF_BACKUPS, PROG
from cli import command_line as top_line
from docs_reference.markdown import code, table

ROOT = Path(__file__).parents[1]
TARGET = re.compile(r"^([a-z-]+):.*##\s+(.*)$", re.MULTILINE)

HEAD = """# Shell commands

In the checkout, `make` has a target for every usual task, and `bin/visionloop` has all other
commands. It needs the virtual environment `.venv` and works from any folder; `make setup` puts it
into `.venv/bin` as well. The commands read the same environment variables as the server.

## make

"""

BENTO = """
## The server

| command | what it does |
| --- | --- |
| `bentoml serve service:VisionLoop` | serves the checkout; `make serve` runs it |
| `bentoml serve visionloop:latest` | serves the Bento that `make build` made, in any folder |

"""


def commands() -> str:
    """make's targets, then each program's commands and options."""
    targets = TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8"))
    rows = [(code(f"make {name}"), text) for name, text in targets]
    page = HEAD + table(("target", "what it does"), rows) + BENTO
    return page + visionloop()


def visionloop() -> str:
    """The shell command with all its commands."""
    top = top_line()
    rows = [(code(f"{PROG} {name}"), one.help) for name, one in COMMANDS.items()]
    text = f"## {code(PROG)}\n\n{table(('command', 'what it does'), rows)}\n"
    text += f"```text\n{(top.epilog or '').strip()}\n```\n\n"
    seen: set[str] = set()
    for name, one in COMMANDS.items():
        if one.word and one.module in seen:
            continue
        seen.add(one.module)
        made = import_module(one.module).command_line(PROG if one.word else f"{PROG} {name}")
        text += program(made, shown=None if not one.word else "Upkeep") + "\n"
    return text


def program(parser: argparse.ArgumentParser, shown: str | None = None) -> str:
    """A program with all its commands; `shown` is its heading, instead of its name."""
    lines = [f"## {shown or code(parser.prog)}\n", f"{parser.description}\n"]
    subs = list(_commands(parser))
    if not subs:
        lines.append(_arguments(parser))
    for name, sub in subs:
        called = f"{parser.prog} {name}"
        if parser.prog == PROG and name in OF_BACKUPS:
            called = f"{PROG} backup {name}"
        below = list(_commands(sub))
        if not below:
            lines.append(f"### {code(called)}\n\n{sub.description}\n\n{_arguments(sub)}")
        for word, last in below:
            lines.append(f"### {code(f'{called} {word}')}\n\n{last.description}\n")
            lines.append(_arguments(last))
    if parser.epilog:
        epilog = parser.epilog.replace("%(prog)s", parser.prog).replace("%%", "%").strip()
        for name in OF_BACKUPS:
            epilog = epilog.replace(f"{PROG} {name} ", f"{PROG} backup {name} ")
        lines.append(f"```text\n{epilog}\n```\n")
    return "\n".join(lines)


def _arguments(parser: argparse.ArgumentParser) -> str:
    rows = [row for action in parser._actions if (row := _row(action))]
    return table(("argument", "values", "meaning"), rows)


def _commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def _row(action: argparse.Action) -> tuple[str, str, str] | None:
    if isinstance(action, argparse._HelpAction):
        return None
    name = ", ".join(map(code, action.option_strings)) or code(action.metavar or action.dest)
    if action.required or not action.option_strings:
        name = f"**{name}**"
    values = " · ".join(map(code, action.choices or ()))
    if not values and action.option_strings and action.nargs != 0:
        values = {int: "whole number", float: "number"}.get(action.type, "text")  # type: ignore[call-overload]
    return name, values, action.help or ""
