"""`visionloop jobs …`: the jobs of a running server, of every kind."""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

# `python -m` puts the current folder first in sys.path; our imports need the program's folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from commands.client import FULL, WHERE, Refused, Server, address, run_command
from shell import Parser, add_command, age, columns, moment, run, size

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PROG = "python -m commands.jobs"
JOB_HELP = "id of the job, or its first characters, at least 4"
POLL = 5.0  # seconds between two reads of the progress
SOONER = 2.0  # the same after a new line of the log
SHORT = 8  # characters of it in a listing, or more to tell jobs apart
GOES_ON = "The job goes on; `list` shows it."
EPILOG = f"""examples:
  %(prog)s list --kind training
  %(prog)s watch 3f6c9a1e

{WHERE} A JOB may be shortened to its first characters, at least 4.

exit codes: 0 done, 1 refused or the job did not complete, 2 wrong arguments, 130 interrupted
(the job goes on)"""


def watch(server: Server, options: argparse.Namespace) -> int:
    """Show a job's log and progress until it ends."""
    return watch_job(server, server.find(options.job))


def watch_job(server: Server, job_id: str) -> int:
    """Show a job's log and progress until it ends; returns the exit code, 0 if it completed."""
    from rich.console import Console  # slow to import
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:5.1f}%"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task("waiting", total=100.0)
        done, news = threading.Event(), threading.Event()
        reading = (server, job_id, bar, task, done, news)
        poll = threading.Thread(target=_poll, args=reading, daemon=True)
        poll.start()
        for line in server.follow(job_id):
            console.print(line, markup=False, soft_wrap=True)
            news.set()
        done.set()
        news.set()
        poll.join()
    job = server.ask("GET", f"/jobs/{job_id}")
    result = f" {job['model_id']}" if job["model_id"] else ""
    reason = f" {job['error']}" if job["error"] else ""
    print(f"Job {job_id} is {job['status']}.{result}{reason}")
    if groups := _groups(job["metrics"]):
        print(groups)
    if _from_scratch(job):
        print("It was trained from scratch, without pretrained weights: the log says why.")
    return 0 if job["status"] == "completed" else 1


def _from_scratch(job: dict[str, Any]) -> bool:
    resolved = (job.get("config") or {}).get("resolved") or {}
    return (resolved.get("base") or {}).get("kind") == "scratch"


def _groups(metrics: dict[str, Any]) -> str:
    """What an incremental training kept and learned; empty for any other."""
    names = ("old_classes_before", "old_classes", "forgotten", "new_classes")
    before, after, forgotten, new = (metrics.get(name) for name in names)
    parts = []
    if before is not None and after is not None and forgotten is not None:
        parts.append(f"Old classes: {before:.3f} before, {after:.3f} after, {forgotten:+.3f} lost.")
    if new is not None:
        parts.append(f"New classes: {new:.3f}.")
    return " ".join(parts)


def _poll(
    server: Server,
    job_id: str,
    bar: Progress,
    task: TaskID,
    done: threading.Event,
    news: threading.Event,
) -> None:
    """Show the progress: every POLL seconds, and sooner after a new line of the log."""
    last = False
    while not last:
        last = done.wait(SOONER)
        news.wait(POLL - SOONER)
        news.clear()
        try:
            job = server.ask("GET", f"/jobs/{job_id}")
        except Refused:  # the server may be restarting; `follow` reconnects, too
            continue
        epoch = f" epoch {job['current_epoch']}/{job['total_epochs']}" * bool(job["current_epoch"])
        loss = job["metrics"].get("loss")
        shown = f" loss {loss:.3g}" if isinstance(loss, (int, float)) else ""
        outage = ", waits for the database or the object store" * bool(job.get("outage_since"))
        text = job["status"] + epoch + shown + outage
        bar.update(task, completed=job["progress"], description=text)


def list_jobs(server: Server, options: argparse.Namespace) -> int:
    """List the jobs, the newest first."""
    jobs = server.jobs(options.kind)
    if options.json:
        print(json.dumps(jobs, indent=2))
        return 0
    if not jobs:
        print("No jobs yet. Start one: visionloop training start regular --data …")
        return 0
    ids = {job["job_id"] for job in jobs}
    short = next(n for n in range(SHORT, FULL + 1) if len({i[:n] for i in ids}) == len(ids))
    rows: list[tuple[str, ...]] = [
        ("JOB", "MODEL", "MODE", "TASK", "STATE", "PROGRESS", "RUNS ON", "AGE", "SIZE", "RESULT")
    ]
    rows += [_row(job, short) for job in jobs]
    print(columns(rows))
    if leader := server.leader():
        print(f"\n{leader['server']} starts the jobs, since {moment(leader['since'])}.")
    return 0


