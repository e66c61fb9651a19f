"""Which models' engines are tried, when, and on which data; and the job that does it."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from database import Database
from dataset.store import DatasetStore
from engines import trial_job
from engines.__main__ import main
from engines.trial_job import IdleMachine, run_trial
from engines.trial_submission import (
    NEVER_IDLE,
    TrialRecipe,
    serving_versions,
    submit_due,
    submit_trial,
)
from errors import Conflict, VisionLoopError
from evaluation.job import run_evaluation
from evaluation.recipe import DRAWN
from evaluation.store import EvaluationStore
from evaluation.submission import EvaluationStores
from inference.cpu.engine_choice import choice_folder, read_choice
from jobs.handle import JobCancelled
from jobs.job import Job
from jobs.store import JobStore
from models_store.decision_log import DecisionReason
from models_store.export import export_onnx
from models_store.registry import Registry
from models_store.store import ModelStore
from models_store.versions import ModelVersion
from monitoring.kept_images import KeptImages
from settings import Settings, get_settings
from tests.support.dispatching import begin
from tests.support.shapes import write_shapes
from tests.support.small_models import NAMES, make_engine_of_before, make_model
from tests.support.trainer_job import RecordingJob
from upkeep.model_use import delete_model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "model"
    make_model(folder, "detect", 64)
    return folder


@dataclass
class Home:
    """A home with a registry, and a dataset that its models may be evaluated on."""

    stores: EvaluationStores
    made: Path
    data: Path

    @property
    def registry(self) -> Registry:
        return self.stores.registry

    def publish(self, name: str = "shapes", kind: str = "import") -> ModelVersion:
        return self.registry.publish(self.made, name, {"kind": kind})

    def evaluate(self, model: ModelVersion) -> None:
        recipe = self.stores.plan(model.id, str(self.data), "val")
        run_evaluation(recipe, self.job(), self.registry)

    def job(self) -> RecordingJob:
        return RecordingJob(self.registry.settings.home / "job")

    def run(self, job: Job) -> RecordingJob:
        """Run a trial's job as the worker does, and end its row."""
        recording = self.job()
        run_trial(TrialRecipe.model_validate(job.recipe), recording, self.registry)
        begin(self.stores.jobs, job.id)
        self.stores.jobs.finish(job.id, "completed")
        return recording


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    folder = tmp_path / "home"
    data = folder / "datasets" / "drawn"
    write_shapes(data, "detect", 6, 3, imgsz=64)
    settings = Settings(home=folder, device="cpu", int8_max_drop=100, gate_max_class_drop=1)
    database = Database(settings)
    stores = EvaluationStores(
        Registry(database, ModelStore(tmp_path / "bento")),
        DatasetStore(settings),
        EvaluationStore(database),
        JobStore(database),
    )
    monkeypatch.setattr(trial_job, "is_idle", lambda load: True)
    monkeypatch.setattr("engines.timing.is_idle", lambda load: True)
    monkeypatch.setattr(trial_job, "QUIET", 0.0)
    yield Home(stores, made, data)
    database.close()


def test_what_may_serve_without_its_version_is_tried(home: Home) -> None:
    registry = home.registry
    first, second, third = (home.publish() for _ in range(3))
    other = home.publish("others")
    registry.promote(second.id)
    assert {m.id for m in serving_versions(registry)} == {second.id, third.id, other.id}
    registry.activate(first.id)
    assert {m.id for m in serving_versions(registry)} == {first.id, second.id, third.id, other.id}


