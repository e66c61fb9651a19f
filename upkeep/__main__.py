"""Command line of the upkeep: `python -m upkeep …`; backups and prune work while a server runs."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

# `python -m` puts the current folder first in sys.path; our imports need the program's folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from errors import ValidationFailed, VisionLoopError
from settings import Settings, get_settings, refusals
from shell import Parser, add_command, columns, print_json, run, said, size
from upkeep.kinds import DAYS, KEEP, MEANING

BACKUP_HELP = "folder or .zip that `backup` wrote"
EPILOG = """examples:
  %(prog)s backup /mnt/backups/2026-11-30
  %(prog)s backup /mnt/backups/2026-12-01 --onto /mnt/backups/2026-11-30
  %(prog)s backup /mnt/backups/2026-12-01 --onto /mnt/backups/2026-11-30 --keep 14
  %(prog)s verify /mnt/backups/2026-12-01
  %(prog)s list /mnt/backups
  %(prog)s restore /mnt/backups/2026-12-01 --force
  %(prog)s restore /mnt/backups/2026-12-01 --model street_signs
  %(prog)s prune all
  %(prog)s prune models --keep 3 --yes

VISIONLOOP_HOME and BENTOML_HOME name what is backed up and where it is restored to.

exit codes: 0 done, 1 refused or damaged (the reason is on stderr), 2 wrong arguments,
130 interrupted (nothing was changed)"""


MIGRATE_EPILOG = """Stop all servers first. If it is killed, run it again: it goes on where it was,
and until it is complete nothing else opens the target. The source stays as it is.

examples:
  %(prog)s to-cluster --dry-run
  %(prog)s to-cluster
  %(prog)s to-home

exit codes: 0 done, 1 refused or failed (the reason is on stderr), 2 wrong arguments,
130 interrupted (run it again)"""


def main(arguments: Sequence[str] | None = None, prog: str = "python -m upkeep") -> int:
    """Run one command; returns the exit code."""
    options = command_line(prog).parse_args(arguments)
    logging.basicConfig(level="ERROR", format="%(message)s", stream=sys.stderr)
    try:
        options.run(options)
    except VisionLoopError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `shell.run` ends the command
        raise
    except OSError as error:
        from disk_space import NO_ROOM, is_disk_full

        print(f"error: {NO_ROOM if is_disk_full(error) else said(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def command_line(prog: str = "python -m upkeep") -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = Parser(
        prog=prog,
        description="Back up, restore, clean up and migrate this VisionLoop.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    common = Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="print JSON instead of text")
    command = partial(add_command, commands, parents=[common])
    made = command("backup", _backup)
    made.add_argument("path", type=Path, metavar="PATH", help="new folder, or new file PATH.zip")
    made.add_argument(
        "--onto",
        type=Path,
        metavar="PREVIOUS",
        help="earlier backup in a folder: files that it has already are hard-linked, not written",
    )
    made.add_argument(
        "--keep",
        type=_kept,
        metavar="N",
        help="afterwards delete older backups of this home beside PATH, so that N are left",
    )
    command("verify", _verify).add_argument("path", type=Path, metavar="PATH", help=BACKUP_HELP)
    command("list", _list).add_argument(
        "folder", type=Path, metavar="FOLDER", help="folder that the backups are in"
    )
    restored = command("restore", _restore)
    restored.add_argument("path", type=Path, metavar="PATH", help=BACKUP_HELP)
    restored.add_argument(
        "--force", action="store_true", help="if the homes are not empty, move their content aside"
    )
    restored.add_argument(
        "--model",
        metavar="MODEL",
        help="restore only this model, NAME or NAME:VERSION, as a new version; the homes may be in "
        "use, and nothing else of them changes",
    )
    _add_prune(commands)
    _add_migrate(commands)
    return parser


def _add_prune(commands: Any) -> None:
    text = " ".join((_prune.__doc__ or "").split())
    made = commands.add_parser("prune", help=text, description=text)
    kinds = made.add_subparsers(required=True, metavar="KIND", title="kinds", dest="kind")
    meanings: list[tuple[str, str]] = [*MEANING.items(), ("all", "everything above")]
    for name, meaning in meanings:
        kind = kinds.add_parser(name, help=meaning, description=f"Delete {meaning}.")
        kind.set_defaults(run=_prune, keep=KEEP, older_than=timedelta(days=DAYS))
        kind.add_argument("--yes", action="store_true", help="delete; without it nothing is")
        kind.add_argument("--json", action="store_true", help="print JSON instead of text")
        if name in ("models", "all"):
            kind.add_argument(
                "--keep",
                type=_count,
                default=KEEP,
                metavar="N",
                help=f"newest versions of each name that stay; default: {KEEP}",
            )
        if name not in ("models", "temporary"):
            kind.add_argument(
                "--older-than",
                type=_duration,
                default=timedelta(days=DAYS),
                metavar="AGE",
                help=f"age, such as 30d, 12h or 0d; default: {DAYS:g}d",
            )


def _add_migrate(commands: Any) -> None:
    text = " ".join((_migrate.__doc__ or "").split())
    made = commands.add_parser(
        "migrate",
        help=text,
        description=text,
        epilog=MIGRATE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.set_defaults(run=_migrate)
    made.add_argument(
        "direction",
        choices=("to-cluster", "to-home"),
        help="to-cluster: from VISIONLOOP_HOME and BENTOML_HOME to VISIONLOOP_DATABASE_URL and "
        "VISIONLOOP_STORE_URL; to-home: back",
    )
    made.add_argument("--dry-run", action="store_true", help="show what there is, and check")
    made.add_argument(
        "--server-home",
        default="/data/home",
        metavar="PATH",
        help="VISIONLOOP_HOME of the cluster's servers, for paths in rows; default: /data/home, "
        "as in the container image",
    )
    made.add_argument(
        "--server-models",
        default="/data/bento",
        metavar="PATH",
        help="BENTOML_HOME of the cluster's servers; default: /data/bento",
    )
    made.add_argument("--json", action="store_true", help="print JSON instead of text")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def _kept(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _duration(text: str) -> timedelta:
    """An age such as `30d`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(w|d|h|m|min)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not an age; write 30d, 12h or 90min")
    unit = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "min": "minutes"}[found[2]]
    try:
        return timedelta(**{unit: float(found[1])})
    except OverflowError:
        raise argparse.ArgumentTypeError(f"{text!r} is too long ago") from None


