"""From a new version to a promoted or refused one; what evaluations find is made by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.training import TrainingFields
from errors import Conflict, DatasetInvalid, ValidationFailed
from models_store.decisions import Why
from models_store.description import ONNX_FILE, WEIGHTS_FILE
from models_store.registry import Registry
from settings import get_settings
from tests.small_models import small_description
from tests.training.made_reports import report
from tests.training.trainer_job import RecordingJob
from training import evaluating, promotion, publication
from training.evaluation_recipe import EvaluationRecipe
from training.evaluations import REPORT, EvaluationRow, EvaluationStore
from training.gate import Gate
from training.promotion import PromotionRecipe
from training.recipe import TrainingRequest

BEFORE = {"stop": 0.9, "yield": 0.5}
BETTER = {"stop": 0.9, "yield": 0.6}
WORSE = {"stop": 0.5, "yield": 0.9}


class Scene:
    """A registry, and evaluations that say what the test wants."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry = Registry(get_settings())
        self.evaluations = EvaluationStore(get_settings())
        self.job = RecordingJob(folder / "job")
        self.figures: dict[str, dict[str, float]] = {}
        self.measured: list[str] = []
        self.contents = ["f"]  # fingerprints of the data set as time goes by; the last one stays

    @property
    def fingerprint(self) -> str:
        return self.contents[0] if len(self.contents) == 1 else self.contents.pop(0)

    def publish(self, figures: dict[str, float], promote: bool = False, **source: Any) -> str:
        made = self.folder / f"model-{len(self.figures)}"
        made.mkdir()
        small_description("detect").save(made)
        for name in (WEIGHTS_FILE, ONNX_FILE):
            (made / name).write_bytes(b"never loaded")
        model = self.registry.publish(
            made, "signs", {"kind": "import"} | source, promote=promote
        ).id
        self.figures[model] = figures
        return model

    def measure(self, recipe: EvaluationRecipe, *_: Any) -> EvaluationRow:
        """In place of `run_evaluation`."""
        self.measured.append(recipe.model_id)
        output = self.folder / f"evaluation-{len(self.measured)}"
        output.mkdir()
        content = self.fingerprint
        made = report(recipe.model_id, self.figures[recipe.model_id])
        made["dataset"]["fingerprint"] = content
        (output / REPORT).write_text(json.dumps(made))
        return self.evaluations.add(
            recipe.model_id, "d", "/d", content, recipe.split, output, made["figures"], None
        )

    def recipe(self, model: str, **gate: Any) -> PromotionRecipe:
        evaluation = EvaluationRecipe(model_id=model, task="detect", dataset="/d")
        return PromotionRecipe(model_id=model, gate=Gate(**gate), evaluation=evaluation, by="test")

    def run(self, model: str, **gate: Any) -> bool:
        return promotion.run(self.recipe(model, **gate), self.job, self.registry).promote

    def decided(self) -> list[str]:
        return [row.action for row in reversed(self.registry.decisions("signs"))]


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setenv("VISIONLOOP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bento"))
    get_settings.cache_clear()
    made = Scene(tmp_path)
    monkeypatch.setattr(evaluating, "run_evaluation", made.measure)
    monkeypatch.setattr(promotion, "_dataset", lambda *_: made)
    yield made
    made.evaluations.close()
    made.registry.close()
    get_settings.cache_clear()


def test_the_first_version_needs_no_evaluation(scene: Scene) -> None:
    model = scene.publish(BEFORE)
    assert scene.run(model)
    assert scene.registry.get("signs").promoted
    assert scene.measured == []
    assert "is promoted. No version of 'signs'" in scene.job.text


def test_both_are_evaluated_once_and_the_better_one_is_promoted(scene: Scene) -> None:
    old, new = scene.publish(BEFORE, promote=True), scene.publish(BETTER)
    assert scene.run(new)
    assert scene.measured == [new, old]
    assert scene.registry.get("signs").id == new
    newest = scene.publish(BETTER)
    assert scene.run(newest)
    assert scene.measured == [new, old, newest]
    decision = scene.registry.decisions("signs")[0]
    assert (decision.by, decision.job_id) == ("test", scene.job.id)
    assert set(decision.evaluations or {}) == {"candidate", "promoted"}


def test_a_refusal_is_recorded_with_its_reasons(scene: Scene) -> None:
    old, new = scene.publish(BEFORE, promote=True), scene.publish(WORSE)
    assert not scene.run(new)
    assert scene.registry.get("signs").id == old
    decision = scene.registry.decisions("signs")[0]
    assert decision.action == "refused"
    assert "'stop' fell from 0.900 to 0.500" in decision.reasons[0]
    assert f"{new} is refused. 'stop' fell" in scene.job.text


def test_what_is_promoted_already_is_left_alone(scene: Scene) -> None:
    model = scene.publish(BEFORE, promote=True)
    assert scene.run(model)
    assert scene.decided() == ["promoted"]


