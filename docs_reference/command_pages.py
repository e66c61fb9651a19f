"""The shell commands, from their parsers, and the targets of make."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from access.__main__ import command_line as access_line
from docs_reference.markdown import code, table
from models_store.__main__ import command_line
from training.__main__ import parser as training_parser

ROOT = Path(__file__).parents[1]
TARGET = re.compile(r"^([a-z-]+):.*##\s+(.*)$", re.MULTILINE)

HEAD = """# Shell commands

In the checkout, `make` has a target for every usual task. Three packages have their own commands,
which need the virtual environment `.venv`. They read the same environment variables as the server.

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
    return page + "\n".join(map(program, (command_line(), training_parser(), access_line())))


def program(parser: argparse.ArgumentParser) -> str:
    """A program with all its commands."""
    lines = [f"## {code(parser.prog)}\n", f"{parser.description}\n"]
    for name, sub in _commands(parser):
        lines.append(f"### {code(f'{parser.prog} {name}')}\n\n{sub.description}\n")
        rows = [row for action in sub._actions if (row := _row(action))]
        lines.append(table(("argument", "values", "meaning"), rows))
    if parser.epilog:
        lines.append(f"```text\n{parser.epilog.strip()}\n```\n")
    return "\n".join(lines)


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
