"""An import whose files one machine received, and that runs on another."""

from __future__ import annotations

import io
import shutil

import pytest

from annotation.cleanup import delete_leftovers
from annotation.uploads.import_job import ImportRecipe, run_import, submit_import
from annotation.uploads.upload import UploadOptions
from dataset.shared import uploads
from dataset.shared.inputs import have_inputs
from jobs.job import Job
from storage.place import open_trees
from tests.support.correction_app import BEFORE, FRAMES, labels, packed, street
from tests.support.trainer_job import RecordingJob
from tests.support.training_app import Service
from tests.support.two_machines import Machines


def submitted(machine: Service) -> Job:
    sent = io.BytesIO(packed(street(FRAMES)))
    gateway = machine.gateway
    stores = gateway.datasets, gateway.annotated, machine.jobs
    return submit_import(sent, UploadOptions("set"), *stores)


def test_it_has_the_files_and_makes_the_dataset_for_both(
    machines: Machines, job: RecordingJob
) -> None:
    a, b = machines
    row = b.jobs.get(submitted(a).id)
    shutil.rmtree(a.gateway.settings.paths.uploads)
    have_inputs(row.recipe, b.gateway.registry.database)
    run_import(ImportRecipe.model_validate(row.recipe), job, b.gateway.registry)
    for machine in machines:
        [card] = machine.get("/api/datasets")["datasets"]
        assert card["id"] == row.recipe["dataset_id"]
        assert labels(machine, card["id"]) == BEFORE
    assert open_trees(a.gateway.settings).list("uploads") == []


def test_files_of_a_cancelled_import_are_deleted_from_the_store(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = machines
    queued = submitted(a)
    stores = b.gateway.annotated, b.jobs, b.gateway.settings
    monkeypatch.setattr("annotation.cleanup.MIN_AGE", -1.0)
    lost = uploads.lost

    def older(used: set[str], settings: object, _: float) -> object:
        return lost(used, b.gateway.settings, -2.0)

    monkeypatch.setattr(uploads, "lost", older)
    delete_leftovers(*stores)
    assert len(open_trees(a.gateway.settings).list("uploads")) == 1  # the job waits
    b.jobs.request_cancel(queued.id)
    delete_leftovers(*stores)
    assert open_trees(a.gateway.settings).list("uploads") == []
