"""`python -m training …`: start, watch and cancel jobs of a running server, without curl."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from shell import age, columns, run

URL = "http://127.0.0.1:3000"
MODES = ("regular", "freeze-strategy", "incremental", "distillation")
WHOLE = {  # fields with whole numbers
    "epochs": "number of epochs",
    "imgsz": "image size in pixels",
    "batch": "images per training step",
    "patience": "epochs without improvement after which the training stops early; 0: never",
    "min_epochs_per_stage": "freeze-strategy: minimum number of epochs of each stage",
}
LEARNING = {  # fields of the two modes that use another model or old data
    "new_classes": (str, "incremental: class names to add, separated by commas"),
    "rehearsal": (str, "incremental: how old images are selected for replay"),
    "old_data_path": (
        str,
        "incremental, distillation: old data to replay, in the same form as --data",
    ),
    "replay_ratio": (float, "incremental, distillation: share of old images in each epoch"),
    "max_replay_samples": (
        int,
        "incremental, distillation: largest number of old images to replay",
    ),
    "replay_distill_boost": (float, "distillation: factor for the distillation loss on old images"),
    "distill_temperature": (float, "distillation: softmax temperature for teacher and student"),
    "distill_cls_weight": (
        float,
        "distillation: weight of the class score loss; 0 disables this loss",
    ),
    "distill_reg_weight": (float, "distillation: weight of the box loss"),
    "distill_feat_weight": (float, "distillation: weight of the feature loss"),
    "distill_mask_weight": (float, "distillation: weight of the mask loss"),
    "consistency_weight": (float, "distillation: weight of the consistency loss, if enabled"),
    "pseudo_conf_threshold": (float, "distillation: smallest confidence of a pseudo-label"),
}
JOB_HELP = "id of the job, or its first characters, at least 4"
FULL = 32  # characters of a job's id
SHORT = 8  # characters of it in a listing, or more to tell jobs apart
SILENCE = 40.0  # seconds without a heartbeat, after which the log is requested again
STEP = 0.5

EPILOG = """examples:
  python -m training start regular --data shapes/data.yaml --model n --epochs 30
  python -m training start freeze-strategy --data signs/ --task classify --model my_model --no-watch
  python -m training watch 3f6c…

