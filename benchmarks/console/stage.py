"""A home for the benchmark of the console: many jobs, many images, a dataset to work on."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import httpx
import numpy as np

from database import Database
from jobs.store import JobStore
from settings import Settings
from synthetic.shapes import write_shapes

LONG = 600  # seconds


def finished_jobs(settings: Settings, count: int) -> None:
    """Jobs that have ended, written as a dispatcher would, with a log of a line each."""
    store = JobStore(Database(settings))
    random = np.random.default_rng(0)
    for number in range(count):
        config = {"data_path": "signs", "model_type": "n", "epochs": 50}
        name = f"signs-{number % 40}"
        job = store.create("training", config=config, recipe={}, mode="regular", model_name=name)
        store.claim(job.id, "stage")
        store.start(job.id, "stage")
        figures = {"mAP50_95": round(float(random.uniform(0.3, 0.9)), 4), "loss": 1.5}
        store.note(job.id, "stage", metrics=figures, current_epoch=50, total_epochs=50)
        store.finish(job.id, "completed")
    store.database.close()


def uploaded(client: httpx.Client, content: bytes, name: str) -> str:
    """The id of a dataset that is uploaded as a zip."""
    files = {"file": (f"{name}.zip", content, "application/zip")}
    answer = client.post("/api/datasets", files=files, timeout=LONG)
    return str(answer.raise_for_status().json()["id"])


def shapes_zip(folder: Path, train: int = 24, val: int = 8, imgsz: int = 64) -> bytes:
    """Drawn shapes as a dataset for detection."""
    write_shapes(folder, "detect", train, val, imgsz)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return _zip((str(file.relative_to(folder)), file.read_bytes()) for file in files)


def many_images_zip(count: int) -> bytes:
    """A dataset for detection of `count` small images that differ, one box in each."""
    random = np.random.default_rng(1)
    names = "names: [thing]\ntrain: images/train\nval: images/val\n"

    def entries() -> Iterator[tuple[str, bytes]]:
        yield "data.yaml", names.encode()
        for number in range(count):
            split = "val" if number % 10 == 0 else "train"
            coarse = random.integers(0, 255, (6, 8, 3)).astype(np.uint8)
            pixels = cv2.resize(coarse, (160, 120), interpolation=cv2.INTER_LINEAR)
            image = cv2.imencode(".jpg", pixels)[1].tobytes()
            yield f"images/{split}/{number:05}.jpg", image
            yield f"labels/{split}/{number:05}.txt", b"0 0.5 0.5 0.4 0.4\n"

    return _zip(entries())


def _zip(entries: Iterator[tuple[str, bytes]]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return content.getvalue()
