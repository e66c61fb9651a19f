"""Requested promotions: decided at once from stored evaluations, else by a queued job."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from database import Database
from dataset.store import DatasetStore
from errors import DatasetNotFound, ValidationFailed, VisionLoopError
from evaluation.gate import Gate
from evaluation.promotion import GATE
from evaluation.promotion_request import (
    PromotionOutcome,
    PromotionPreview,
    PromotionRequest,
    decide_promotion,
    preview_promotion,
)
from evaluation.store import REPORT, EvaluationStore
from evaluation.submission import EvaluationStores
from evaluation.target import EvaluationTarget
from jobs.job import Job
from jobs.store import JobStore
from models_store.decision_log import DecisionReason
from models_store.description import ONNX_FILE, WEIGHTS_FILE, record
from models_store.registry import Registry
from models_store.versions import ModelVersion
from settings import Settings
from tests.support.made_reports import report
from tests.support.shapes import write_shapes
from tests.support.small_models import small_description

BEFORE = {"round": 0.9, "square": 0.5, "star": 0.7}
BETTER = {"round": 0.9, "square": 0.6, "star": 0.7}
WORSE = {"round": 0.5, "square": 0.9, "star": 0.8}


class Stage:
    """Model versions with evaluations made by hand, and what was promoted and queued."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = write_shapes(folder / "data", "detect", 2, 2, 64)
        settings = Settings(home=folder / "home", data_roots=(folder,), device="cpu")
        database = Database(settings)
        self.registry = Registry(database)
        self.stores = EvaluationStores(
            self.registry, DatasetStore(settings), EvaluationStore(database), JobStore(database)
        )
        self.queued: list[Job] = []

    def publish(self, promote: bool = False) -> ModelVersion:
        made = self.folder / f"model-{len(list(self.folder.iterdir()))}"
        made.mkdir()
        small_description("detect").save(made)
        for name in (WEIGHTS_FILE, ONNX_FILE):
            (made / name).write_bytes(b"never loaded")
        record(made, "onnx", {"size": "any"})
        return self.registry.publish(made, "signs", {"kind": "import"}, promote=promote)

    def evaluated(
        self, model: ModelVersion, figures: dict[str, float], letterbox: str = "rect"
    ) -> None:
        output = self.folder / f"evaluation-{len(list(self.folder.iterdir()))}"
        output.mkdir()
        made = report(model.id, figures, letterbox=letterbox)
        (output / REPORT).write_text(json.dumps(made))
        dataset: Any = SimpleNamespace(fingerprint="f")
        target = EvaluationTarget(
            model_folder=self.folder,
            dataset=dataset,
            model_id=model.id,
            dataset_name="d",
            dataset_path=self.data,
        )
        self.stores.evaluations.add(target, output, made["figures"], letterbox, None)

    async def _promote(
        self, model: ModelVersion, why: DecisionReason, expected: str | None
    ) -> ModelVersion:
        return self.registry.promote(model.id, why, expected)

    def decide(
        self, model: ModelVersion, gate: Gate | None, force: bool = False
    ) -> PromotionOutcome | Job:
        request = PromotionRequest(model, gate, "test", force)
        decision = decide_promotion(request, self.stores, self._promote, self.queued.append)
        return asyncio.run(decision)

    def outcome(
        self, model: ModelVersion, gate: Gate | None, force: bool = False
    ) -> PromotionOutcome:
        found = self.decide(model, gate, force)
        assert isinstance(found, PromotionOutcome)
        return found

    def preview(
        self, model: ModelVersion, gate: Gate | None, force: bool = False
    ) -> PromotionPreview:
        """What would happen; that nothing did is checked."""
        before = self.promoted, len(self.registry.decisions("signs"))
        seen = preview_promotion(PromotionRequest(model, gate, "test", force), self.stores)
        assert (self.promoted, len(self.registry.decisions("signs"))) == before
        assert (self.queued, self.stores.jobs.list()) == ([], [])
        return seen

    @property
    def promoted(self) -> str:
        return self.registry.get("signs").id


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bento"))
    made = Stage(tmp_path)
    yield made
    made.registry.database.close()


def test_without_a_gate_a_version_is_promoted(stage: Stage) -> None:
    stage.publish(promote=True)
    new = stage.publish()
    assert stage.outcome(new, None).promoted
    assert stage.promoted == new.id


@pytest.mark.parametrize(("figures", "better"), [(BETTER, True), (WORSE, False)])
def test_with_both_evaluated_the_gate_decides_at_once(
    stage: Stage, figures: dict[str, float], better: bool
) -> None:
    old, new = stage.publish(promote=True), stage.publish()
    stage.evaluated(old, BEFORE)
    stage.evaluated(new, figures)
    found = stage.outcome(new, Gate())
    assert (found.promoted, found.forced) == (better, False)
    assert stage.promoted == (new if better else old).id
    assert found.to_json()["status"] == ("promoted" if better else "refused")
    decision = stage.registry.decisions("signs")[0]
    assert (decision.action, decision.by) == ("promoted" if better else "refused", "test")
    assert stage.queued == []


