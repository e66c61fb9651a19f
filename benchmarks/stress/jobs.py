"""Kills and cancels training jobs at random moments, and checks that none is lost, stuck or broken.

Starts the service on a fresh temporary home, and submits a small training on drawn images in each
round. In each round SIGKILL is sent, at a random moment, to the job's worker, to the Trainer's
process, or to every process of the server, which is then started again. The job must complete and
publish exactly one model, which must answer requests. In further rounds the job is cancelled
instead: it must stop within five seconds, and none of its processes may remain.
`python -m benchmarks.stress.jobs [--rounds 20] [--cancels 10]`
"""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.stress.server import Failed, Service, until
from jobs.artifacts import BEST, CHECKPOINTS, NOTE, TEMPORARY
from jobs.processes import marked
from shell import Parser

FINAL = ("stopped", "completed", "failed")
KILLS = ("worker", "trainer", "everything")
DONE = 300.0  # time limit of a job in seconds, restarts included
CANCELLED = 5.0  # time limit of a cancellation in seconds
SLOW = 3.0  # the log is shown if a job takes this many times as long as an undisturbed job


@dataclass
class Round:
    what: str
    progress: float | None  # percent to wait for; None: no wait, the worker may still be starting
    pause: float  # seconds to wait after the submission, or after this progress
    job_id: str = ""
    reached: str = ""
    ended: str = ""
    attempts: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        moment = f"{self.pause:.1f} s" if self.progress is None else f"{self.progress:.0f} %"
        return (
            f"{self.what:11}{moment:>9}  {self.reached:24}{self.ended:11}"
            f"{self.attempts:3}{self.seconds:8.1f} s"
        )


def kill(service: Service, what: str, job_id: str) -> None:
    """Send SIGKILL to the job's worker, to the Trainer, or to the whole server.

    The whole server is started again afterwards.
    """
    if what == "everything":
        service.kill_all()
        service.start()
        return
    process = service.job_process(job_id) if what == "worker" else service.services()["Trainer"]
    if process is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def submit(service: Service, data: Path, epochs: int) -> str:
    hyper = {"workers": 0, "optimizer": "AdamW", "lr0": 2e-3, "warmup_epochs": 1}
    body = {"task": "classify", "model_type": "n", "data_path": str(data), "imgsz": 64}
    body |= {"epochs": epochs, "batch": 8, "patience": 0, "name": "stressed", "hyper": hyper}
    return str(service.ask("POST", "/api/training/regular", json=body)["task_id"])


def ended(service: Service, job_id: str) -> dict[str, Any]:
    def final() -> Any:
        job = service.ask("GET", f"/jobs/{job_id}")
        return job if job["status"] in FINAL else None

    job: dict[str, Any] = until(final, DONE, f"job {job_id} ends")
    return job


def reached(service: Service, this: Round) -> bool:
    job = service.ask("GET", f"/jobs/{this.job_id}")
    return bool(job["status"] in FINAL or job["progress"] >= (this.progress or 0))


def check_completed(service: Service, job: dict[str, Any], image: bytes) -> None:
    """Check that a job is completed and has published exactly one model, which predicts."""
    if job["status"] != "completed":
        raise Failed(f"Job {job['job_id']} is {job['status']}: {job['error']}")
    models = service.ask("GET", "/models")["models"]
    made = [model["id"] for model in models if model["source"].get("job_id") == job["job_id"]]
    if made != [job["model_id"]]:
        raise Failed(
            f"Job {job['job_id']} names the model {job['model_id']}, but the registry has {made}."
        )
    sent = {"files": {"image": image}, "data": {"model_id": job["model_id"]}}
    if not service.ask("POST", "/infer", **sent)["predictions"]:
        raise Failed(f"{job['model_id']} predicts nothing.")


def at_random(what: str, chance: random.Random) -> Round:
    """A round at a random moment: the start of the worker, the training or the publication."""
    if chance.random() < 0.3:
        return Round(what, None, chance.uniform(0, 10))
    return Round(what, chance.uniform(0, 97), chance.uniform(0, 1))


