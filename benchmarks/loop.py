"""Goes through the annotation loop once, over HTTP as a user does: `python -m benchmarks.loop`.

A team counts traffic signs by the four kinds of the Vienna Convention. The starter detector does
not have these classes. Twelve drawn street scenes are labelled, and sixty are not labelled yet.

The starter detector is first trained on the twelve scenes for a few epochs; the result is a weak
model. The weak model pre-labels the sixty scenes, and the true labels are uploaded as corrections,
in place of an annotator's work. The next version is trained on the corrected revision. Both
versions are evaluated on scenes that were not used for training, and the gate must promote the new
version. Then the same `/infer` requests, which name no version, must get better answers than
before.

The service runs on a loopback port and in a temporary folder, and ends with the script. The exit
code is 1 if the loop did not improve the model. `--draw` only writes the images, for the same
steps with curl.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from annotation.diff import CorrectionCounts, compare_annotations
from benchmarks.server import PYTHON, free_port, serving
from benchmarks.sign_kinds import Drawn, draw
from formats.annotations import Annotation, Annotations
from shell import Parser

STARTER, NAME = "traffic_signs_yolov8n", "sign_kinds"
METRIC = "mAP50_95"
FIGURES = ("mAP50", METRIC, "precision", "recall", "f1_score")
JOB = 1800.0  # seconds that one job may take


class Service:
    """Calls the API, and waits for jobs; an error answer or a failed job raises RuntimeError."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def call(self, method: str, path: str, **content: Any) -> Any:
        """The JSON of an answer.

        Raises:
            RuntimeError: The answer is an error; the text contains its message.
        """
        answer = self.client.request(method, path, **content)
        if answer.is_error:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        return answer.json()

    def upload(self, path: str, file: Path, **fields: str) -> Any:
        with file.open("rb") as content:
            return self.call("POST", path, files={"file": (file.name, content)}, data=fields)

    def finished(self, job_id: str) -> dict[str, Any]:
        """Wait until a job is completed; returns the job.

        Raises:
            RuntimeError: The job failed or was stopped, or took too long.
        """
        began = time.monotonic()
        while time.monotonic() - began < JOB:
            job: dict[str, Any] = self.call("GET", f"/jobs/{job_id}")
            if job["finished_at"]:
                break
            time.sleep(0.5)
        if job["status"] != "completed":
            raise RuntimeError(f"The {job['kind']} {job_id} is {job['status']}: {job['error']}")
        return job

    def train(self, start: str, data: str, epochs: int, options: argparse.Namespace) -> str:
        """Train a version of the model NAME; returns the version's id."""
        body: dict[str, Any] = {
            "task": "detect",
            "model_type": start,
            "data_path": data,
            "name": NAME,
        }
        body |= {"epochs": epochs, "imgsz": options.imgsz, "batch": options.batch, "patience": 0}
        task = self.call("POST", "/api/training/regular", json=body)["task_id"]
        return str(self.finished(task)["model_id"])

    def evaluate(self, model_id: str, dataset: str) -> dict[str, float]:
        """Evaluate a model on the dataset's val split; returns its metrics."""
        body = {"dataset_path": dataset, "split": "val"}
        self.finished(self.call("POST", f"/metrics/{model_id}/evaluate", json=body)["job_id"])
        report = self.call("GET", f"/metrics/{model_id}/report", params={"dataset": dataset})
        return dict(report["figures"])

    def promote(self, model_id: str, gate: dict[str, Any]) -> dict[str, Any]:
        """Ask the gate to promote a version; returns its decision."""
        answer = self.call("POST", f"/models/{model_id}/promote", json={"gate": gate})
        if answer["status"] == "evaluating":
            self.finished(answer["job_id"])
            newest = self.call("GET", f"/models/{NAME}/decisions")["decisions"][0]
            return dict(newest | {"promoted": newest["action"] == "promoted"})
        return dict(answer)

    def ask(self, pictures: list[Path], truth: list[Annotations]) -> Seen:
        """Send each image to `/infer` with the model's name, without a version.

        The predictions are compared with the true labels.
        """
        seen = Seen()
        for path, known in zip(pictures, truth, strict=True):
            answer = self.call(
                "POST",
                "/infer",
                files={"image": (path.name, path.read_bytes())},
                data={"model_id": NAME},
            )
            found = as_annotations(known, answer["predictions"])
            seen.tally.update(compare_annotations(found, known))
            seen.by.add(answer["model_id"])
        return seen


