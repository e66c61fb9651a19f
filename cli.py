"""The shell command `visionloop`, which `bin/visionloop` runs: the commands of all packages in one.

Each command's module is imported only when it is called, so that the help is there at once.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036, before anything that an older Python cannot read
    sys.exit("VisionLoop needs Python 3.11 or newer: name one, as VISIONLOOP_PYTHON=python3.13.")

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parent
if str(ROOT) not in sys.path:  # PYTHONSAFEPATH leaves it out
    sys.path.insert(0, str(ROOT))

from shell import Parser, run  # noqa: E402
from source_tree import VERSION  # noqa: E402

PROG = "visionloop"
OF_BACKUPS = ("verify", "list")
"""Commands of the upkeep that are typed after `backup`."""

EPILOG = """`visionloop COMMAND --help` has more. models, engines, tokens, audit, backup,
restore, prune and migrate work on the folders VISIONLOOP_HOME and BENTOML_HOME of this machine;
restore and migrate without a server, the others with and without. training, datasets and jobs ask
the server at --url or VISIONLOOP_URL (http://127.0.0.1:3000), with the token in
VISIONLOOP_ADMIN_TOKEN or VISIONLOOP_TOKEN."""


@dataclass(frozen=True)
class Command:
    """A command, and the module whose parser and `main` it is.

    Attributes:
        help: What it does.
        module: Has `main(arguments, prog)` and `command_line(prog)`.
        word: The command of that module that it is; "": all of them.
    """

    help: str
    module: str
    word: str = ""


COMMANDS = {
    "models": Command("list, import, fetch, promote, export, delete", "models_store.__main__"),
    "engines": Command("which engine serves a model, and why; try them again", "engines.__main__"),
    "training": Command("start trainings and watch them", "training.__main__"),
    "datasets": Command("list, upload, check, export, delete", "commands.datasets"),
    "jobs": Command("list, show, watch, cancel and delete jobs of every kind", "commands.jobs"),
    "tokens": Command("create, list, renew and revoke named tokens", "access.__main__"),
    "webhooks": Command("list deliveries, send one again, test the receivers", "commands.webhooks"),
    "audit": Command("list who changed what", "access.__main__", "audit"),
    "backup": Command(
        "back up while the server runs; verify, list backups", "upkeep.__main__", "backup"
    ),
    "restore": Command("restore a backup into empty folders", "upkeep.__main__", "restore"),
    "prune": Command("delete what nobody needs; shows it first", "upkeep.__main__", "prune"),
    "migrate": Command("move a home to Postgres and S3, or back", "upkeep.__main__", "migrate"),
    "serve": Command("serve on 127.0.0.1:3000", "commands.serve"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] not in COMMANDS:
        command_line().parse_args(words)  # the help, the version, or what is wrong
        return 2
    name, *rest = words
    command = COMMANDS[name]
    try:
        called = import_module(command.module).main
        if not command.word:
            code: int = called(rest, f"{PROG} {name}")
        elif name == "backup" and rest and rest[0] in OF_BACKUPS:
            code = called(rest, f"{PROG} backup")
        else:
            code = called([command.word, *rest], PROG)
    except ModuleNotFoundError as error:
        print(
            f"error: {sys.executable} lacks the package {error.name}. Run `make setup` in {ROOT}, "
            "or name a Python that has what requirements.lock names: VISIONLOOP_PYTHON=…",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:  # while it was imported
        print("interrupted", file=sys.stderr)
        return 130
    return code


def command_line() -> argparse.ArgumentParser:
    """The parser of the command's first word."""
    parser = Parser(
        prog=PROG,
        description="VisionLoop: annotate, train, evaluate, promote, serve.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"VisionLoop {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.help, add_help=False)
    return parser


if __name__ == "__main__":
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "true")  # no usage reports
    run(main)