def play(service: Service, data: Path, epochs: int, this: Round, image: bytes) -> None:
    """Play one round, and record its result in `this`."""
    began = time.monotonic()
    this.job_id = submit(service, data, epochs)
    if this.progress is not None:
        until(lambda: reached(service, this), DONE, f"{this.progress:.0f} % are reached")
    time.sleep(this.pause)
    job = service.ask("GET", f"/jobs/{this.job_id}")
    this.reached = f"{job['status']} {job['progress']:.0f} % epoch {job['current_epoch']}"
    if this.what == "cancel":
        asked = time.monotonic()
        service.ask("POST", f"/jobs/{this.job_id}/cancel")
        job = ended(service, this.job_id)
        took = time.monotonic() - asked
        if took > CANCELLED or this.job_id in marked():
            raise Failed(
                f"Cancelling job {this.job_id} took {took:.1f} s, or left a process running."
            )
        if job["status"] not in ("stopped", "completed"):
            raise Failed(f"The cancelled job {this.job_id} is {job['status']}: {job['error']}")
        models = service.ask("GET", "/models")["models"]
        made = [m["id"] for m in models if m["source"].get("job_id") == this.job_id]
        if made != ([job["model_id"]] if job["status"] == "completed" else []):
            raise Failed(f"Job {this.job_id} is {job['status']}, but the registry has {made}.")
        folder = service.home / "jobs" / this.job_id
        left = [name for name in TEMPORARY if (folder / name).exists()]
        left += [p.name for p in (folder / CHECKPOINTS).glob("*") if p.name not in (BEST, NOTE)]
        if left:
            raise Failed(f"The cancelled job {this.job_id} left these files: {', '.join(left)}.")
        this.seconds = took
    else:
        kill(service, this.what, this.job_id)
        job = ended(service, this.job_id)
        check_completed(service, job, image)
        this.seconds = time.monotonic() - began
    this.ended, this.attempts = job["status"], job["attempts"]


def main() -> int:
    parser = Parser(
        description=(__doc__ or "").split("\n\n")[1],
        epilog="Exit code 1: a check failed; the end of the server's log is shown.",
    )
    add = parser.add_argument
    add("--rounds", type=int, default=20, help="number of rounds with a kill (20)")
    add("--cancels", type=int, default=10, help="number of rounds with a cancellation (10)")
    add("--epochs", type=int, default=6, help="epochs of each training (6)")
    add("--seed", type=int, default=None, help="seed of the random moments; default: a random seed")
    add("--minutes", type=float, default=60, help="no new round after this many minutes (60)")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.randrange(10**6)
    with tempfile.TemporaryDirectory(prefix="visionloop-stress-") as folder:
        service = Service(Path(folder))
        try:
            return run(service, options, random.Random(seed), seed)
        except Failed as error:
            log = service.log.read_text(errors="replace")
            print(f"{log[-3000:]}\nBROKEN (seed {seed}): {error}", file=sys.stderr)
            return 1
        finally:
            service.stop()


def run(service: Service, options: argparse.Namespace, chance: random.Random, seed: int) -> int:
    from synthetic.shapes import write_shapes

    deadline = time.monotonic() + 60 * options.minutes
    data = write_shapes(service.folder / "data" / "shapes", "classify", 48, 12, 64)
    image = sorted((data / "val").rglob("*.jpg"))[0].read_bytes()
    service.start()
    began = time.monotonic()
    undisturbed = ended(service, submit(service, data, options.epochs))
    check_completed(service, undisturbed, image)
    whole = time.monotonic() - began
    print(f"seed {seed}; an undisturbed job takes {whole:.1f} s", flush=True)
    print(f"{'fault':11}{'moment':>9}  {'job then':24}{'job ended':11}try{'seconds':>10}")
    plan = [KILLS[number % len(KILLS)] for number in range(options.rounds)]
    plan += ["cancel"] * options.cancels
    chance.shuffle(plan)
    played: list[Round] = []
    for what in plan:
        if time.monotonic() > deadline:
            print(
                f"The {options.minutes:g} minutes are over; {len(plan) - len(played)} rounds were "
                "not run."
            )
            break
        this = at_random(what, chance)
        played.append(this)
        play(service, data, options.epochs, this, image)
        print(this, flush=True)
        if this.what != "cancel" and this.seconds > SLOW * whole:
            lines = service.ask("GET", f"/jobs/{this.job_id}/logs")["logs"]
            print("\n".join(f"    {line[:150]}" for line in lines), flush=True)
    jobs = {job["job_id"]: job["status"] for job in service.ask("GET", "/jobs")["jobs"]}
    lost = [this.job_id for this in played if jobs.get(this.job_id) not in FINAL]
    left = sorted(marked().keys() & jobs.keys())
    if lost or left:
        raise Failed(f"Lost or stuck jobs: {lost}; jobs with a remaining process: {left}")
    kills = [this for this in played if this.what != "cancel"]
    resumed = sum(this.attempts > 1 for this in kills)
    slowest = max((this.seconds for this in played if this.what == "cancel"), default=0.0)
    print(
        f"{len(kills)} kills: all jobs completed, {resumed} with more than one attempt. "
        f"{len(played) - len(kills)} cancellations: the slowest took {slowest:.2f} s. "
        "No job was lost or stuck, and no process was left."
    )
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