def test_another_promotion_in_between_is_compared_with_anew(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.publish(BEFORE, promote=True)
    best, new = scene.publish({"stop": 1.0, "yield": 1.0}), scene.publish(BETTER)
    carry_out = promotion._carry_out
    calls: list[tuple[Any, ...]] = []

    def interfered(*arguments: Any) -> None:
        if not calls:
            scene.registry.promote(best, Why("somebody"))
        calls.append(arguments)
        carry_out(*arguments)

    monkeypatch.setattr(promotion, "_carry_out", interfered)
    assert not scene.run(new)
    assert scene.registry.get("signs").id == best
    assert scene.decided() == ["promoted", "promoted", "refused"]
    assert "Comparing again." in scene.job.text


def test_data_that_changes_is_measured_again_and_at_last_given_up(scene: Scene) -> None:
    scene.publish(BEFORE, promote=True)
    new = scene.publish(BETTER)
    scene.contents = [str(number) for number in range(40)]
    with pytest.raises(Conflict, match="changes while it is evaluated"):
        scene.run(new)
    assert scene.decided() == ["promoted"]


def test_evaluations_on_hand_are_of_the_same_images_and_split(scene: Scene) -> None:
    old, new = scene.publish(BEFORE, promote=True), scene.publish(BETTER)
    models = scene.registry.get(new), scene.registry.get(old)
    evaluation = scene.recipe(new).evaluation
    scene.contents = ["f"]
    first = scene.measure(evaluation)
    scene.measure(evaluation.model_copy(update={"model_id": old, "split": "test"}))
    assert promotion.on_hand(*models, Gate(), scene.evaluations) is None
    second = scene.measure(evaluation.model_copy(update={"model_id": old}))
    pair = promotion.on_hand(*models, Gate(), scene.evaluations)
    assert pair is not None
    assert (pair.candidate.id, pair.promoted.id) == (first.id, second.id)
    changed: Any = type("Changed", (), {"fingerprint": "other"})()
    assert promotion.on_hand(*models, Gate(), scene.evaluations, changed) is None


def test_evaluations_of_models_that_the_command_line_deleted_go_at_the_next_start(
    scene: Scene,
) -> None:
    kept, gone = scene.publish(BEFORE), scene.publish(BETTER)
    rows = [scene.measure(scene.recipe(model).evaluation) for model in (kept, gone)]
    scene.registry.delete(gone)
    assert scene.evaluations.keep_only([model.id for model in scene.registry.list()]) == 1
    assert [scene.evaluations.folder(row).exists() for row in rows] == [True, False]
    assert scene.evaluations.history(gone) == []


@pytest.mark.parametrize("error", [DatasetInvalid("It is gone."), ValidationFailed("No class.")])
def test_a_training_whose_model_cannot_be_compared_is_not_failed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any) -> EvaluationRow:
        raise error

    scene.publish(BEFORE, promote=True)
    new = scene.publish(BETTER)
    monkeypatch.setattr(evaluating, "run_evaluation", fail)
    recipe: Any = type("Recipe", (), {"task": "detect", "dataset": "/d"})()
    promotion.after_training(scene.registry.get(new), recipe, scene.job, scene.registry)
    decision = scene.registry.decisions("signs")[0]
    assert (decision.action, decision.by) == ("refused", "training")
    assert str(error) in decision.reasons[0]


def test_a_training_is_promoted_by_the_gate_of_the_settings(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.publish(BEFORE, promote=True)
    new = scene.publish(WORSE)
    recipe: Any = type("Recipe", (), {"task": "detect", "dataset": "/d"})()
    promotion.after_training(scene.registry.get(new), recipe, scene.job, scene.registry)
    assert scene.decided() == ["promoted", "refused"]
    generous = scene.registry.settings.model_copy(update={"gate_max_class_drop": 0.5})
    monkeypatch.setattr(scene.registry, "settings", generous)
    promotion.after_training(scene.registry.get(new), recipe, scene.job, scene.registry)
    assert scene.registry.get("signs").id == new


def test_a_training_request_says_whether_to_promote() -> None:
    asked = TrainingFields(data_path="d", promote="auto").request("regular")
    assert asked.promote == "auto"
    assert TrainingFields(data_path="d").request("regular").promote == "never"
    older = TrainingRequest.model_validate({"promote": False})  # as it was stored before
    assert older.promote == "never"


def test_a_training_does_not_take_the_name_of_a_model_that_was_never_promoted(
    scene: Scene,
) -> None:
    """A name means its newest version while none is promoted: the gate would come too late."""
    publication._hold("signs", scene.registry)  # nothing is there yet
    first, second = scene.publish(BEFORE), scene.publish(BEFORE)
    publication._hold("signs", scene.registry)
    trained = scene.publish(WORSE)
    assert scene.registry.get("signs").id == second
    assert not scene.run(trained)
    publication._hold("signs", scene.registry)
    [refused, held] = scene.registry.decisions("signs")
    assert (held.action, held.by, held.previous) == ("promoted", "training", None)
    assert "answered for 'signs' before" in held.reasons[0]
    assert refused.action == "refused"
    assert first != second


@pytest.mark.parametrize(
    ("mode", "parent", "expected"),
    [
        ("regular", {"stop": 5}, {"stop": 1, "tram": 9}),
        ("incremental", {"stop": 5, "yield": 7}, {"stop": 6, "tram": 9}),
        ("incremental", None, {}),
    ],
)
def test_a_model_that_goes_on_learning_has_seen_what_its_parent_saw(
    scene: Scene, mode: str, parent: dict[str, int] | None, expected: dict[str, int]
) -> None:
    base = scene.publish(BEFORE, class_counts=parent)
    trained: Any = type("Trained", (), {"class_counts": {"stop": 1, "tram": 9}})()
    recipe: Any = type("Recipe", (), {"mode": mode, "parent": base})()
    assert publication._class_counts(trained, recipe, scene.registry) == expected