@dataclass
class Seen:
    """Answers of `/infer`: how correct they are, and which model versions gave them."""

    tally: CorrectionCounts = field(default_factory=CorrectionCounts)
    by: set[str] = field(default_factory=set)

    def figures(self) -> dict[str, float]:
        found = self.tally.to_json()
        precision, recall = found["precision"] or 0.0, found["recall"] or 0.0
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        return {"precision": precision, "recall": recall, "f1_score": f1}


def as_annotations(picture: Annotations, predictions: list[dict[str, Any]]) -> Annotations:
    """The predictions of `/infer` as annotations of the same image."""
    objects = tuple(
        Annotation(
            row["label"],
            box=tuple(row["bounding_box"][side] for side in ("x1", "y1", "x2", "y2")),
            score=row["confidence"],
        )
        for row in predictions
    )
    return Annotations(picture.image, picture.width, picture.height, objects)


def walk(service: Service, drawn: Drawn, options: argparse.Namespace) -> bool:
    """Go through the loop, and print every step. Returns whether the model was improved."""
    clock = Clock()
    first = service.upload("/api/datasets", drawn.first, name="first scenes")["id"]
    held_out = service.upload("/api/datasets", drawn.held_out, name="held out")["id"]
    clock.say(f"uploaded {options.labelled} labelled and {options.held_out} held-out images")

    weak = service.train(STARTER, first, options.weak_epochs, options)
    service.promote(weak, {"dataset": held_out})
    clock.say(
        f"trained {STARTER} for {options.weak_epochs} epochs on the labelled images: weak model "
        f"{weak}, promoted"
    )
    before = service.ask(drawn.unseen, drawn.truth)

    batch = {"tool": "object_detection", "model": NAME, "name": "street scenes"}
    started = service.upload("/api/auto_annotate/batch", drawn.waiting, **batch)
    counts = service.finished(started["job_id"])["metrics"]
    dataset = started["dataset_id"]
    clock.say(
        f"pre-labelled {counts['pictures']:.0f} images: {counts['objects_accept']:.0f} objects "
        f"to accept, {counts['objects_review']:.0f} to review; dataset {dataset}"
    )
    queue = service.call("GET", "/api/annotation/queue", params={"dataset": dataset, "limit": 3})
    for entry in queue["queue"]:
        print(f"      review first: {entry['image']}: {entry['reason']}")

    corrections = json.loads(drawn.corrections.read_text())
    revision = service.call("POST", f"/api/datasets/{dataset}/annotations", json=corrections)
    clock.say(f"corrected {revision['received']} images: {revision['data_path']}")
    path = f"/api/datasets/{dataset}/revisions/{revision['revision']}/diff"
    (seen,) = service.call("GET", path)["compared"]
    print(as_annotators_see(seen))

    new = service.train(weak, revision["data_path"], options.epochs, options)
    clock.say(f"trained {options.epochs} epochs on the revision: {new}")
    figures = [service.evaluate(model, held_out) for model in (weak, new)]
    both = {"a": weak, "b": new, "dataset": held_out}
    sure = service.call("GET", "/metrics/compare", params=both)["intervals"][METRIC]
    clock.say(
        f"compared: {METRIC} {sure['difference']:+.3f} "
        f"({sure['level']:.0%} interval {sure['low']:+.3f} to {sure['high']:+.3f})"
    )

    gate = {"dataset": held_out, "metric": METRIC, "min_gain": options.min_gain}
    decision = service.promote(new, gate)
    verdict = "promoted" if decision["promoted"] else "refused"
    clock.say(f"gate: {verdict}: {' '.join(decision['reasons'])}")
    after = service.ask(drawn.unseen, drawn.truth)
    print(table(figures, before, after, options.held_out))
    return bool(
        decision["promoted"]
        and after.by == {new}
        and figures[1][METRIC] > figures[0][METRIC]
        and after.figures()["f1_score"] > before.figures()["f1_score"]
    )