def test_a_trial_is_queued_once_and_again_when_there_is_data(home: Home) -> None:
    model = home.publish()
    [job] = submit_due(home.stores)
    assert (job.kind, job.base_model, job.recipe["evaluation"]) == ("engine", model.id, None)
    assert submit_due(home.stores) == []
    recording = home.run(job)
    assert submit_due(home.stores) == []
    choice = read_choice(model.path, home.registry.settings)
    assert choice is not None
    int8 = choice.trial("int8")
    assert int8 is not None
    assert f"POST /metrics/{model.id}/evaluate" in int8.note
    assert choice.reason in recording.text

    home.evaluate(model)
    [again] = submit_due(home.stores)
    assert again.recipe["evaluation"]["dataset"] == str(home.data)
    assert submit_due(home.stores) == []
    home.run(again)
    assert submit_due(home.stores) == []
    choice = read_choice(model.path, home.registry.settings)
    assert choice is not None
    assert (choice.split, choice.calibration_images) == ("val", 6)
    int8 = choice.trial("int8")
    assert int8 is not None
    assert int8.usable
    assert int8.milliseconds


def test_a_new_machine_is_tried_again(home: Home) -> None:
    home.publish()
    [job] = submit_due(home.stores)
    home.run(job)
    settings = home.registry.settings.model_copy(update={"sessions": 7})
    database = Database(settings)
    elsewhere = EvaluationStores(
        Registry(database, home.registry.store),
        home.stores.datasets,
        EvaluationStore(database),
        JobStore(database),
    )
    [again] = submit_due(elsewhere)
    assert again.recipe["machine"] != job.recipe["machine"]
    database.close()


def test_a_trial_that_failed_is_not_repeated_by_itself(home: Home) -> None:
    model = home.publish()
    [job] = submit_due(home.stores)
    begin(home.stores.jobs, job.id)
    home.stores.jobs.finish(job.id, "failed", "because")
    assert submit_due(home.stores) == []
    again = submit_trial(home.stores, model.id, {})
    assert again.id != job.id
    assert submit_trial(home.stores, model.id, {}).id == again.id


def test_a_trial_that_only_found_the_machine_busy_is_repeated_later_and_not_for_ever(
    home: Home,
) -> None:
    jobs = home.stores.jobs
    error = f"{NEVER_IDLE} What served goes on serving."
    home.publish()

    def hours_ago(job: Job, hours: float) -> None:
        ended = (datetime.now(UTC) - timedelta(hours=hours)).isoformat()
        with home.registry.database.write() as session:
            session.execute(update(Job).where(Job.id == job.id).values(finished_at=ended))

    [job] = submit_due(home.stores)
    for pause in (1, 2, 4, 8, 16):
        begin(jobs, job.id)
        jobs.finish(job.id, "failed", error)
        hours_ago(job, pause - 0.1)
        assert submit_due(home.stores) == []
        hours_ago(job, pause + 0.1)
        [job] = submit_due(home.stores)
    begin(jobs, job.id)
    jobs.finish(job.id, "failed", error)
    hours_ago(job, 1000)
    assert submit_due(home.stores) == []


def test_an_engine_of_a_version_before_is_tried_once_it_is_made_again(home: Home) -> None:
    model = home.publish()
    make_engine_of_before(model.path)
    assert submit_due(home.stores) == []
    export_onnx(model.path)
    [job] = submit_due(home.stores)
    assert job.base_model == model.id


@pytest.mark.parametrize("evaluated", [True, False])
def test_a_choice_that_was_lost_is_made_again(home: Home, evaluated: bool) -> None:
    model = home.publish()
    if evaluated:
        home.evaluate(model)
    [job] = submit_due(home.stores)
    home.run(job)
    assert submit_due(home.stores) == []
    shutil.rmtree(home.registry.settings.paths.engines)  # as after a restored backup
    [again] = submit_due(home.stores)
    assert submit_due(home.stores) == []
    home.run(again)
    assert read_choice(model.path, home.registry.settings) is not None
    assert submit_due(home.stores) == []