def _prune(options: argparse.Namespace) -> None:
    """Show what nobody needs and how many bytes it takes up; with --yes, delete it. What is in use
    stays. A running server notices."""
    import json

    from access.shell import record
    from database import Database
    from models_store.decision_log import by_user
    from upkeep.prune import KINDS, Limits, Stores, delete, plan

    database = Database(_home_in_use())
    try:
        kinds = KINDS if options.kind == "all" else (options.kind,)
        limits = Limits(options.keep, options.older_than)
        found = plan(Stores.of(database), kinds, limits, by_user())
        done = delete(found) if options.yes else None
        if done:
            kinds_of = Counter(item.kind for item in done)
            told = ", ".join(f"{number:,} of {kind}" for kind, number in kinds_of.items())
            record(database, "upkeep prune", None, f"deleted {told}")
    finally:
        database.close()
    if options.json:
        print(json.dumps(found.to_json(done), indent=1))
        return
    items = found.items if done is None else done
    for one in found.kept:
        print(f"stays: {one.kind} {one.id}: {one.reason}")
    if items:
        rows = [("KIND", "ID", "SIZE", "WHY")]
        rows += [(one.kind, one.id, f"{size(one.bytes):>9}", one.reason) for one in items]
        print(columns(rows))
    total = size(sum(item.bytes for item in items))
    if done is not None:
        print(f"Deleted {len(items):,}: {total} are free again.")
    elif items:
        print(f"{len(items):,} can be deleted: {total}. Nothing is yet: add --yes.")
    else:
        print("Nothing to delete.")


def _backup(options: argparse.Namespace) -> None:
    """Back up the database, models, datasets, jobs and evaluations to a folder or a .zip, while the
    server runs. `backup verify PATH` checks a backup, `backup list FOLDER` lists those in one."""
    import json

    from access.shell import record_in
    from database import HEAD
    from upkeep.backup import backup, summary, to_json
    from upkeep.rotation import Rotated, rotate

    rotated = Rotated((), ())
    with _progress(options) as stage:
        result = backup(_settings(), options.path, options.onto, stage)
    current = result.header.schema == HEAD  # an old home is left as it is, and has no audit trail
    if current:
        _note(result.header.created_at)
    if options.keep is not None:
        rotated = rotate(result.path, result.header, options.keep)
    if current:
        gone = ", ".join(path.name for path in rotated.deleted)
        more = f", and deleted the older {gone}" if gone else ""
        record_in(_settings(), "upkeep backup", f"wrote a backup to {result.path}{more}")
    if options.json:
        deleted = [str(path) for path in rotated.deleted]
        print(json.dumps(to_json(result) | {"deleted": deleted}, indent=1))
    else:
        print(summary(result))
        for path in rotated.deleted:
            print(f"Deleted the older backup {path}.")
    for note in (*result.header.notes, *rotated.notes):
        print(f"note: {note}", file=sys.stderr)


def _note(created_at: str) -> None:
    """Note for the metric when the home was last backed up; if that fails, a warning says so."""
    from database import FAILURES, Database
    from monitoring.last_backup import note_backup

    try:
        with closing(Database(_settings())) as database:
            note_backup(database, created_at)
    except FAILURES as error:
        print(
            f"warning: it is done, but the metric does not tell its time: {error}", file=sys.stderr
        )