def _row(job: dict[str, Any], short: int) -> tuple[str, ...]:
    """A job's cells in the listing."""
    result = job["model_id"] or job["error"] or _setback(job)
    kind = "" if job["kind"] == "training" and job["mode"] else job["kind"]
    return (
        job["job_id"][:short],
        job["model_name"] or "-",
        " ".join(filter(None, (kind, job["mode"]))).replace("_", "-"),
        job["task"] or "-",
        job["status"],
        f"{job['progress']:7.1f}%",
        job.get("runs_on") or "-",
        f"{age(job['created_at']):>6}",
        f"{size(job.get('size_bytes', 0)):>9}",
        " ".join(str(result).split()),
    )


def _setback(job: dict[str, Any]) -> str:
    """What holds up a job that has not ended, or did so before; empty: nothing.

    A server of an earlier version does not tell.
    """
    if job["finished_at"]:
        return ""
    if job.get("outage_since"):
        return f"waits for the database or the object store since {moment(job['outage_since'])}"
    interruption = job.get("interruption")
    return _interrupted(interruption) if interruption else ""


def _interrupted(interruption: dict[str, Any]) -> str:
    at = f" at {moment(interruption['at'])}" if interruption["at"] else ""
    return f"was interrupted{at}: {interruption['reason']}"


def logs(server: Server, options: argparse.Namespace) -> int:
    """Print a job's log."""
    job_id = server.find(options.job)
    lines = server.follow(job_id) if options.follow else server.ask("GET", f"/jobs/{job_id}/logs")
    for line in lines["logs"] if isinstance(lines, dict) else lines:
        print(line, flush=True)
    return 0


def cancel(server: Server, options: argparse.Namespace) -> int:
    """End a job."""
    job = server.ask("POST", f"/jobs/{server.find(options.job)}/cancel")
    print(f"Job {job['job_id']} is {job['status']}.")
    return 0


def delete(server: Server, options: argparse.Namespace) -> int:
    """Delete a job that has ended, with its log and its other files; its model stays."""
    job_id = server.find(options.job)
    server.ask("DELETE", f"/jobs/{job_id}")
    print(f"Job {job_id} is deleted.")
    return 0


def show(server: Server, options: argparse.Namespace) -> int:
    """Show a job: its state, request, metrics and result."""
    job = server.ask("GET", f"/jobs/{server.find(options.job)}")
    if options.json:
        print(json.dumps(job, indent=2))
        return 0
    if job.get("interruption"):
        job["interruption"] = _interrupted(job["interruption"])
    rows = [(key, _text(value)) for key, value in job.items() if value not in (None, {}, [])]
    print(columns(rows))
    return 0


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def command_line(prog: str = PROG) -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = Parser(
        prog=prog,
        description="List, show, watch, cancel and delete the jobs of a running server.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    add_commands(commands, address())
    return parser


def add_commands(commands: Any, common: Parser) -> None:
    """Add the commands on jobs to a parser's sub-parsers."""
    command = partial(add_command, commands, parents=[common])
    listed = command("list", list_jobs)
    listed.add_argument("--kind", help="only jobs of this kind, such as training or evaluation")
    listed.add_argument("--json", action="store_true", help="print JSON")
    shown = command("show", show)
    shown.add_argument("job", metavar="JOB", help=JOB_HELP)
    shown.add_argument("--json", action="store_true", help="print JSON")
    command("watch", watch).add_argument("job", metavar="JOB", help=JOB_HELP)
    shown = command("logs", logs)
    shown.add_argument("job", metavar="JOB", help=JOB_HELP)
    shown.add_argument("--follow", action="store_true", help="show new lines until the job ends")
    command("cancel", cancel).add_argument("job", metavar="JOB", help=JOB_HELP)
    command("delete", delete).add_argument("job", metavar="JOB", help=JOB_HELP)


def main(arguments: Sequence[str] | None = None, prog: str = PROG) -> int:
    """Run one command; returns the exit code."""
    return run_command(command_line(prog).parse_args(arguments), GOES_ON)


if __name__ == "__main__":
    run(main)
