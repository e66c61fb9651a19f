"""Kills each part of a small cluster, and checks that no job is lost, run or published twice.

Starts PostgreSQL, an S3 server (JuiceFS' gateway), a Ray cluster with two nodes and two servers on
loopback addresses of this machine, each with homes of its own. While small trainings run: cancel,
and SIGKILL to a worker, a node, a raylet, the leading server and PostgreSQL. Then every job must
have ended, every completed one with one model, which both servers can use.
Needs PostgreSQL (apt-get install postgresql) and the tools of `make test-store` and
`make test-cluster`; `make stress-cluster` installs them.
`python -m benchmarks.cluster [--epochs 12] [--only worker_killed]`
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Collection

from benchmarks.cluster.events import EVENTS, FINAL, Outcome, Stage, prepare
from benchmarks.cluster.parts import cluster, missing
from benchmarks.cpu import cpu
from benchmarks.stress.server import Failed, Service
from shell import Parser


def main() -> int:
    parser = Parser(
        description=(__doc__ or "").split("\n\n")[1],
        epilog="Exit code 1: a check failed; the ends of the servers' logs are shown.",
    )
    add = parser.add_argument
    add("--epochs", type=int, default=12, help="epochs of a training (12)")
    add(
        "--only",
        action="append",
        choices=[event.__name__ for event in EVENTS],
        help="run this event; may be repeated (all)",
    )
    add("--minutes", type=float, default=40, help="no new event after this many minutes (40)")
    options = parser.parse_args()
    chosen = [event for event in EVENTS if not options.only or event.__name__ in options.only]
    if lacking := missing():
        parser.error(f"{lacking} `make stress-cluster` installs it and runs this.")
    began = time.monotonic()
    with cluster() as parts:
        print(f"{cpu()}; everything runs after {time.monotonic() - began:.0f} s", flush=True)
        print(f"{'event':32}{'noticed s':>10}{'resumed s':>10}  seen", flush=True)
        try:
            stage = prepare(parts, options.epochs)
            outcomes = []
            for event in chosen:
                if time.monotonic() - began > 60 * options.minutes:
                    raise Failed(
                        f"The {options.minutes:g} minutes are over before {event.__name__}."
                    )
                outcomes.append(event(stage))
                show(outcomes[-1])
            print(checked(stage))
        except Failed as error:
            for server in parts.servers:
                print(f"--- {server.folder.name}\n{server.log.read_text(errors='replace')[-3000:]}")
            print(f"BROKEN: {error}", file=sys.stderr)
            return 1
    return 0


def show(outcome: Outcome) -> None:
    """Print a line of the table."""
    columns = "".join(
        f"{'':>10}" if seconds is None else f"{seconds:10.1f}"
        for seconds in (outcome.noticed, outcome.resumed)
    )
    print(f"{outcome.event:32}{columns}  {outcome.told}", flush=True)


def checked(stage: Stage) -> str:
    """Check every job and its model; returns a sentence.

    Raises:
        Failed: A job is not final, was completed without a model or with two, or a server cannot
            use its model, or lists other jobs than the other server.
    """
    rows = {job: stage.ended(job) for job in stage.submitted}
    servers = stage.cluster.servers
    listed = [_listed(server, rows) for server in servers]
    if any(one != listed[0] for one in listed):
        raise Failed(f"The servers list different jobs: {listed}")
    lost = [job for job in rows if listed[0].get(job) not in FINAL]
    if lost:
        raise Failed(f"Lost jobs: {lost}")
    models = servers[0].ask("GET", "/models")["models"]
    for job, row in rows.items():
        made = [model["id"] for model in models if model["source"].get("job_id") == job]
        expected = [row.model_id] if row.status == "completed" else []
        if made != expected:
            raise Failed(f"Job {job} is {row.status} ({row.error}); its models: {made}")
        for server in servers if made else ():
            stage.predicts(server, made[0])
    completed = sum(row.status == "completed" for row in rows.values())
    again = sum(row.attempts > 1 for row in rows.values())
    return (
        f"{len(rows)} trainings: {completed} completed with one model each, that both servers use; "
        f"{len(rows) - completed} cancelled; {again} with more than one attempt. None is lost, "
        "none ran twice, none published twice."
    )


def _listed(server: Service, jobs: Collection[str]) -> dict[str, str]:
    """The status of each of these jobs, as a server lists it."""
    found = server.ask("GET", "/jobs")["jobs"]
    return {job["job_id"]: job["status"] for job in found if job["job_id"] in jobs}


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
