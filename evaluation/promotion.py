"""Promotion of a new version: make missing evaluations, apply the gate, record the decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from dataset.allowed_roots import data_roots
from dataset.dataset import Dataset
from dataset.inspection import check
from errors import Conflict, ModelNotFound
from evaluation.gate import Gate, GateDecision, decide
from evaluation.recipe import EvaluationRecipe
from evaluation.store import EvaluationRow, EvaluationStore
from inference.engine_files import served_letterbox
from models_store.decision_log import DecisionReason
from models_store.preload import await_loading
from models_store.registry import Registry
from models_store.versions import ModelVersion
from settings import Settings
from synthetic.evaluation_sets import drawn_set

if TYPE_CHECKING:
    from jobs.handle import JobHandle

GATE = "gate"  # mode of gate jobs
TRIES = 3  # attempts, if another version is promoted or the dataset changes in the meantime
PATIENCE = 45.0  # maximum seconds to wait until the runners have loaded the version


class PromotionRecipe(BaseModel):
    """The resolved description of one gate job. Stored as JSON.

    Attributes:
        model_id: The new version, `name:version`.
        gate: The conditions.
        evaluation: Evaluation of the new version; the promoted one is evaluated on the same split.
        by: Who requested the promotion.
        old: A second evaluation, on the data that the model knew before incremental training.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_id: str
    gate: Gate
    evaluation: EvaluationRecipe
    by: str
    old: EvaluationRecipe | None = None


@dataclass(frozen=True)
class Pair:
    """Evaluations of the new and the promoted version on the same images."""

    candidate: EvaluationRow
    promoted: EvaluationRow


@dataclass(frozen=True)
class GateResult:
    """The gate's decision with the evaluations that it is based on.

    Attributes:
        decision: Whether to promote, and the reasons.
        gate: The conditions.
        pairs: The evaluations compared, those on old data last; empty if no version was promoted.
        expected_promoted: The promoted version at the time of the decision; empty: no version was
            promoted; None: not checked.
    """

    decision: GateDecision
    gate: Gate
    pairs: Sequence[Pair]
    expected_promoted: str | None

    def why(self, by: str, job_id: str | None = None, forced: bool = False) -> DecisionReason:
        """The reason to record in the decision log."""
        rows: dict[str, str] = {}
        for pair, kind in zip(self.pairs, ("", "_on_old_data"), strict=False):
            rows |= {f"candidate{kind}": pair.candidate.id, f"promoted{kind}": pair.promoted.id}
        gate = self.gate.model_dump()
        reasons = self.decision.reasons
        regressed = tuple(dict.fromkeys(one.name for one in self.decision.regressed))
        return DecisionReason(by, reasons, gate, rows or None, forced, job_id, regressed)


def old_data(recipe: Mapping[str, Any]) -> str | None:
    """Path of the old data (learned before) in a training recipe; None: not given."""
    for mode in ("incremental", "distillation"):
        if path := (recipe.get(mode) or {}).get("old_data"):
            return str(path)
    return None


def stored_pairs(
    candidate: ModelVersion,
    promoted: ModelVersion,
    gate: Gate,
    evaluations: EvaluationStore,
    dataset: Dataset | None = None,
    old: str | None = None,
) -> tuple[Pair, ...] | None:
    """The newest stored evaluations of both versions on one split; None if one is missing.

    Both must have been measured with the letterbox that serves both versions.

    Args:
        candidate, promoted: The two versions.
        gate: The conditions; contains the split.
        evaluations: The store to search.
        dataset: The dataset with its current fingerprint; None: any that both were evaluated on.
        old: Path of the old data, on whose val split both must have been evaluated too.
    """
    fingerprint = dataset.fingerprint if dataset else None
    settings = evaluations.database.settings
    served, other = (
        served_letterbox(model.files(), model.description, settings)
        for model in (candidate, promoted)
    )
    if served != other:
        return None
    rows = [
        row
        for row in evaluations.history(candidate.id)
        if row.letterbox == served and evaluations.is_complete(row)
    ]
    fitting = [
        row
        for row in rows
        if row.split == (gate.split or "val")
        and fingerprint in (None, row.fingerprint)
        and (dataset is not None or row.dataset_path != old)
    ]
    wanted = [fitting]
    if old is not None:
        wanted.append([row for row in rows if (row.dataset_path, row.split) == (old, "val")])
    pairs = [_paired(some, promoted, evaluations) for some in wanted]
    found = tuple(pair for pair in pairs if pair is not None)
    return found if len(found) == len(wanted) else None