def as_annotators_see(seen: dict[str, Any]) -> str:
    """How good the pre-labels were: a table by class and by confidence band."""
    header = f"{'':18}accepted  moved  relabelled  added  removed  precision  recall"
    lines = [header]
    for row in (*seen["classes"], seen | {"name": "all"}):
        counts = (row[kind] for kind in ("accepted", "moved", "relabelled", "added", "removed"))
        shown = "".join(f"{n:{w}}" for n, w in zip(counts, (8, 7, 12, 7, 9), strict=True))
        shares = ((row["precision"], 11), (row["recall"], 8))
        figures = "".join(f"{'-' if v is None else f'{v:.3f}':>{w}}" for v, w in shares)
        lines.append(f"      {row['name']:12}{shown}{figures}")
    for band in seen["bands"]:
        share = "-" if band["precision"] is None else f"{band['precision']:.3f}"
        lines.append(f"      band {band['band']}: {band['shown']} objects, precision {share}")
    return "\n".join(lines)


class Clock:
    """Prints each step with the seconds since the start."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def say(self, what: str) -> None:
        print(f"{time.monotonic() - self.began:5.0f} s  {what}", flush=True)


def table(figures: list[dict[str, float]], before: Seen, after: Seen, pictures: int) -> str:
    """The metrics of both versions side by side."""
    rows = [(f"evaluated: {name}", figures[0][name], figures[1][name]) for name in FIGURES]
    asked = before.figures(), after.figures()
    rows += [(f"/infer: {name}", asked[0][name], asked[1][name]) for name in asked[0]]
    lines = [f"{pictures} held-out images           weak       new      gain"]
    for name, a, b in rows:
        lines.append(f"{name:24}{a:10.3f}{b:10.3f}{b - a:+10.3f}")
    return "\n".join(lines)


def main() -> int:
    options = arguments().parse_args()
    amounts = {
        "labelled": options.labelled,
        "waiting": options.pictures,
        "held_out": options.held_out,
        "size": options.imgsz,
        "seed": options.seed,
    }
    if options.draw:
        options.draw.mkdir(parents=True, exist_ok=True)
        drawn = draw(options.draw, **amounts)
        for file in (drawn.first, drawn.waiting, drawn.corrections, drawn.held_out):
            print(f"Wrote {file}")
        return 0
    with ExitStack() as stack:
        if options.keep:
            folder = Path(tempfile.mkdtemp(prefix="loop-"))
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loop-")))
        drawn = draw(folder / "drawn", **amounts)
        env = {
            "VISIONLOOP_HOME": str(folder / "home"),
            "BENTOML_HOME": str(folder / "bento"),
            "BENTOML_DO_NOT_TRACK": "true",
            "VISIONLOOP_DEVICE": options.device,
        }
        port = free_port()
        command = [PYTHON, "-m", "bentoml", "serve", "service:VisionLoop", "--port", str(port)]
        server = stack.enter_context(serving(command, port, folder / "log", "/readyz", env))
        client = stack.enter_context(httpx.Client(base_url=server.url, timeout=120))
        try:
            better = walk(Service(client), drawn, options)
        except (RuntimeError, httpx.HTTPError) as error:
            print(f"{error}\n{(folder / 'log').read_text(errors='replace')[-2000:]}")
            better = False
        if options.keep:
            print(
                "To serve the kept folder: "
                f"VISIONLOOP_HOME={folder}/home BENTOML_HOME={folder}/bento make serve"
            )
    print(f"The loop {'improved' if better else 'did NOT improve'} the model.")
    return 0 if better else 1


def arguments() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m benchmarks.loop",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--pictures", type=int, default=60, help="number of images to pre-label and correct")
    add("--labelled", type=int, default=12, help="number of images to train the weak model on")
    add("--held-out", type=int, default=40, help="number of images to measure the models on")
    add("--imgsz", type=int, default=256, help="longer side of images and of the network's input")
    add("--weak-epochs", type=int, default=12, help="epochs of the weak model")
    add("--epochs", type=int, default=15, help="epochs of the new version")
    add("--batch", type=int, default=4, help="images per training step")
    add("--min-gain", type=float, default=0.02, help=f"gain in {METRIC} that the gate requires")
    add("--seed", type=int, default=0, help="seed of the drawn images")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="device for all models")
    add("--keep", action="store_true", help="keep the temporary folder, and print its path")
    add(
        "--draw",
        type=Path,
        metavar="FOLDER",
        help="only write the images to this folder, for the same steps by hand",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
