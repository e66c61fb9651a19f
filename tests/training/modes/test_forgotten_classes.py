"""A published version that has forgotten more than the gate allows is never silent about it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from evaluation.gate import default_gate
from evaluation.html_report import page
from evaluation.store import EvaluationStore, report_in
from jobs.job import Job
from models_store.description import ONNX_FILE, Task
from models_store.export import export_onnx
from models_store.registry import Registry
from models_store.seed import seed as seed_starters
from settings import get_settings
from synthetic.scenes import write_detection_set
from tests.support.seeds import derived
from tests.support.trainer_job import (
    RecordingJob,
    drawn,
    narrow_mobilenet,
    recipe,
    run,
)
from training.job import train as work

OLD, NEW = ("circle", "square"), ("triangle",)


def part(name: str, classes: tuple[str, ...]) -> Path:
    folder = get_settings().home / "datasets" / f"forgotten-{name}"
    for split in ("train", "val"):
        for cls in classes:
            if not (folder / split / cls).exists():
                shutil.copytree(drawn("classify", 64) / split / cls, folder / split / cls)
    return folder


def classifier(registry: Registry, job: RecordingJob) -> dict[str, Any]:
    """A trained MobileNet, and data with which it forgets: one old image, a huge learning rate."""
    old = part("old", OLD)
    plan = recipe(
        registry,
        "classify",
        model=narrow_mobilenet(registry, OLD),
        data=str(old),
        epochs=8,
        hyper={"lr0": 0.004},
    )
    trained = run(plan, RecordingJob(job.folder.with_name("base")))
    (trained.folder / ONNX_FILE).write_bytes(b"made below")
    base = registry.publish(trained.folder, "forgetful", {"kind": "train"}).id
    export_onnx(registry.get(base).path)
    return {
        "base_model": base,
        "data": str(part("new", NEW)),
        "incremental": {"old_data": str(old), "max_replay_samples": 1, "replay_ratio": 0.01},
        "epochs": 2,
        "hyper": {"lr0": 0.2},
    }


def detector(registry: Registry, job: RecordingJob) -> dict[str, Any]:
    """The starter detector, and data with which it forgets."""
    seed_starters(registry)
    old = get_settings().home / "datasets" / "forgotten-scenes"
    write_detection_set(old, 15, seed=derived(0), size=160)
    return {
        "base_model": "traffic_signs_yolov8n",
        "data": str(drawn("detect", train=12)),
        "incremental": {"old_data": str(old / "data.yaml"), "max_replay_samples": 1},
        "imgsz": 160,
        "epochs": 1,
        "hyper": {"optimizer": "AdamW", "lr0": 0.05, "warmup_epochs": 0},
    }


@pytest.mark.parametrize("task", ["classify", pytest.param("detect", marks=pytest.mark.slow)])
def test_a_version_that_fell_on_an_old_class_says_so_in_report_job_and_answer(
    registry: Registry, job: RecordingJob, task: Task
) -> None:
    given = (classifier if task == "classify" else detector)(registry, job)
    plan = recipe(
        registry, task, mode="incremental", name=f"never-promoted-{task}", promote="auto", **given
    )
    version = work(job, Job(recipe=plan.model_dump(mode="json")), registry)

    store = EvaluationStore(registry.database)
    row = store.of_job(job.id, version.id)
    assert row is not None, job.text
    folder = store.folder(row)
    found = json.loads((folder / "forgetting.json").read_text())
    allowed = default_gate(get_settings()).max_class_drop
    fell = [
        row["name"]
        for row in found["classes"]
        if row["before"] is not None and row["before"] - row["after"] > allowed
    ]
    assert fell, "the training was meant to forget"
    assert sorted(found["regressed"]) == sorted(fell)
    metric = "accuracy" if task == "classify" else "mAP50_95"
    said = f"{version.id} has forgotten more than the gate allows ({allowed:g} of {metric})"
    report = report_in(folder)
    assert said in report["forgetting"]["summary"]
    assert said in page(report, folder)
    assert said in job.text
    stored, shown = job.recipes[-1]
    assert any(note.startswith(said) for note in stored["notes"])
    assert any(note.startswith(said) for note in shown["notes"])
    assert all(f"'{name}' from" in job.text for name in fell[:1])
    tried = "The training lost more than the gate allows of"  # and averages of weights were tried
    assert any(note.startswith(tried) for note in shown["notes"])
    assert any(note.startswith(tried) for note in report["notes"])
    store.database.close()
    assert registry.promoted(f"never-promoted-{task}") is None
    assert f"{version.id} was not promoted. {said}" in job.text
