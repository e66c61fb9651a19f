"""Command line of the named tokens: `python -m access …`; usable with and without a server."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

# `python -m` puts the current folder first in sys.path; our imports need the program's folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from access.audit import LARGEST, LISTED, MOST_LISTED, AuditLog, to_json
from access.expiry import after, since
from access.scopes import MEANINGS, ORDER
from access.shell import record, shell_user
from access.tokens import Token, TokenStore, lacks_admin
from database import Database
from shell import Parser, add_command, columns, on_database, print_json, run

PROG = "python -m access"
TIMES = "as 90d, 12h, 4w, or a date or time in UTC such as 2027-06-30"
EPILOG = f"""scopes, each with all of those before it:
{chr(10).join(f"  {name:9} {meaning}" for name, meaning in MEANINGS.items())}

examples:
  %(prog)s create anna --scope annotate --expires 90d
  %(prog)s renew anna --old-ends 24h
  %(prog)s revoke anna
  %(prog)s audit --what promote --since 7d

The first named token closes the server: from then on every request needs a token. A running server
on the same VISIONLOOP_HOME sees every change within a second.

exit codes: 0 done, 1 refused (the reason is on stderr), 2 wrong arguments"""


def main(arguments: Sequence[str] | None = None, prog: str = PROG) -> int:
    """Run one command; returns the exit code."""
    options = command_line(prog).parse_args(arguments)
    return on_database(lambda database: options.run(database, options), options.verbose)


def command_line(prog: str = PROG) -> argparse.ArgumentParser:
    """The parser of all commands."""
    common = Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="print JSON instead of text")
    common.add_argument("--verbose", action="store_true", help="print log messages too")
    parser = Parser(
        prog=prog,
        description="Create, list, renew and revoke named tokens, and read the audit trail.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    command = partial(add_command, commands, parents=[common])
    created = command(
        "create", _create, "Create a token. Its text is printed once and cannot be shown again."
    )
    created.add_argument("name", metavar="NAME", help="name of whoever or whatever will use it")
    created.add_argument("--scope", choices=ORDER, required=True, help="what it allows")
    created.add_argument("--expires", metavar="TIME", help=f"{TIMES}; default: never")
    listed = command("list", _list, "List the tokens: scope, state, last use, expiry.")
    listed.add_argument("--all", action="store_true", help="list revoked and expired tokens too")
    renewed = command(
        "renew",
        _renew,
        "Give a token a new secret: the same name and scope, another text, which is printed once.",
    )
    renewed.add_argument("token", metavar="NAME", help="name or id of the token")
    renewed.add_argument(
        "--old-ends",
        metavar="TIME",
        help=f"when every older text of it ends at the latest: {TIMES}; default: now",
    )
    renewed.add_argument(
        "--expires", metavar="TIME", help=f"{TIMES}; default: after as long as the old one"
    )
    revoked = command(
        "revoke", _revoke, "Revoke a token, and what it was before: requests with it get a 401."
    )
    revoked.add_argument("token", metavar="NAME", help="name or id of the token")
    command(
        "open",
        _open,
        "Let requests without a token in again, as far as the settings do, after the last named "
        "token was revoked or has expired.",
    )
    audit = command("audit", _audit, "List the audit trail: who changed what, the newest first.")
    audit.add_argument("--who", default="", help="only entries of this token or caller")
    audit.add_argument(
        "--what",
        default="",
        help="only entries with this text in route, target, description or request id",
    )
    audit.add_argument("--since", metavar="TIME", default="", help=f"only entries since: {TIMES}")
    audit.add_argument(
        "--limit",
        type=_number(MOST_LISTED),
        default=LISTED,
        help=f"maximum number of entries; default: {LISTED}",
    )
    audit.add_argument(
        "--before",
        type=_number(LARGEST),
        metavar="NUMBER",
        help="only entries with a smaller number",
    )
    return parser


def _number(largest: int) -> Callable[[str], int]:
    def parsed(text: str) -> int:
        if re.fullmatch("[0-9]{1,19}", text) and 1 <= int(text) <= largest:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number from 1 to {largest}")

    return parsed


def _create(database: Database, options: argparse.Namespace) -> None:
    store = TokenStore(database)
    expires_at = after(options.expires, "--expires") if options.expires else None
    token, text = store.create(options.name, options.scope, shell_user(), expires_at)
    record(database, "access create", token.name, f"created a token with the scope {token.scope}")
    if options.json:
        print_json(token.to_json() | {"token": text})
    else:
        print(text)
        until = f", until {token.expires_at[:16]} UTC" if token.expires_at else ""
        print(
            f"This is the token {token.name!r} ({token.scope}{until}). It is not shown again. "
            "Every request to this server needs a token now.",
            file=sys.stderr,
        )
    settings = database.settings
    if lacks_admin(store.list()) and not (settings.token or settings.admin_token):
        print(
            "No token has the scope admin: nobody can administrate over HTTP, only in this shell.",
            file=sys.stderr,
        )


def _renew(database: Database, options: argparse.Namespace) -> None:
    store = TokenStore(database)
    expires_at = after(options.expires, "--expires") if options.expires else None
    old_ends = after(options.old_ends, "--old-ends") if options.old_ends else None
    renewed = store.renew(options.token, shell_user(), expires_at, old_ends)
    token = renewed.token
    record(database, "access renew", token.name, f"renewed a token; {renewed.ends}")
    if options.json:
        older = [one.to_json() for one in renewed.older]
        print_json(token.to_json() | {"token": renewed.text, "older": older})
        return
    print(renewed.text)
    until = f", until {token.expires_at[:16]} UTC" if token.expires_at else ""
    print(
        f"This is the token {token.name!r} ({token.scope}{until}) from now on. It is not shown "
        f"again. {renewed.ends[0].upper()}{renewed.ends[1:]}.",
        file=sys.stderr,
    )


def _list(database: Database, options: argparse.Namespace) -> None:
    tokens = TokenStore(database).list()
    shown = [token for token in tokens if options.all or token.state == "valid"]
    if options.json:
        print_json({"tokens": [token.to_json() for token in shown]})
        return
    if not shown:
        more = " --all lists revoked and expired ones." if tokens else ""
        print(f"No named token is valid.{more} Create one: visionloop tokens create NAME --scope …")
        return
    heading = ("NAME", "SCOPE", "STATE", "CREATED", "BY", "LAST USED", "EXPIRES", "ID")
    print(columns([heading, *map(_row, shown)]))


def _row(token: Token) -> tuple[str, ...]:
    times = (_minute(token.last_used_at) or "never", _minute(token.expires_at) or "never")
    made = (_minute(token.created_at), token.created_by)
    return (token.name, token.scope, token.state, *made, *times, token.id)


def _minute(moment: str | None) -> str:
    return (moment or "")[:16].replace("T", " ")


def _revoke(database: Database, options: argparse.Namespace) -> None:
    store = TokenStore(database)
    token = store.revoke(options.token, shell_user())
    record(database, "access revoke", token.name, f"revoked the token with the id {token.id}")
    if options.json:
        print_json(token.to_json())
        return
    print(f"The token {token.name!r} is revoked.")
    if not any(other.state == "valid" for other in store.list()):
        print(
            "No named token is valid any more. Requests still need one. To let those without a "
            "token in, as far as the settings do: visionloop tokens open"
        )


def _open(database: Database, options: argparse.Namespace) -> None:
    was_closed = TokenStore(database).reopen()
    if was_closed:
        record(database, "access open", None, "let requests without a named token in again")
    if options.json:
        print_json({"was_closed": was_closed})
    elif not was_closed:
        print("Named tokens do not close this server. Nothing to do.")
    elif database.settings.token or database.settings.admin_token:
        print("Requests need the tokens of the settings only.")
    else:
        print("The server is open: whoever can reach it can use and change everything.")


def _audit(database: Database, options: argparse.Namespace) -> None:
    moment = since(options.since, "--since") if options.since else ""
    found = AuditLog(database).list(
        options.who, options.what, moment, options.limit, options.before
    )
    if options.json:
        print_json({"entries": [to_json(entry) for entry in found]})
        return
    if not found:
        print("No entries.")
        return
    rows = [
        (
            str(entry.number),
            entry.at[:19].replace("T", " "),
            entry.who,
            entry.address or "",
            f"{entry.method} {entry.route}" if entry.method else entry.route,
            str(entry.status or ""),
            entry.target or "",
            entry.what,
        )
        for entry in found
    ]
    heading = ("NUMBER", "AT", "WHO", "ADDRESS", "WHERE", "STATUS", "TARGET", "WHAT")
    print(columns([heading, *rows]))


if __name__ == "__main__":
    run(main)