def evaluated_on(
    candidate: ModelVersion,
    promoted: ModelVersion,
    gate: Gate,
    evaluations: EvaluationStore,
    old: str | None,
) -> EvaluationRow | None:
    """The newest evaluation of a version on images that the promoted one was evaluated on too.

    The letterboxes may differ, so that the two are not compared.

    Args:
        candidate, promoted: The two versions.
        gate: The conditions; contains the split.
        evaluations: The store to search.
        old: Path of the old data, which is not meant.
    """
    images = {(row.fingerprint, row.split) for row in evaluations.history(promoted.id)}
    for row in evaluations.history(candidate.id):
        wanted = row.split == (gate.split or "val") and row.dataset_path != old
        if wanted and (row.fingerprint, row.split) in images:
            return row
    return None


def _paired(
    rows: Sequence[EvaluationRow], promoted: ModelVersion, evaluations: EvaluationStore
) -> Pair | None:
    for row in rows:
        other = evaluations.latest(promoted.id, row.fingerprint, row.split, row.letterbox)
        if other is not None:
            return Pair(row, other)
    return None


def judge(
    candidate: ModelVersion,
    promoted: ModelVersion | None,
    pairs: Sequence[Pair],
    gate: Gate,
    evaluations: EvaluationStore,
) -> GateResult:
    """The gate's decision on a new version.

    Args:
        candidate: The new version.
        promoted: The promoted version of the same name; None: there is none.
        pairs: Evaluations of both, those on old data last; required if another version is
            promoted.
        gate: The conditions.
        evaluations: The store with the reports.

    Raises:
        ValidationFailed: Models of this type do not have the gate's metric.
        Conflict: A report was deleted.
    """
    expected_promoted = promoted.version if promoted else ""
    if promoted is not None and promoted.id == candidate.id:
        decision = GateDecision(True, (f"{candidate.id} is already the promoted version.",))
        return GateResult(decision, gate, (), expected_promoted)
    if promoted is None or not pairs:
        return GateResult(
            decide({"model": {"name": candidate.name}}, None, gate), gate, (), expected_promoted
        )
    try:
        reports = [
            (evaluations.report(pair.candidate), evaluations.report(pair.promoted))
            for pair in pairs
        ]
    except OSError as error:
        raise Conflict(
            f"A report of an evaluation of {candidate.name!r} was just deleted. Try again."
        ) from error
    known = promoted.description.names
    decision = decide(*reports[0], gate, known, reports[1] if len(reports) > 1 else None)
    return GateResult(decision, gate, tuple(pairs), expected_promoted)


def run(
    recipe: PromotionRecipe, job: JobHandle, registry: Registry, patience: float = PATIENCE
) -> GateDecision:
    """Run a gate job: make missing evaluations, decide, promote or refuse. Returns the decision.

    A version is promoted once a gateway has loaded it, or after `patience` seconds.

    Raises:
        VisionLoopError: An evaluation failed; nothing was decided.
        JobCancelled: A stop was requested.
    """
    evaluations = EvaluationStore(registry.database)
    for left in reversed(range(TRIES)):
        candidate = registry.candidate(recipe.model_id)
        promoted = registry.promoted(candidate.name)
        try:
            pairs: list[Pair] = []
            if promoted is not None and promoted.id != candidate.id:
                pairs = _evaluated(recipe, promoted, job, registry)
            judged = judge(candidate, promoted, pairs, recipe.gate, evaluations)
            _carry_out(judged, candidate, recipe, job, registry, patience)
        except (Conflict, ModelNotFound) as error:  # the promoted version may have been deleted
            if not left:
                raise
            job.log(f"{error.message} Comparing again.")
        else:
            return judged.decision
    raise AssertionError("unreachable")