def test_a_model_that_was_evaluated_on_the_drawn_signs_is_tried_on_them(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.recipe.CLASS_NAMES", NAMES)
    model = home.publish()
    home.evaluate(model)
    [row] = home.stores.evaluations.history(model.id)
    row.dataset = DRAWN
    row.dataset_path = str(home.registry.settings.paths.starter_sets / "scenes-1" / "data.yaml")
    monkeypatch.setattr(EvaluationStore, "history", lambda *_: [row])
    recipe = submit_trial(home.stores, model.id, {}).recipe
    assert (recipe["why_not"], recipe["evaluation"]["dataset"]) == ("", None)


def test_nothing_is_tried_where_a_gpu_serves(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    model = home.publish()
    monkeypatch.setattr("engines.trial_submission.device", lambda settings: "cuda")
    assert submit_due(home.stores) == []
    with pytest.raises(Conflict, match="VISIONLOOP_DEVICE=cpu"):
        submit_trial(home.stores, model.id, {})


def test_data_that_is_gone_leaves_int8_out(home: Home) -> None:
    model = home.publish()
    home.evaluate(model)
    job = submit_trial(home.stores, model.id, {})
    shutil.rmtree(home.data)
    home.run(job)
    choice = read_choice(model.path, home.registry.settings)
    assert choice is not None
    int8 = choice.trial("int8")
    assert int8 is not None
    assert int8.note.startswith("int8 was not tried: ")
    assert not int8.usable


def test_what_was_made_goes_with_the_model(home: Home) -> None:
    model, kept = home.publish(), home.publish()
    for job in submit_due(home.stores):
        home.run(job)
    home.run(submit_trial(home.stores, model.id, {}))
    settings = home.registry.settings
    assert choice_folder(model.path, settings).is_dir()
    home.registry.delete(model.id)
    assert not choice_folder(model.path, settings).parent.exists()
    assert choice_folder(kept.path, settings).is_dir()
    choice_folder(model.path, settings).mkdir(parents=True)  # its trial ended afterwards
    assert f"Removed the engines of {model.id}, which does not exist." in home.registry.sweep()
    assert choice_folder(kept.path, settings).is_dir()


@pytest.mark.parametrize("started", [True, False])
def test_a_trial_does_not_keep_a_model_from_being_deleted(home: Home, started: bool) -> None:
    model, stores = home.publish(), home.stores
    [job] = submit_due(stores)
    if started:
        begin(stores.jobs, job.id)
    why = DecisionReason("test")
    kept = KeptImages(home.registry.settings)
    delete_model(model.id, why, home.registry, stores.jobs, stores.evaluations, kept)
    assert stores.jobs.get(job.id).status == ("stopping" if started else "stopped")


def test_a_machine_that_is_never_idle_is_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_job, "is_idle", lambda load: False)
    job = home.job()
    with pytest.raises(VisionLoopError, match="never idle for long enough"):
        IdleMachine(job, patience=0.05, quiet=0.01).wait()
    assert "waiting until they do not" in job.text


def test_a_wait_for_an_idle_machine_can_be_cancelled(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_job, "is_idle", lambda load: False)
    job = home.job()

    def cancelled() -> None:
        raise JobCancelled

    monkeypatch.setattr(job, "check", cancelled)
    with pytest.raises(JobCancelled):
        IdleMachine(job).wait()


def test_the_command_shows_the_choice_and_queues_a_trial(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = home.publish()
    monkeypatch.setattr("engines.__main__.Registry", lambda database: home.registry)
    monkeypatch.setenv("VISIONLOOP_HOME", str(home.registry.settings.home))
    monkeypatch.setenv("VISIONLOOP_DEVICE", "cpu")
    get_settings.cache_clear()
    try:
        assert main([model.id]) == 0
        assert "were not tried on this machine" in capsys.readouterr().out
        assert main([model.id, "--measure", "--json"]) == 0
        job_id = json.loads(capsys.readouterr().out)["job_id"]
        home.run(home.stores.jobs.get(job_id))
        assert main([model.id]) == 0
        shown = capsys.readouterr().out
        assert "ONNX Runtime fp32: The reference" in shown
        assert "64x64 one thread: " in shown
        assert main([model.id, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["engines"]["machine"]["cores"] >= 1
    finally:
        get_settings.cache_clear()
        logging.disable(logging.NOTSET)
