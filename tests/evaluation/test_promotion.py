"""From a new version to a promoted or refused one; what evaluations find is made by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import delete

from api.training_fields import TrainingFields
from database import Database
from errors import Conflict, DatasetInvalid, ValidationFailed
from evaluation import job as evaluating
from evaluation import promotion
from evaluation.gate import Gate
from evaluation.promotion import PromotionRecipe
from evaluation.recipe import EvaluationRecipe
from evaluation.store import REPORT, EvaluationRow, EvaluationStore
from evaluation.target import EvaluationTarget
from models_store.current import keep_current
from models_store.decision_log import DecisionReason
from models_store.description import ONNX_FILE, WEIGHTS_FILE, record
from models_store.maintenance import present
from models_store.preload import loaded, preload
from models_store.registry import Registry
from models_store.tables import PublishedModel, raise_generation
from settings import get_settings
from tests.support.made_reports import report
from tests.support.small_models import small_description
from tests.support.trainer_job import RecordingJob
from training import publish
from training.job import after_training
from training.planning.recipe import TrainingRequest

BEFORE = {"round": 0.9, "square": 0.5, "star": 0.7}
BETTER = {"round": 0.9, "square": 0.6, "star": 0.7}
WORSE = {"round": 0.5, "square": 0.9, "star": 0.8}
OLD = "/old"  # path of a dataset that was learned before


def recipe_of(mode: str = "regular", **options: Any) -> Any:
    """What a training's recipe says that matters here."""
    fields = {"mode": mode, "task": "detect", "dataset": "/d", mode: options or None}
    return SimpleNamespace(**fields, model_dump=lambda **_: fields)


