"""Compares the answers of a server with those of `YOLO(weights).predict(photo)`, as it comes.

    python -m benchmarks.peers.predict_equality --weights yolov8n.pt --images coco/images/val

Starts a server, imports the weights, and sends each photo to `/infer`. The exit code is 1 unless
all photos have the same classes, boxes and key points within 0.5 px, and scores within 0.001.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.cpu import cpu
from benchmarks.server import PYTHON, free_port, serving
from shell import Parser

PIXELS = 0.5
SCORES = 1e-3
TIMEOUT = 300.0  # seconds, of an import or an answer
SUFFIXES = {".jpg", ".jpeg", ".png"}


@dataclass
class Differences:
    """The largest differences between the two, over the photos so far."""

    photos: int = 0
    objects: int = 0
    pixels: float = 0.0
    points: float = 0.0
    scores: float = 0.0
    other: list[str] = field(default_factory=list)  # photos with other classes

    def update(self, name: str, ours: Sequence[Any], theirs: Any) -> None:
        """Count one photo: the predictions of `/infer`, and a result of Ultralytics."""
        self.photos += 1
        self.objects += len(ours)
        classes = np.array([one["class_id"] for one in ours], int)
        wanted = theirs.boxes.cls.numpy().astype(int)
        if sorted(classes) != sorted(wanted):
            self.other.append(name)
            return
        if not len(ours):
            return
        corners = [[one["bounding_box"][key] for key in ("x1", "y1", "x2", "y2")] for one in ours]
        apart = np.abs(np.array(corners)[:, None] - theirs.boxes.xyxy.numpy()[None]).max(-1)
        scores = np.array([one["confidence"] for one in ours])
        unlike = np.abs(scores[:, None] - theirs.boxes.conf.numpy()[None])
        order = (apart + unlike + 1e6 * (classes[:, None] != wanted[None])).argmin(1)
        rows = np.arange(len(ours))
        self.pixels = max(self.pixels, float(apart[rows, order].max()))
        self.scores = max(self.scores, float(unlike[rows, order].max()))
        if theirs.keypoints is not None:
            points = np.array([[(p["x"], p["y"]) for p in one["keypoints"]] for one in ours])
            visible = theirs.keypoints.conf.numpy()[order] >= 0.5  # the others are 0 there
            moved = np.abs(points - theirs.keypoints.xy.numpy()[order])[visible]
            self.points = max(self.points, float(moved.max(initial=0)))

    @property
    def small(self) -> bool:
        return not self.other and max(self.pixels, self.points) <= PIXELS and self.scores <= SCORES


def main() -> int:
    parser = Parser(
        prog="python -m benchmarks.peers.predict_equality",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--weights", type=Path, required=True, action="append", help="an Ultralytics .pt"
    )
    parser.add_argument("--images", type=Path, required=True, help="folder of photos")
    parser.add_argument("--most", type=int, default=1000, help="number of photos (1000)")
    options = parser.parse_args()
    photos = sorted(p for p in options.images.rglob("*") if p.suffix.lower() in SUFFIXES)
    photos = photos[: options.most]
    if not photos:
        parser.error(f"{options.images} has no photos: {', '.join(sorted(SUFFIXES))}")
    with tempfile.TemporaryDirectory(prefix="predict-equality-") as scratch:
        home = {"VISIONLOOP_HOME": f"{scratch}/home", "BENTOML_HOME": f"{scratch}/bento"}
        os.environ |= home
        port = free_port()
        command = [PYTHON, "-m", "bentoml", "serve", "service:VisionLoop", "--port", str(port)]
        environment = home | {"VISIONLOOP_DEVICE": "cpu", "VISIONLOOP_ALLOW_DOWNLOAD": "never"}
        with serving(command, port, Path(scratch, "log"), "/readyz", environment) as server:
            print(f"{cpu()}, load average {os.getloadavg()[0]:.0f}\n")
            print("| weights | photos | objects | other classes | px | key points, px | score |")
            print("|---|--:|--:|--:|--:|--:|--:|")
            with httpx.Client(base_url=server.url, timeout=TIMEOUT) as client:
                found = [compare(client, weights, photos) for weights in options.weights]
    return int(not all(differences.small for differences in found))


def compare(client: httpx.Client, weights: Path, photos: Sequence[Path]) -> Differences:
    """Compare the answers to all photos, and print a row of the table."""
    from models_store import ultralytics_env

    ultralytics_env.prepare()
    from ultralytics import YOLO

    name = f"equal-{weights.stem}"[:60]
    imported = client.post(
        "/models/import",
        files={"file": (weights.name, weights.read_bytes())},
        data={"name": name},
    ).raise_for_status()
    model: Any = YOLO(weights)
    found = Differences()
    for photo in photos:
        answer = client.post(
            "/infer",
            files={"image": (photo.name, photo.read_bytes())},
            data={"model_id": imported.json()["id"]},
        ).raise_for_status()
        theirs = model.predict(photo, device="cpu", verbose=False)[0].cpu()
        found.update(photo.name, answer.json()["predictions"], theirs)
    points = f"{found.points:.2g}" if found.points else ""
    print(
        f"| {weights.name} | {found.photos} | {found.objects} | {len(found.other)} | "
        f"{found.pixels:.2g} | {points} | {found.scores:.2g} |",
        flush=True,
    )
    for other in found.other:
        print(f"other classes: {other}", file=sys.stderr)
    return found


if __name__ == "__main__":
    sys.exit(main())
