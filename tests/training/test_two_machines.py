"""A training that is killed on one machine ends on another, from the object store alone."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from annotation.uploads.upload import add_upload
from jobs.artifacts import best_weights
from jobs.claims import CLAIM_ENV
from jobs.finalizer import JobFinalizer
from jobs.job import Job
from jobs.processes import started_at
from jobs.shared_folders import JobFolders
from models_store.ultralytics_env import environment
from source_tree import ROOT, module_command, module_environment
from tests.support.patience import PATIENCE, wait_until
from tests.support.training_app import FORM, Service
from tests.support.two_machines import Machines


def zipped(folder: Path) -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
    buffer.seek(0)
    return buffer


@contextmanager
def worker(machine: Service, job: Job, number: int) -> Iterator[subprocess.Popen[bytes]]:
    """The process of a job on a machine; killed at the end of the block."""
    settings = machine.gateway.settings
    claim = f"{machine.gateway.settings.home.name}:{number}"
    assert machine.jobs.claim(job.id, claim)
    machine.jobs.folder(job.id).mkdir(parents=True, exist_ok=True)
    ours = {
        "VISIONLOOP_HOME": str(settings.home),
        "BENTOML_HOME": str(settings.home / "bento"),
        "VISIONLOOP_DATABASE_URL": str(settings.database_url),
        "VISIONLOOP_STORE_URL": str(settings.store_url),
        "VISIONLOOP_DISK_RESERVE": "0",
        "VISIONLOOP_DEVICE": "cpu",
        CLAIM_ENV: claim,
    }
    (settings.home / "bento").mkdir(exist_ok=True)
    with machine.jobs.log(job.id).open("ab") as log:
        process = subprocess.Popen(
            [*module_command("worker", job.id)],
            cwd=ROOT,
            env=module_environment({**os.environ, **environment(settings.home, 1), **ours}),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
    try:
        assert machine.jobs.start(job.id, claim, process.pid, started_at(process.pid))
        yield process
    finally:
        process.kill()
        process.wait()


def finalize(machine: Service, job: Job, code: int) -> Job:
    JobFinalizer(machine.jobs, 3, lambda _: None).finalize(job.id, "It ended.", code=code)
    return machine.jobs.get(job.id)


def log_of(machine: Service, job: Job) -> str:
    return machine.jobs.log(job.id).read_text(errors="replace")[-3000:]


@pytest.mark.slow
def test_a_training_resumes_on_another_machine(machines: Machines) -> None:
    a, b = machines
    card = add_upload(a.gateway.datasets, zipped(a.data.parent), "shapes")
    body = FORM | {"data_path": card["id"], "epochs": 4, "imgsz": 32, "batch": 2, "patience": 0}
    answer = a.post("/api/training/regular", body)
    assert answer.status_code == 200, answer.text
    job = a.jobs.get(answer.json()["task_id"])
    with worker(a, job, 1) as process:

        def has_checkpoint() -> bool:
            assert process.poll() is None, log_of(a, job)
            return a.jobs.get(job.id).checkpoint >= 1

        wait_until(has_checkpoint)
    job = finalize(b, job, -9)
    assert job.status == "queued"
    reached = job.checkpoint
    shutil.rmtree(a.gateway.settings.home)

    assert Path(job.recipe["dataset"]).is_relative_to(b.gateway.settings.home)
    with worker(b, job, 2) as process:
        assert process.wait(PATIENCE) == 0, log_of(b, job)
    assert f"epoch {reached}" in log_of(b, job) or reached < 4, log_of(b, job)
    job = finalize(b, job, 0)
    assert job.status == "completed"
    assert [row.epoch for row in b.jobs.epochs(job.id)] == [1, 2, 3, 4]
    assert job.model_id is not None
    assert (b.gateway.settings.home / "bento" / "models").is_dir()
    JobFolders(a.gateway.settings).have_kept(job.id)
    results = (a.jobs.folder(job.id) / "run" / "results.csv").read_text().splitlines()
    assert len(results) == 5
    assert best_weights(a.jobs.folder(job.id)) is None
