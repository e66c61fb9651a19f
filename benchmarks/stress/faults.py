"""Disturbs a server under load, and reports what its clients saw and which data was lost.

Five clients send images to recognise and to pre-label, list, upload datasets and correct labels.
Meanwhile there is one fault after another: SIGKILL to each process, again and again; SIGTERM; a
full disk; a locked database; a second server on the same home; a restart while a job runs. The
table has a row for each scenario: the number of faults (tries) and of calls; the calls answered
with 503 and Retry-After or with 507 (refused), with other errors, and not at all (dropped); the
longest time between the first and the last failed call after one fault (outage); the longest time
until everything runs again (recovery); and the number of acknowledged jobs, models and annotations
that are missing at the end (lost).

`python -m benchmarks.stress.faults [--tries 10] [--only detector --only "full disk"]`
"""

from __future__ import annotations

import argparse
import contextlib
import io
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import psutil
from PIL import Image

from benchmarks.cpu import cpu
from benchmarks.stress.jobs import ended, submit
from benchmarks.stress.server import COMMAND, READY, SERVICES, Failed, Service, until
from benchmarks.stress.traffic import DROPPED, OTHER, REFUSED, Span, Traffic, exported_box
from shell import Parser

SETTLE = 2.0  # seconds of undisturbed load between two faults
LOCKED = 12.0  # seconds that the database stays locked
TMPFS_MIB = 400
FULL = 20.0  # seconds that the disk stays full
BUSIEST = 5.0  # longest outage allowed, in seconds


@dataclass
class Row:
    """The result of one scenario."""

    scenario: str
    tries: int = 0
    calls: int = 0
    refused: int = 0
    other: int = 0
    dropped: int = 0
    outage: float = 0.0  # seconds, the longest of all tries
    recovery: float = 0.0  # seconds, the longest of all tries
    lost: list[str] = field(default_factory=list)
    details: Counter[str] = field(default_factory=Counter)
    note: str = ""
    longest_outage: float = BUSIEST  # seconds that are no fault of the service

    def add(self, span: Span, recovery: float) -> None:
        self.tries += 1
        self.calls += len(span.calls)
        self.refused += span.count(REFUSED)
        self.other += span.count(OTHER)
        self.dropped += span.count(DROPPED)
        self.outage = max(self.outage, span.outage())
        self.recovery = max(self.recovery, recovery)
        self.details += span.details()

    def __str__(self) -> str:
        return (
            f"{self.scenario:22}{self.tries:6}{self.calls:8}{self.refused:9}{self.other:7}"
            f"{self.dropped:9}{self.outage:9.1f} s{self.recovery:9.1f} s{len(self.lost):6}"
        )


HEAD = (
    f"{'scenario':22}{'tries':>6}{'calls':>8}{'refused':>9}{'other':>7}{'dropped':>9}"
    f"{'outage':>11}{'recovery':>11}{'lost':>6}"
)