def test_a_refused_version_can_be_forced(stage: Stage) -> None:
    old, new = stage.publish(promote=True), stage.publish()
    stage.evaluated(old, BEFORE)
    stage.evaluated(new, WORSE)
    found = stage.outcome(new, Gate(), force=True)
    assert (found.promoted, found.forced, found.decision.promote) == (True, True, False)
    assert stage.promoted == new.id


def test_missing_evaluations_are_left_to_one_job(stage: Stage) -> None:
    old, new = stage.publish(promote=True), stage.publish()
    gate = Gate(dataset=str(stage.data))
    job = stage.decide(new, gate)
    assert isinstance(job, Job)
    assert (job.kind, job.mode, job.base_model) == ("evaluation", GATE, new.id)
    assert job.recipe["evaluation"]["dataset"] == str(stage.data)
    again = stage.decide(new, gate)
    assert isinstance(again, Job)
    assert again.id == job.id
    assert [queued.id for queued in stage.queued] == [job.id]
    assert stage.promoted == old.id


def test_evaluations_with_another_letterbox_than_the_served_one_are_left_to_a_job(
    stage: Stage,
) -> None:
    old, new = stage.publish(promote=True), stage.publish()
    stage.evaluated(old, BEFORE, "square")  # as a version before stored it
    stage.evaluated(new, BETTER, "square")
    job = stage.decide(new, Gate())  # on the data of the old ones, though no training data is known
    assert isinstance(job, Job)
    assert job.recipe["evaluation"]["dataset"] == str(stage.data)
    stage.evaluated(new, BETTER)
    assert isinstance(stage.decide(new, Gate()), Job)
    stage.evaluated(old, BEFORE)
    assert stage.outcome(new, Gate()).promoted


def test_forcing_does_not_wait_for_missing_evaluations(stage: Stage) -> None:
    stage.publish(promote=True)
    new = stage.publish()
    found = stage.outcome(new, Gate(), force=True)
    assert found.forced
    assert "evaluations are missing" in found.decision.reasons[0]
    assert stage.promoted == new.id


@pytest.mark.parametrize(
    ("gate", "error"),
    [(Gate(dataset="gone-1"), DatasetNotFound), (Gate(metric="accuracy"), ValidationFailed)],
)
def test_a_gate_that_cannot_be_applied_is_an_error_unless_forced(
    stage: Stage, gate: Gate, error: type[VisionLoopError]
) -> None:
    old, new = stage.publish(promote=True), stage.publish()
    stage.evaluated(old, BEFORE)
    stage.evaluated(new, BETTER)
    with pytest.raises(error):
        stage.decide(new, gate)
    assert stage.promoted == old.id
    assert stage.outcome(new, gate, force=True).forced
    assert stage.promoted == new.id


@pytest.mark.parametrize(("figures", "better"), [(BETTER, True), (WORSE, False)])
def test_a_preview_is_the_verdict_that_the_gate_gives_and_changes_nothing(
    stage: Stage, figures: dict[str, float], better: bool
) -> None:
    old, new = stage.publish(promote=True), stage.publish()
    stage.evaluated(old, BEFORE)
    stage.evaluated(new, figures)
    seen = stage.preview(new, Gate())
    assert (seen.would_promote, seen.promoted, seen.forced) == (better, old.id, False)
    assert seen.replaces == (old.id if better else None)
    lost = [(one.name, one.metric, one.old, one.new) for one in seen.decision.regressed]
    assert lost == ([] if better else [("round", "mAP50_95", 0.9, 0.5)])
    found = stage.outcome(new, Gate())
    assert (found.promoted, found.decision) == (better, seen.decision)
    if better:
        assert stage.preview(new, Gate()).replaces is None, "it is promoted already"


def test_a_preview_without_a_gate_or_with_force(stage: Stage) -> None:
    old, new = stage.publish(promote=True), stage.publish()
    seen = stage.preview(new, None)
    assert (seen.would_promote, seen.replaces, seen.gate) == (True, old.id, None)
    forced = stage.preview(new, Gate(), force=True)
    assert (forced.would_promote, forced.forced, forced.replaces) == (True, True, old.id)
    assert "evaluations are missing" in forced.decision.reasons[0]


def test_a_preview_with_missing_evaluations_has_no_verdict(stage: Stage) -> None:
    old, new = stage.publish(promote=True), stage.publish()
    seen = stage.preview(new, Gate(dataset=str(stage.data)))
    assert (seen.would_promote, seen.replaces) == (None, old.id)
    assert f"{new.id} and {old.id} were not both evaluated" in seen.decision.reasons[0]
    with pytest.raises(DatasetNotFound):
        stage.preview(new, Gate(dataset="gone-1"))
