"""`visionloop webhooks …`: the messages of a running server that jobs have ended."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

# `python -m` puts the current folder first in sys.path; our imports need the program's folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from commands.client import WHERE, Server, address, run_command
from shell import Parser, add_command, columns, print_json, run

PROG = "python -m commands.webhooks"
EPILOG = f"""examples:
  %(prog)s list --state failed
  %(prog)s resend 3f6c9a1e5b7d4c2fa0e8d6b4c2a09f17

{WHERE} They need the scope admin.

exit codes: 0 done, 1 refused, or a receiver did not take the test, 2 wrong arguments,
130 interrupted"""


def list_deliveries(server: Server, options: argparse.Namespace) -> int:
    """List the deliveries of the last days, the newest first."""
    query = {"state": options.state} if options.state else {}
    found = server.ask("GET", "/webhooks/deliveries", params=query)["deliveries"]
    if options.json:
        print_json(found)
    elif not found:
        print("No deliveries. They are kept for some days.")
    else:
        heading = ("ID", "EVENT", "JOB", "STATE", "ATTEMPTS", "CREATED", "ADDRESS", "")
        print(columns([heading, *map(_row, found)]))
    return 0


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    return (
        one["id"],
        one["event"],
        one["job_id"],
        one["state"],
        str(one["attempts"]),
        one["created_at"][:16].replace("T", " "),
        one["address"],
        one["last_error"] or "",
    )


def resend(server: Server, options: argparse.Namespace) -> int:
    """Send a delivery again, or a waiting one now: the same body with the same id."""
    found = server.ask("POST", f"/webhooks/deliveries/{options.delivery}/resend")
    if options.json:
        print_json(found)
    else:
        print(f"Delivery {found['id']} ({found['event']}) is sent to {found['address']}.")
    return 0


def test(server: Server, options: argparse.Namespace) -> int:
    """Send an event `test` to every address, and show what the receivers answered."""
    found = server.ask("POST", "/webhooks/test", timeout=None)["results"]
    if options.json:
        print_json(found)
    else:
        for one in found:
            said = "delivered" if one["delivered"] else f"not delivered: {one['error']}"
            print(f"{one['address']}: {said}")
    return 0 if all(one["delivered"] for one in found) else 1


def command_line(prog: str = PROG) -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = Parser(
        prog=prog,
        description="List webhook deliveries of a running server, send one again, test receivers.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    common = address()
    common.add_argument("--json", action="store_true", help="print JSON instead of text")
    command = partial(add_command, commands, parents=[common])
    listed = command("list", list_deliveries)
    listed.add_argument("--state", help="only those that are pending, delivered or failed")
    command("resend", resend).add_argument("delivery", metavar="DELIVERY", help="id of it")
    command("test", test)
    return parser


def main(arguments: Sequence[str] | None = None, prog: str = PROG) -> int:
    """Run one command; returns the exit code."""
    return run_command(command_line(prog).parse_args(arguments), "interrupted")


if __name__ == "__main__":
    run(main)