def images(count: int = 8) -> list[bytes]:
    """Drawn JPEG images of 320 × 240 pixels."""
    made = []
    for seed in range(count):
        coarse = np.random.default_rng(seed).integers(0, 256, (15, 20, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((320, 240)).save(buffer, "JPEG")
        made.append(buffer.getvalue())
    return made


def all_run(service: Service, but: frozenset[int] = frozenset()) -> bool:
    """Whether every service runs and requests are answered; no process id may be one of `but`."""
    found = service.services()
    if set(found) != set(SERVICES) or not but.isdisjoint(p.pid for p in found.values()):
        return False
    with contextlib.suppress(httpx.HTTPError):
        image = {"image": images(1)[0]}
        answer = service.client.post(service.url + "/infer", files=image, timeout=10)
        return answer.status_code == 200 and service.is_ready()
    return False


@contextmanager
def loaded(service: Service) -> Iterator[Traffic]:
    """Start a server and the load; stop the server at the end of the block."""
    try:
        service.start()
        with Traffic(service.url, images()) as traffic:
            until(lambda: len(traffic.calls) > 20, READY, "the load begins")
            yield traffic
    finally:
        service.stop()


def settle(traffic: Traffic, seconds: float = SETTLE) -> None:
    time.sleep(seconds)
    if not traffic.calls:
        raise Failed("No call was made.")


def again(
    row: Row, tries: int, service: Service, traffic: Traffic, fault: Callable[[], frozenset[int]]
) -> None:
    """Cause a fault and wait until everything runs again, `tries` times.

    The calls of the clients are counted from the fault until two seconds after the recovery.

    Args:
        fault: Causes the fault; returns the ids of the processes that it ended.
    """
    for _ in range(tries):
        settle(traffic)
        began = time.monotonic()
        killed = fault()
        until(partial(all_run, service, killed), READY, f"{row.scenario}: recovery")
        recovery = time.monotonic() - began
        settle(traffic)
        row.add(traffic.since(began), recovery)


def killing(service: Service, name: str) -> Callable[[], frozenset[int]]:
    """A fault that sends SIGKILL to the process of a service."""

    def kill() -> frozenset[int]:
        process = service.services()[name]
        process.kill()
        return frozenset({process.pid})

    return kill


def killing_the_supervisor(service: Service, how: signal.Signals) -> Callable[[], frozenset[int]]:
    """A fault that ends the supervisor, and starts the server again as systemd would do."""

    def kill() -> frozenset[int]:
        family = service.family()
        assert service.process is not None
        service.process.send_signal(how)
        _, alive = psutil.wait_procs(family, timeout=60)
        if alive:
            raise Failed(
                f"{len(alive)} processes still run 60 s after {how.name} to the supervisor."
            )
        service.process.wait(10)
        service.start()
        return frozenset(process.pid for process in family)

    return kill


def killing_a_job(service: Service, data: Path, jobs: list[str]) -> Callable[[], frozenset[int]]:
    """A fault that submits a job, kills its process, and waits until the job is completed."""

    def kill() -> frozenset[int]:
        job_id = submit(service, data, 3)
        jobs.append(job_id)
        process = until(lambda: service.job_process(job_id), 120, f"job {job_id} runs")
        process.kill()
        if (job := ended(service, job_id))["status"] != "completed":
            raise Failed(f"Job {job_id} is {job['status']}: {job['error']}")
        return frozenset()

    return kill


def lost(service: Service, traffic: Traffic) -> list[str]:
    """The acknowledged data that is missing or different: a description of each."""
    with traffic.annotating:
        return _lost(service, traffic)


def _lost(service: Service, traffic: Traffic) -> list[str]:
    missing = []
    for dataset, boxes in traffic.ledger.corrections.items():
        path = f"{service.url}/api/datasets/{dataset}/export?format=coco&images=false"
        answer = service.client.get(path)
        if answer.status_code != 200:
            missing.append(f"dataset {dataset}: {answer.status_code} {answer.text[:100]}")
        elif (box := exported_box(answer.content)) not in boxes:
            missing.append(f"dataset {dataset}: its box is {box}, not one of {boxes}")
    listed = {job["job_id"]: job for job in service.ask("GET", "/jobs")["jobs"]}
    for job_id in traffic.ledger.jobs:
        job = listed.get(job_id)
        if job is None:
            missing.append(f"job {job_id}")
        elif job["status"] == "completed":
            found = service.client.get(f"{service.url}/models/{job['model_id']}")
            if found.status_code != 200:
                missing.append(f"model {job['model_id']} of job {job_id}")
    return missing


def kills(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """Kill every process of one server, one after another, while the load continues."""
    from synthetic.shapes import write_shapes

    service = Service(folder)
    data = write_shapes(folder / "data" / "shapes", "classify", 16, 8, 32)
    with loaded(service) as traffic:
        jobs = traffic.ledger.jobs
        faults = {name.lower(): killing(service, name) for name in SERVICES}
        faults["gateway"] = faults.pop("visionloop")
        faults["job"] = killing_a_job(service, data, jobs)
        faults["supervisor"] = killing_the_supervisor(service, signal.SIGKILL)
        faults["sigterm"] = killing_the_supervisor(service, signal.SIGTERM)
        faults["restart with a job"] = restarting_with_a_job(service, data, jobs)
        for name, fault in faults.items():
            if options.only and name not in options.only:
                continue
            row = Row(name if " " in name or name == "sigterm" else f"kill -9 {name}")
            few = name in ("job", "sigterm", "restart with a job")
            again(row, min(options.tries, 3) if few else options.tries, service, traffic, fault)
            row.lost = lost(service, traffic)
            yield row


def restarting_with_a_job(
    service: Service, data: Path, jobs: list[str]
) -> Callable[[], frozenset[int]]:
    """A fault that restarts the server with SIGTERM while a job runs; the job must complete."""
    stop = killing_the_supervisor(service, signal.SIGTERM)

    def restart() -> frozenset[int]:
        job_id = submit(service, data, 6)
        jobs.append(job_id)
        until(lambda: service.job_process(job_id), 120, f"job {job_id} runs")
        killed = stop()
        if (job := ended(service, job_id))["status"] != "completed":
            raise Failed(f"Job {job_id} is {job['status']}: {job['error']}")
        return killed

    return restart


def locked_database(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """Hold the write lock of the database: reads and inference must continue."""
    service = Service(folder)
    with loaded(service) as traffic:
        row = Row(
            "locked database", note=f"locked for {LOCKED:g} s", longest_outage=LOCKED + BUSIEST
        )
        settle(traffic)
        began = time.monotonic()
        connection = sqlite3.connect(service.home / "visionloop.db", isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            time.sleep(LOCKED)
            connection.execute("ROLLBACK")
        finally:
            connection.close()
        over = time.monotonic()
        until(lambda: all_run(service), READY, "recovery")
        settle(traffic)
        row.add(traffic.since(began), time.monotonic() - over - SETTLE)
        waits = traffic.since(began, "/api/datasets").slowest()
        row.note += f"; the slowest write was answered after {waits:.1f} s"
        row.note += (
            f", the slowest inference after {traffic.since(began, '/infer').slowest():.1f} s"
        )
        row.lost = lost(service, traffic)
        yield row


def full_disk(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """Fill the disk of the home for a while: inference must continue, and no process may end."""
    row = Row("full disk", note=f"tmpfs of {TMPFS_MIB} MiB", longest_outage=FULL + BUSIEST)
    mounted = ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_MIB}m", "tmpfs", str(folder)]
    if subprocess.run(mounted, capture_output=True).returncode:
        row.note = "NOT RUN: only root may mount a tmpfs"
        yield row
        return
    try:
        service = Service(folder, {"VISIONLOOP_DISK_RESERVE": "0"})
        with loaded(service) as traffic:
            before = {process.pid for process in service.services().values()}
            settle(traffic)
            began = time.monotonic()
            fill(folder / "filler")
            settle(traffic, FULL)
            inference = traffic.since(began, "/infer")
            after = {process.pid for process in service.services().values()}
            (folder / "filler").unlink()
            until(lambda: all_run(service), READY, "recovery")
            over = time.monotonic()
            settle(traffic)
            row.add(traffic.since(began), time.monotonic() - over - SETTLE)
            failed = len(inference.calls) - inference.count("ok")
            row.note += f"; {failed} of {len(inference.calls)} inferences failed"
            row.note += f"; {len(before - after)} processes ended"
            row.lost = lost(service, traffic)
            yield row
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path: Path) -> None:
    """Fill a disk completely with one file."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (2**20, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * size)


def second_server(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """Start another server on the same home: it must end with an error; the first continues."""
    service = Service(folder)
    with loaded(service) as traffic:
        row = Row("second server")
        for _ in range(3):
            began = time.monotonic()
            ended = subprocess.run(
                [*COMMAND, "--port", "0"],
                env=service.environment(),
                cwd=Path(__file__).parents[2],
                capture_output=True,
                text=True,
                timeout=READY,
            )
            said = (ended.stdout + ended.stderr).strip().splitlines()
            if not ended.returncode or "Another VisionLoop server" not in said[-1]:
                raise Failed(f"The second server ended with {ended.returncode}: {said[-1:]}")
            row.add(traffic.since(began), 0.0)
        row.lost = lost(service, traffic)
        yield row


SCENARIOS = {
    "kills": kills,
    "locked database": locked_database,
    "full disk": full_disk,
    "second server": second_server,
}


def main() -> int:
    parser = Parser(
        description=(__doc__ or "").split("\n\n")[0],
        epilog="Exit code 1: data was lost, a client got an error other than 503 with Retry-After "
        f"and 507, or an outage lasted {BUSIEST:g} s longer than its fault.",
    )
    parser.add_argument(
        "--tries", type=int, default=10, help="how often each process is killed (10)"
    )
    parser.add_argument(
        "--only",
        action="append",
        help="run only this scenario, or kill only this process; repeatable",
    )
    options = parser.parse_args()
    print(f"CPU: {cpu()}\n{HEAD}", flush=True)
    rows: list[Row] = []
    for name, scenario in SCENARIOS.items():
        chosen = not options.only or name in options.only
        if not chosen and (name != "kills" or set(options.only) <= set(SCENARIOS)):
            continue
        with tempfile.TemporaryDirectory(prefix="visionloop-stress-") as folder:
            try:
                for row in scenario(Path(folder), options):
                    print(row, flush=True)
                    odd = (f"{n} × {what}" for what, n in row.details.most_common(9))
                    for line in filter(None, [row.note, *row.lost, *odd]):
                        print(f"    {line}", flush=True)
                    rows.append(row)
            except Failed as error:
                log = Path(folder, "log")
                tail = log.read_text(errors="replace")[-3000:] if log.exists() else ""
                print(f"{tail}\nBROKEN: {name}: {error}", file=sys.stderr)
                return 1
    return int(any(row.lost or row.other or row.outage > row.longest_outage for row in rows))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