class Scene:
    """A registry, and evaluations that say what the test wants."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry = Registry(Database(get_settings()))
        self.evaluations = EvaluationStore(self.registry.database)
        self.job = RecordingJob(folder / "job")
        self.job.stop_when = self.load
        self.figures: dict[str, dict[str, float]] = {}
        self.before: dict[str, dict[str, float]] = {}  # figures on OLD
        self.measured: list[str] = []
        self.letterbox = "rect"
        self.meanwhile: Callable[[str], object] = lambda _: None  # called before each evaluation
        self.contents = ["f"]  # fingerprints of the dataset as time goes by; the last one stays

    @property
    def fingerprint(self) -> str:
        return self.contents[0] if len(self.contents) == 1 else self.contents.pop(0)

    def publish(self, figures: dict[str, float], promote: bool = False, **source: Any) -> str:
        made = self.folder / f"model-{len(self.figures)}"
        made.mkdir()
        small_description("detect").save(made)
        for name in (WEIGHTS_FILE, ONNX_FILE):
            (made / name).write_bytes(b"never loaded")
        record(made, "onnx", {"size": "any"})
        model = self.registry.publish(
            made, "signs", {"kind": "import"} | source, promote=promote
        ).id
        self.figures[model] = figures
        return model

    def measure(self, recipe: EvaluationRecipe, *_: Any) -> EvaluationRow:
        """In place of `run_evaluation`."""
        self.meanwhile(recipe.model_id)
        self.measured.append(recipe.model_id)
        output = self.folder / f"evaluation-{len(self.measured)}"
        output.mkdir()
        old = recipe.dataset == OLD
        content = "o" if old else self.fingerprint
        made = report(recipe.model_id, (self.before if old else self.figures)[recipe.model_id])
        made["dataset"]["fingerprint"] = content
        made["letterbox"] = recipe.letterbox or self.letterbox
        (output / REPORT).write_text(json.dumps(made))
        dataset: Any = SimpleNamespace(fingerprint=content)
        target = EvaluationTarget(
            model_folder=self.folder,
            dataset=dataset,
            split=recipe.split,
            model_id=recipe.model_id,
            dataset_name="d",
            dataset_path=Path(str(recipe.dataset)),
        )
        letterbox = str(made["letterbox"])
        return self.evaluations.add(target, output, made["figures"], letterbox, None)

    def recipe(self, model: str, **gate: Any) -> PromotionRecipe:
        evaluation = EvaluationRecipe(model_id=model, task="detect", dataset="/d")
        return PromotionRecipe(model_id=model, gate=Gate(**gate), evaluation=evaluation, by="test")

    def load(self, _: RecordingJob) -> None:
        """In place of a gateway: what is expected is loaded."""
        for model_id in preload(self.registry.database):
            loaded(self.registry.database, model_id)

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
    old = SimpleNamespace(fingerprint="o")
    monkeypatch.setattr(promotion, "_dataset", lambda to, *_: old if to.dataset == OLD else made)
    yield made
    made.registry.database.close()
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
    assert "'round' regressed from 0.900 to 0.500" in decision.reasons[0]
    assert f"{new} is refused. 'round' regressed" in scene.job.text


def test_what_is_promoted_already_is_left_alone(scene: Scene) -> None:
    model = scene.publish(BEFORE, promote=True)
    assert scene.run(model)
    assert scene.decided() == ["promoted"]


def test_another_promotion_in_between_is_compared_with_anew(scene: Scene) -> None:
    scene.publish(BEFORE, promote=True)
    best, new = scene.publish({"round": 1.0, "square": 1.0, "star": 1.0}), scene.publish(BETTER)

    def interfered(_: str) -> None:
        if not scene.measured:
            scene.registry.promote(best, DecisionReason("somebody"))

    scene.meanwhile = interfered
    assert not scene.run(new)
    assert scene.registry.get("signs").id == best
    assert scene.decided() == ["promoted", "promoted", "refused"]
    assert "Comparing again." in scene.job.text


def test_data_that_changes_is_measured_again_and_at_last_given_up(scene: Scene) -> None:
    scene.publish(BEFORE, promote=True)
    new = scene.publish(BETTER)
    scene.contents = [str(number) for number in range(40)]
    with pytest.raises(Conflict, match="changed while it was evaluated"):
        scene.run(new)
    assert scene.decided() == ["promoted"]


def test_stored_pairs_are_of_the_same_images_and_split(scene: Scene) -> None:
    old, new = scene.publish(BEFORE, promote=True), scene.publish(BETTER)
    models = scene.registry.get(new), scene.registry.get(old)
    evaluation = scene.recipe(new).evaluation
    scene.contents = ["f"]
    first = scene.measure(evaluation)
    scene.measure(evaluation.model_copy(update={"model_id": old, "split": "test"}))
    assert promotion.stored_pairs(*models, Gate(), scene.evaluations) is None
    second = scene.measure(evaluation.model_copy(update={"model_id": old}))
    [pair] = promotion.stored_pairs(*models, Gate(), scene.evaluations) or ()
    assert (pair.candidate.id, pair.promoted.id) == (first.id, second.id)
    changed: Any = type("Changed", (), {"fingerprint": "other"})()
    assert promotion.stored_pairs(*models, Gate(), scene.evaluations, changed) is None


def test_evaluations_of_models_that_the_command_line_deleted_go_at_the_next_start(
    scene: Scene,
) -> None:
    kept, gone = scene.publish(BEFORE), scene.publish(BETTER)
    rows = [scene.measure(scene.recipe(model).evaluation) for model in (kept, gone)]
    scene.registry.delete(gone)
    damage(scene.registry, kept)
    assert scene.registry.list() == []
    there = present(scene.registry.store, scene.registry.database)
    assert scene.evaluations.keep_only(there) == 1
    assert [scene.evaluations.folder(row).exists() for row in rows] == [True, False]
    assert scene.evaluations.history(gone) == []
    with scene.registry.database.write() as session:  # as `reindex` does with a damaged one
        session.execute(delete(PublishedModel))
    assert present(scene.registry.store, scene.registry.database) == {kept}


def damage(registry: Registry, model_id: str) -> None:
    """As a newer program may leave it: a description that this one cannot read."""
    name, _, version = model_id.partition(":")
    with registry.database.write() as session:
        row = session.get(PublishedModel, (name, version))
        assert row is not None
        row.description = row.description.replace("{", '{"colour": 1,', 1)
        raise_generation(session)
    registry.refresh()


@pytest.mark.parametrize(
    ("old", "kept", "promote"),
    [
        (None, BEFORE, False),
        (OLD, {"round": 0.9, "square": 0.8, "star": 0.7}, True),
        (OLD, {"round": 0.0, "square": 0.0, "star": 0.0}, False),
    ],
)
def test_a_training_that_goes_on_from_a_model_must_not_have_forgotten(
    scene: Scene, old: str | None, kept: dict[str, float], promote: bool
) -> None:
    """New data tells nothing of old classes: without data of them it is a refusal."""
    known = {"round": 0.9, "square": 0.8, "star": 0.7}
    base, new = scene.publish({"tram": 0.0}, promote=True), scene.publish({"tram": 0.8})
    scene.before = {base: known, new: kept}
    recipe = recipe_of("incremental", old_data=old)
    version = scene.registry.get(new)
    after_training(version, recipe, scene.job, scene.registry)
    decision = scene.registry.decisions("signs")[0]
    assert (decision.action == "promoted") is promote, decision.reasons
    said = " ".join(decision.reasons)
    if old is None:
        assert (
            "Not measured, because the dataset has no object of these classes: round, square, star"
            in said
        )
        return
    assert "On the old data mAP50-95 went from 0.800" in said
    assert len(decision.evaluations or {}) == 4
    models = version, scene.registry.get(base)
    pairs = promotion.stored_pairs(*models, Gate(), scene.evaluations, None, old)
    assert [pair.candidate.dataset_path for pair in pairs or ()] == ["/d", OLD]
    assert promotion.stored_pairs(*models, Gate(split="test"), scene.evaluations, None, old) is None


def test_evaluations_of_before_are_made_again_with_the_letterbox_that_serves(scene: Scene) -> None:
    old, new = scene.publish(BEFORE, promote=True), scene.publish(BETTER)
    scene.letterbox = "square"  # what a version before measured with
    evaluation = scene.recipe(new).evaluation
    for model in (new, old):
        scene.measure(evaluation.model_copy(update={"model_id": model}))
    models = scene.registry.get(new), scene.registry.get(old)
    assert promotion.stored_pairs(*models, Gate(), scene.evaluations) is None
    scene.letterbox = "rect"
    scene.measured.clear()
    assert scene.run(new)
    assert scene.measured == [new, old]
    [pair] = promotion.stored_pairs(*models, Gate(), scene.evaluations) or ()
    assert (pair.candidate.letterbox, pair.promoted.letterbox) == ("rect", "rect")


def test_with_an_engine_that_stays_square_both_are_measured_with_squares(scene: Scene) -> None:
    old, new = scene.publish(BEFORE, promote=True), scene.publish(BETTER)
    record(scene.registry.get(old).path, "onnx", {"size": "fixed"})  # its weights are no weights
    assert scene.run(new)
    assert scene.measured == [new, old]
    rows = [scene.evaluations.history(model)[0] for model in (new, old)]
    assert [row.letterbox for row in rows] == ["square", "square"]
    assert f"The engine of {old} takes squares only; it is made again first." in scene.job.text
    assert f"The engine of {old} stays as it is: " in scene.job.text


def test_a_lost_report_is_measured_again(scene: Scene) -> None:
    old, new = scene.publish(BEFORE, promote=True), scene.publish(BETTER)
    lost = scene.measure(scene.recipe(new).evaluation)
    (scene.evaluations.folder(lost) / REPORT).unlink()
    models = scene.registry.get(new), scene.registry.get(old)
    assert promotion.stored_pairs(*models, Gate(), scene.evaluations) is None
    assert scene.run(new)
    assert scene.measured == [new, new, old]


def test_the_promoted_version_that_is_deleted_meanwhile_is_no_reason_to_fail(
    scene: Scene,
) -> None:
    old, new = scene.publish(BEFORE, promote=True), scene.publish(BETTER)

    def deleted(model_id: str) -> None:
        if model_id == old:
            scene.registry.delete(old)
        scene.registry.get(model_id)

    scene.meanwhile = deleted
    assert scene.run(new)
    assert scene.registry.get("signs").id == new


def test_what_is_promoted_is_loaded_first(scene: Scene) -> None:
    """A gateway sees what comes, and says when it is loaded."""
    model = scene.publish(BEFORE)
    seen: list[tuple[list[str], bool]] = []

    def look(job: RecordingJob) -> None:
        expected = preload(scene.registry.database)
        seen.append((expected, scene.registry.get(model).promoted))
        scene.load(job)

    scene.job.stop_when = look
    assert scene.run(model)
    assert seen == [([model], False)]
    assert "before its promotion" not in scene.job.text
    better = scene.recipe(scene.publish(BETTER))
    assert promotion.run(better, scene.job, scene.registry, patience=0.0).promote
    assert "could not be loaded before its promotion" in scene.job.text
    assert preload(scene.registry.database) == []


@pytest.mark.parametrize(
    "error", [DatasetInvalid("It is gone."), ValidationFailed("No class."), MemoryError()]
)
def test_a_training_whose_model_cannot_be_compared_is_not_failed(
    scene: Scene, error: Exception
) -> None:
    def fail(_: str) -> None:
        raise error

    scene.publish(BEFORE, promote=True)
    new = scene.publish(BETTER)
    scene.meanwhile = fail
    version = scene.registry.get(new)
    after_training(version, recipe_of(), scene.job, scene.registry)
    decision = scene.registry.decisions("signs")[0]
    assert (decision.action, decision.by) == ("refused", "training")
    assert (str(error) or "MemoryError; the job's log") in decision.reasons[0]
    scene.registry.delete(new)
    after_training(version, recipe_of(), scene.job, scene.registry)
    assert len(scene.registry.decisions("signs")) == 2


def test_a_training_is_promoted_by_the_gate_of_the_settings(scene: Scene) -> None:
    scene.publish(BEFORE, promote=True)
    new = scene.publish(WORSE)
    recipe = recipe_of()
    after_training(scene.registry.get(new), recipe, scene.job, scene.registry)
    assert scene.decided() == ["promoted", "refused"]
    generous = scene.registry.settings.model_copy(update={"gate_max_class_drop": 0.5})
    database = Database(generous)
    after_training(scene.registry.get(new), recipe, scene.job, Registry(database))
    database.close()
    scene.registry.refresh()
    assert scene.registry.get("signs").id == new


def test_a_training_request_says_whether_to_promote() -> None:
    asked = TrainingFields(data_path="d", promote="auto").request("regular")
    assert asked.promote == "auto"
    assert TrainingFields(data_path="d").request("regular").promote == "never"
    older = TrainingRequest.model_validate({"promote": False})  # as it was stored before
    assert older.promote == "never"


def held_by_training(scene: Scene) -> None:
    keep_current("signs", scene.registry, "training", "this training published a newer one")


def test_a_training_does_not_take_the_name_of_a_model_that_was_never_promoted(
    scene: Scene,
) -> None:
    """A name means its newest version while none is promoted: the gate would come too late."""
    held_by_training(scene)  # nothing is there yet
    first, second = scene.publish(BEFORE), scene.publish(BEFORE)
    held_by_training(scene)
    trained = scene.publish(WORSE)
    assert scene.registry.get("signs").id == second
    assert not scene.run(trained)
    held_by_training(scene)
    [refused, held] = scene.registry.decisions("signs")
    assert (held.action, held.by, held.previous) == ("promoted", "training", None)
    assert "was the version of 'signs' before" in held.reasons[0]
    assert refused.action == "refused"
    assert first != second


@pytest.mark.parametrize(
    ("refused", "held", "said"),
    [
        ((2,), 1, "Newer ones were refused."),
        ((1, 2), 0, "Newer ones were refused."),
        ((1,), 2, "published a newer one."),
        ((0, 1, 2), 2, "It was refused before, but there is no other."),
    ],
)
def test_a_refused_version_is_not_promoted_by_the_next_training(
    scene: Scene, refused: tuple[int, ...], held: int, said: str
) -> None:
    versions = [scene.publish(BEFORE) for _ in range(3)]
    for index in refused:
        why = DecisionReason("training", ("It has forgotten a class.",))
        scene.registry.refuse(versions[index], why)
    held_by_training(scene)
    found = scene.registry.promoted("signs")
    assert found is not None
    assert found.id == versions[held]
    assert scene.registry.decisions("signs")[0].reasons[0].endswith(said)


@pytest.mark.parametrize(
    ("mode", "parent", "expected"),
    [
        ("regular", {"round": 5}, {"round": 1, "tram": 9}),
        ("incremental", {"round": 5, "square": 7}, {"round": 6, "tram": 9}),
        ("incremental", None, {}),
    ],
)
def test_a_model_that_goes_on_learning_has_seen_what_its_parent_saw(
    scene: Scene, mode: str, parent: dict[str, int] | None, expected: dict[str, int]
) -> None:
    base = scene.publish(BEFORE, class_counts=parent)
    trained: Any = SimpleNamespace(class_counts={"round": 1, "tram": 9})
    recipe: Any = SimpleNamespace(mode=mode, parent=base)
    assert publish._class_counts(trained, recipe, scene.registry) == expected