def _verify(options: argparse.Namespace) -> None:
    """Read a whole backup and compare every file with its hash."""
    import json

    from upkeep.storage import opened, verify

    backup = opened(options.path)
    with _progress(options) as stage:
        manifest = verify(backup, stage("verifying", backup.manifest().header.bytes))
    header = manifest.header
    if options.json:
        print(json.dumps({"path": str(options.path), **header.to_json()}, indent=1))
        return
    print(
        f"{options.path} is complete: {header.files:,} files, {size(header.bytes)}, of "
        f"{header.created_at[:16].replace('T', ' ')} UTC by VisionLoop {header.visionloop}."
    )


def _list(options: argparse.Namespace) -> None:
    """List the backups in a folder, the newest first: time, version, content, size, whether all
    files are there with their sizes, and whether they are of this home. No file is read: `backup
    verify PATH` does that."""
    from upkeep.listing import backups_in, table

    found, notes = backups_in(Path(os.path.abspath(options.folder)), _settings().home)
    if options.json:
        print_json([one.to_json() for one in found])
    else:
        print(table(found) if found else f"There is no backup in {options.folder}.")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def _restore(options: argparse.Namespace) -> None:
    """Restore a backup into empty homes; its hashes are checked before anything is put in place.
    With --model, restore a single model into homes that are in use."""
    import json

    if options.model is not None:
        _restore_model(options)
        return

    from access.shell import record_in
    from upkeep.restore import restore

    with _progress(options) as stage:
        done = restore(_settings(), options.path, options.force, stage)
    record_in(_settings(), "upkeep restore", f"restored the backup of {done.header.created_at}")
    if options.json:
        shown = {"home": str(done.home), "models": str(done.models), **done.header.to_json()}
        print(json.dumps(shown | {"aside": [str(folder) for folder in done.aside]}, indent=1))
        return
    print(f"Restored to {done.home} and {done.models}. Start the server: running jobs resume.")
    for folder in done.aside:
        print(f"The former content is in {folder}; delete it when you no longer need it.")


def _restore_model(options: argparse.Namespace) -> None:
    import json

    from access.shell import record
    from database import Database
    from models_store.registry import Registry
    from upkeep.model_restore import restore_model

    if options.force:
        raise ValidationFailed(
            "--force moves the whole content of the homes aside; --model changes nothing else of "
            "them. Leave one of the two out."
        )
    database = Database(_home_in_use())
    try:
        with _progress(options) as stage:
            done = restore_model(Registry(database), options.path, options.model, stage)
        if done.new:
            what = f"restored the model {done.was} of the backup {options.path}"
            record(database, "upkeep restore", done.model.id, what)
    finally:
        database.close()
    if options.json:
        shown = {"model_id": done.model.id, "was": done.was, "new": done.new}
        print(json.dumps(shown, indent=1))
    elif done.new:
        print(
            f"Restored {done.was} as {done.model.id}, with its metrics. It is not promoted: "
            f"visionloop models promote {done.model.id}"
        )
    else:
        print(f"{done.was} is here already, with the same weights: {done.model.id}.")


def _home_in_use() -> Settings:
    """The settings, whose home must exist."""
    settings = _settings()
    if not settings.home.is_dir():
        raise ValidationFailed(
            f"There is no VisionLoop in {settings.home}. Set VISIONLOOP_HOME to the server's."
        )
    return settings


def _migrate(options: argparse.Namespace) -> None:
    """Move a home to Postgres and S3, or back: all rows, models, datasets, jobs, evaluations and
    kept images. Each tree is read back and compared, each table counted."""
    from upkeep.migration.migrate import migrate, moved, planned, sides
    from upkeep.migration.owners import kinds
    from upkeep.migration.report import summary, to_json

    found = sides(_settings())
    here = {found.home.home: options.server_home, found.models.home: options.server_models}
    if options.dry_run:
        report = planned(options.direction, found, kinds)
    else:
        with _progress(options) as stage:
            report = migrate(options.direction, found, kinds, moved(options.direction, here), stage)
    print(to_json(report) if options.json else summary(report, options.dry_run))


def _settings() -> Settings:
    from pydantic import ValidationError

    try:
        return get_settings()
    except ValidationError as error:
        raise ValidationFailed(" ".join(refusals(error))) from error


@contextmanager
def _progress(options: argparse.Namespace) -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """A context with a `Stage` that shows progress on stderr, if that is a terminal."""
    if options.json or not sys.stderr.isatty():
        yield lambda name, total: lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = (TextColumn("{task.description:22}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:

        def stage(name: str, total: int) -> Callable[[int], None]:
            task = bar.add_task(name, total=total)
            return lambda count: bar.update(task, advance=count)

        yield stage


if __name__ == "__main__":
    run(main)