def _carry_out(
    judged: GateResult,
    candidate: ModelVersion,
    recipe: PromotionRecipe,
    job: JobHandle,
    registry: Registry,
    patience: float,
) -> None:
    """Promote or refuse according to the decision, and record it.

    Raises:
        Conflict: Another version was promoted in the meantime.
    """
    why = judged.why(recipe.by, job.id)
    if not judged.decision.promote:
        registry.refuse(candidate.id, why)
    elif judged.expected_promoted != candidate.version:
        if not await_loading(registry.database, candidate, patience, job.check):
            job.log(
                f"{candidate.id} could not be loaded before its promotion within {patience:g} "
                "seconds; the first requests will wait for it."
            )
        registry.promote(candidate.id, why, judged.expected_promoted)
    done = "is promoted" if judged.decision.promote else "is refused"
    job.log(" ".join((f"{candidate.id} {done}.", *judged.decision.reasons)))


def _evaluated(
    recipe: PromotionRecipe,
    promoted: ModelVersion,
    job: JobHandle,
    registry: Registry,
) -> list[Pair]:
    """Evaluations of both versions on the datasets' current content; runs the missing ones."""
    recipes = [recipe.evaluation, *([recipe.old] if recipe.old else [])]
    parts = [(i / len(recipes), (i + 1) / len(recipes)) for i in range(len(recipes))]
    return [
        _evaluated_pair(candidate, promoted, job, registry, share, auxiliary=i > 0)
        for i, (candidate, share) in enumerate(zip(recipes, parts, strict=True))
    ]


def _evaluated_pair(
    candidate: EvaluationRecipe,
    promoted: ModelVersion,
    job: JobHandle,
    registry: Registry,
    share: tuple[float, float],
    auxiliary: bool,
) -> Pair:
    """Evaluations of both versions on one dataset, with one letterbox.

    That is the one that serves both. If one of them has an engine that takes squares only, and
    that cannot be made again, both are measured with squares.

    Args:
        candidate: Evaluation of the new version.
        promoted: The promoted version, evaluated on the same split.
        job: Receives progress; checked for a requested stop.
        registry: Contains both models.
        share: Start and end within the job's progress, 0 to 1.
        auxiliary: Whether to leave the models' metrics unchanged.

    Raises:
        Conflict: The dataset changed during every attempt.
    """
    from evaluation.job import renewed_letterbox, run_evaluation  # imports Matplotlib

    evaluations = EvaluationStore(registry.database)
    served = {
        renewed_letterbox(model_id, job, registry) for model_id in (candidate.model_id, promoted.id)
    }
    if len(served) > 1:
        candidate = candidate.model_copy(update={"letterbox": "square"})
    kind = "square" if len(served) > 1 else served.pop()
    other = candidate.model_copy(update={"model_id": promoted.id, "trained_on": None})
    begin, end = share
    middle = (begin + end) / 2
    for _ in range(TRIES):
        dataset = _dataset(candidate, job, registry.settings)
        rows = [
            evaluations.latest(recipe.model_id, dataset.fingerprint, recipe.split, kind)
            or run_evaluation(recipe, job, registry, part, auxiliary)
            for recipe, part in ((candidate, (begin, middle)), (other, (middle, end)))
        ]
        if rows[0].fingerprint == rows[1].fingerprint:
            return Pair(*rows)
    raise Conflict(
        f"The dataset changed while it was evaluated, {TRIES} times. Try again when it is complete."
    )


def _dataset(recipe: EvaluationRecipe, job: JobHandle, settings: Settings) -> Dataset:
    """The dataset of an evaluation; the synthetic one if the recipe names none."""
    if recipe.dataset is not None:
        return check(Path(recipe.dataset), recipe.task, data_roots(settings), min_classes=1)
    path = drawn_set(recipe.task, settings, lambda *_: job.check())
    return check(path, recipe.task, (path.parent, path))