The server is found at --url or VISIONLOOP_URL (http://127.0.0.1:3000), the token in
VISIONLOOP_ADMIN_TOKEN or VISIONLOOP_TOKEN. A JOB may be shortened to its first characters, at
least 4.

exit codes: 0 done, 1 refused or the job did not complete, 2 wrong arguments, 130 interrupted
(the job goes on)"""


class Refused(Exception):
    """The server refused a request, or cannot be reached."""


class Server:
    """HTTP client of the commands."""

    def __init__(self, url: str, token: str | None) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.url = url
        self.client = httpx.Client(base_url=url, headers=headers, timeout=SILENCE)

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """Send a request; returns the JSON of the response. Raises Refused with the reason."""
        try:
            answer = self.client.request(method, path, **options)
        except httpx.TimeoutException:
            raise Refused(f"{self.url} did not answer within {SILENCE:g} seconds.") from None
        except httpx.TransportError as error:
            raise Refused(
                f"No server answers at {self.url} ({error}). Start one: make serve"
            ) from None
        if answer.status_code == 204:
            return None
        try:
            content = answer.json()
        except ValueError:
            raise Refused(f"{self.url} is not a VisionLoop server.") from None
        if answer.is_error:
            raise Refused(str(content.get("message", content)))
        return content

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs, the newest first."""
        found: list[dict[str, Any]] = []
        while page := self.ask("GET", "/jobs", params=_older(found))["jobs"]:
            found += page
        return found

    def find(self, start: str) -> str:
        """The full id of the job whose id begins with `start`. Raises Refused unless one does."""
        if len(start) == FULL:
            return start
        if not start.isalnum():
            raise Refused(f"{start!r} is no job's id. See: python -m training list")
        return str(self.ask("GET", f"/jobs/{start}")["job_id"])

    def follow(self, job_id: str) -> Iterator[str]:
        """The lines of the log until the job ends. Reconnects if a connection breaks."""
        last = ""
        while True:
            try:
                with self.client.stream(
                    "GET",
                    f"/jobs/{job_id}/logs",
                    params={"follow": "true"},
                    headers={"Last-Event-ID": last} if last else {},
                ) as answer:
                    if answer.status_code != 200:  # 204: nothing more will come
                        return
                    ended = False
                    for line in answer.iter_lines():
                        name, _, value = line.partition(": ")
                        if name == "id":
                            last = value
                        elif line == "event: end":
                            ended = True
                        elif name == "data" and not ended:
                            yield value
                    if ended:
                        return
            except httpx.TransportError:
                pass
            time.sleep(STEP)


def _older(jobs: Sequence[dict[str, Any]]) -> dict[str, str]:
    return {"before": jobs[-1]["job_id"]} if jobs else {}


def start(server: Server, options: argparse.Namespace) -> int:
    """Start a training, and watch it unless told not to."""
    given = ("task", "name", "enable_consistency", *WHOLE, *LEARNING)
    body: dict[str, Any] = {name: getattr(options, name) for name in given}
    body |= {"data_path": _absolute(options.data)}
    body |= {"old_data_path": _absolute(options.old_data_path)}
    body |= {"model_type": options.model, "resume_weights": options.weights}
    body |= {"base_model_path": options.base_model, "teacher_model_path": options.teacher}
    body["hyper"] = dict(options.hyper)
    sent = {name: value for name, value in body.items() if value not in (None, {})}
    answer = server.ask("POST", f"/api/training/{options.mode}", json=sent)
    print(f"{answer['message']} Job {answer['task_id']}")
    for note in answer.get("notes", ()):
        print(f"Note: {note}")
    return watch_job(server, answer["task_id"]) if options.watch else 0


def _absolute(data: str | None) -> str | None:
    """Make an existing path absolute, as the server's folder may differ; else (an id) unchanged."""
    return str(Path(data).resolve()) if data and Path(data).exists() else data


def watch(server: Server, options: argparse.Namespace) -> int:
    """Show a job's log and progress until it ends."""
    return watch_job(server, server.find(options.job))


def watch_job(server: Server, job_id: str) -> int:
    """Show a job's log and progress until it ends; returns the exit code, 0 if it completed."""
    console = Console(highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:5.1f}%"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task("waiting", total=100.0)
        done = threading.Event()
        poll = threading.Thread(target=_poll, args=(server, job_id, bar, task, done), daemon=True)
        poll.start()
        for line in server.follow(job_id):
            console.print(line, markup=False, soft_wrap=True)
        done.set()
        poll.join()
    job = server.ask("GET", f"/jobs/{job_id}")
    result = f" {job['model_id']}" if job["model_id"] else ""
    reason = f" {job['error']}" if job["error"] else ""
    print(f"Job {job_id} is {job['status']}.{result}{reason}")
    return 0 if job["status"] == "completed" else 1


def _poll(server: Server, job_id: str, bar: Progress, task: TaskID, done: threading.Event) -> None:
    last = False
    while not last:
        last = done.wait(STEP)
        try:
            job = server.ask("GET", f"/jobs/{job_id}")
        except Refused:  # the server may be restarting; `follow` reconnects, too
            continue
        epoch = f" epoch {job['current_epoch']}/{job['total_epochs']}" * bool(job["current_epoch"])
        loss = job["metrics"].get("loss")
        shown = f" loss {loss:.3g}" if isinstance(loss, (int, float)) else ""
        bar.update(task, completed=job["progress"], description=job["status"] + epoch + shown)


def list_jobs(server: Server, options: argparse.Namespace) -> int:
    """List the jobs, the newest first."""
    jobs = server.jobs()
    if options.json:
        print(json.dumps(jobs, indent=2))
        return 0
    if not jobs:
        print("No jobs yet. Start one: python -m training start regular --data …")
        return 0
    ids = {job["job_id"] for job in jobs}
    short = next(n for n in range(SHORT, FULL + 1) if len({i[:n] for i in ids}) == len(ids))
    rows: list[tuple[str, ...]] = [
        ("JOB", "MODEL", "MODE", "TASK", "STATE", "PROGRESS", "AGE", "RESULT")
    ]
    rows += [_row(job, short) for job in jobs]
    print(columns(rows))
    return 0


def _row(job: dict[str, Any], short: int) -> tuple[str, ...]:
    """A job's cells in the listing."""
    result = job["model_id"] or job["error"] or ""
    return (
        job["job_id"][:short],
        job["model_name"] or "-",
        (job["mode"] or job["kind"]).replace("_", "-"),
        job["task"] or "-",
        job["status"],
        f"{job['progress']:7.1f}%",
        f"{age(job['created_at']):>6}",
        " ".join(str(result).split()),
    )


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


def parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--url",
        default=os.environ.get("VISIONLOOP_URL") or URL,
        help=f"address of the server; default: VISIONLOOP_URL, else {URL}",
    )
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description="Training jobs of a running VisionLoop server.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")

    def command(
        name: str, run: Callable[[Server, argparse.Namespace], int]
    ) -> argparse.ArgumentParser:
        text = (run.__doc__ or "").strip()
        made = commands.add_parser(name, parents=[common], help=text, description=text)
        made.set_defaults(run=run)
        return made

    started = command("start", start)
    started.add_argument("mode", choices=MODES, help="training mode")
    started.add_argument(
        "--data",
        required=True,
        help="dataset to train on: a data.yaml, a folder with one folder per class, or its id",
    )
    started.add_argument(
        "--task",
        choices=("detect", "segment", "classify", "pose"),
        help="task of the model; default: detect",
    )
    started.add_argument(
        "--model",
        help="model to train: a size (n, s, m, l or x), a model id, or a network's name such as "
        "yolo11n or mobilenet",
    )
    started.add_argument(
        "--weights", help="weights to start from: a path, a model id, or the id of a failed job"
    )
    started.add_argument("--base-model", help="incremental: the model to extend")
    started.add_argument("--teacher", help="distillation: the model to learn from")
    started.add_argument("--name", help="name of the new model")
    for name, text in WHOLE.items():
        started.add_argument(_flag(name), type=int, help=text)
    for name, (kind, text) in LEARNING.items():
        started.add_argument(_flag(name), dest=name, type=kind, help=text)
    consistency = started.add_argument("--enable-consistency", action="store_const", const=True)
    consistency.help = "distillation: train for equal predictions on augmented and original images"
    started.add_argument(
        "--hyper",
        action="append",
        default=[],
        type=_pair,
        metavar="NAME=VALUE",
        help="a hyperparameter, such as lr0=1e-3",
    )
    started.add_argument(
        "--watch",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="show the progress until the job ends",
    )
    command("watch", watch).add_argument("job", metavar="JOB", help=JOB_HELP)
    command("list", list_jobs).add_argument("--json", action="store_true", help="print JSON")
    shown = command("logs", logs)
    shown.add_argument("job", metavar="JOB", help=JOB_HELP)
    shown.add_argument("--follow", action="store_true", help="show new lines until the job ends")
    command("cancel", cancel).add_argument("job", metavar="JOB", help=JOB_HELP)
    command("delete", delete).add_argument("job", metavar="JOB", help=JOB_HELP)
    return parser


def _flag(field: str) -> str:
    return "--" + field.removesuffix("_path").replace("_", "-")


def _pair(text: str) -> tuple[str, Any]:
    """Split `lr0=0.01` into name and value; a value that is not JSON is taken as a string."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = parser().parse_args(arguments)
    token = os.environ.get("VISIONLOOP_ADMIN_TOKEN") or os.environ.get("VISIONLOOP_TOKEN")
    server = Server(options.url.rstrip("/"), token)
    try:
        code: int = options.run(server, options)
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("The job continues; see: python -m training list", file=sys.stderr)
        return 130
    finally:
        server.client.close()
    return code


if __name__ == "__main__":
    run(main)
