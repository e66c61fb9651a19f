"""A home with a little of everything: models, a dataset, jobs, an evaluation, a kept image."""

from __future__ import annotations

import json
import secrets
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import update

from database import Database
from dataset.report import report
from dataset.store import DatasetStore
from evaluation.store import EvaluationRow, EvaluationStore
from files import atomic_write
from jobs.artifacts import CHECKPOINTS
from jobs.job import Job
from jobs.store import JobStore
from models_store.registry import Registry
from models_store.store import ModelStore
from settings import Settings
from tests.support.shapes import write_shapes
from tests.support.small_models import small_description


@dataclass
class Furnished:
    """A home, its models, and the stores over both."""

    settings: Settings
    models: ModelStore
    database: Database
    drawer: Path  # for folders that are made before they are stored

    @property
    def registry(self) -> Registry:
        return Registry(self.database, self.models)

    @property
    def jobs(self) -> JobStore:
        return JobStore(self.database)

    @property
    def datasets(self) -> DatasetStore:
        return DatasetStore(self.settings)

    @property
    def evaluations(self) -> EvaluationStore:
        return EvaluationStore(self.database)

    def publish(self, name: str = "signs", promote: bool = False, **source: Any) -> str:
        """A version whose weights are random bytes; returns its id."""
        folder = self.drawer / "model"
        folder.mkdir(parents=True, exist_ok=True)
        small_description("detect").save(folder)
        for file in ("model.safetensors", "model.onnx"):
            (folder / file).write_bytes(secrets.token_bytes(2000))
        return self.registry.publish(folder, name, {"kind": "import"} | source, promote=promote).id

    def upload(self, name: str = "shapes") -> str:
        """A dataset of drawn shapes; returns its id."""
        with self.datasets.staged() as staged:
            write_shapes(staged / "data", "detect", 3, 2, imgsz=32)
            card = {"description": "data/data.yaml", "task": "detect"}
            dataset_id = str(self.datasets.keep(staged, name, card)["id"])
        card = report(self.datasets.open(dataset_id))
        path = self.datasets.folder / dataset_id / "dataset.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | card))
        return dataset_id

    def fingerprint(self, dataset_id: str) -> str:
        return self.datasets.open(dataset_id).fingerprint

    def job(self, status: str = "running", number: int = 1, **recipe: Any) -> str:
        """A training with checkpoints of epoch `number`; returns its id."""
        job = self.jobs.create("training", config={}, recipe=recipe, mode="regular")
        self.jobs.log(job.id).write_text("[2026-11-30 08:00:00] Begins.\n")
        self.checkpoint(job.id, number)
        values = {"status": status, "checkpoint": number, "finished_at": None}
        if status not in ("queued", "running", "stopping"):
            values["finished_at"] = "2026-01-01T00:00:00.000+00:00"
        with self.database.write() as session:
            session.execute(update(Job).where(Job.id == job.id).values(**values))
        return job.id

    def checkpoint(self, job_id: str, number: int) -> None:
        """Replace the checkpoints, one file after the other, as trainers do."""
        for name in ("last.pt", "state.json"):
            atomic_write(self.jobs.folder(job_id) / CHECKPOINTS / name, str(number))

    def evaluate(self, model_id: str) -> str:
        """An evaluation with a report; returns its id."""
        name, version = model_id.split(":")
        row = EvaluationRow(
            id=uuid.uuid4().hex, name=name, version=version, dataset="shapes",
            dataset_path=str(self.settings.paths.datasets / "shapes" / "data.yaml"),
            fingerprint="0" * 64, split="val", figures={},
        )  # fmt: skip
        folder = self.evaluations.folder(row)
        folder.mkdir(parents=True)
        (folder / "report.json").write_text("{}")
        with self.database.write() as session:
            session.add(row)
        return row.id

    def keep_image(self) -> None:
        folder = self.settings.paths.kept_images
        folder.mkdir(exist_ok=True)
        (folder / "one.image").write_bytes(b"bytes")
        (folder / "one.json").write_text("{}")


def furnished(root: Path, **settings: Any) -> Furnished:
    """An empty home and model store below `root`."""
    made = Settings(home=root / "home", disk_reserve=0, **settings)
    return Furnished(made, ModelStore(root / "bento"), Database(made), root / "drawer")


def torn(home: Furnished) -> list[str]:
    """What the database of a home refers to, and is not there."""
    lacks = []
    for model in home.registry.list():
        files = ("model.yaml", "model.json", "model.safetensors", "model.onnx")
        lacks += [f"{model.id}/{file}" for file in files if not (model.path / file).is_file()]
    for job in home.jobs.list():
        folder = home.jobs.folder(job.id)
        if not home.jobs.log(job.id).is_file():
            lacks.append(f"{job.id}/log")
        if not job.is_final and job.resumable:
            found = [folder / CHECKPOINTS / name for name in ("last.pt", "state.json")]
            if not all(file.is_file() for file in found):
                lacks.append(f"{job.id}/checkpoints")
    with home.database.read() as session:
        lacks += [
            f"evaluation {row.id}"
            for row in session.query(EvaluationRow)
            if not home.evaluations.is_complete(row)
        ]
    for card in home.datasets.list():
        if home.fingerprint(card["id"]) != card["fingerprint"]:
            lacks.append(f"dataset {card['id']}")
    return lacks
