"""From a new version to the traffic: both evaluated where that is missing, judged, recorded."""

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
from evaluation.gate import Gate, Verdict, decide
from evaluation.recipe import EvaluationRecipe
from evaluation.store import EvaluationRow, EvaluationStore
from models_store.decision_log import DecisionReason
from models_store.preload import await_loading
from models_store.registry import Registry
from models_store.versions import ModelVersion
from settings import Settings
from synthetic.evaluation_sets import drawn_set

if TYPE_CHECKING:
    from jobs.handle import JobHandle

GATE = "gate"  # mode of the jobs that decide
TRIES = 3  # where others promote, or change the data, while this is at work
PATIENCE = 45.0  # seconds that the Detector has for loading what is about to be promoted


class PromotionRecipe(BaseModel):
    """What a job does that evaluates what is missing and then decides.

    Attributes:
        model_id: The new version, `name:version`.
        gate: What is asked of it.
        evaluation: Of the new version; the promoted one is measured on the same.
        by: Who asked.
        old: The same, on what the new version knew before it went on learning.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_id: str
    gate: Gate
    evaluation: EvaluationRecipe
    by: str
    old: EvaluationRecipe | None = None


@dataclass(frozen=True)
class Pair:
    """Two evaluations on the same images."""

    candidate: EvaluationRow
    promoted: EvaluationRow


@dataclass(frozen=True)
class GateResult:
    """A verdict, and what it was found in.

    Attributes:
        verdict: Of the gate.
        pairs: The evaluations, on old data last; none where no version was promoted.
        expected_promoted: The version that was promoted then; empty: none; None: whichever.
    """

    verdict: Verdict
    gate: Gate
    pairs: Sequence[Pair]
    expected_promoted: str | None

    def why(self, by: str, job_id: str | None = None, forced: bool = False) -> DecisionReason:
        """What is recorded of it."""
        rows: dict[str, str] = {}
        for pair, kind in zip(self.pairs, ("", "_on_old_data"), strict=False):
            rows |= {f"candidate{kind}": pair.candidate.id, f"promoted{kind}": pair.promoted.id}
        gate = self.gate.model_dump()
        return DecisionReason(by, self.verdict.reasons, gate, rows or None, forced, job_id)


def old_data(recipe: Mapping[str, Any]) -> str | None:
    """The path of what a model knew before the training with this recipe, if it was told."""
    for mode in ("incremental", "distillation"):
        if path := (recipe.get(mode) or {}).get("old_data"):
            return str(path)
    return None


def on_hand(
    candidate: ModelVersion,
    promoted: ModelVersion,
    gate: Gate,
    evaluations: EvaluationStore,
    dataset: Dataset | None = None,
    old: str | None = None,
) -> tuple[Pair, ...] | None:
    """The newest evaluations of both on one split, if there are such.

    Args:
        candidate, promoted: The two versions.
        gate: Names the split.
        evaluations: Where to look.
        dataset: What they must be of, as it is now; None: any that both were measured on.
        old: Path of a data set on whose val split both must have been measured besides.
    """
    fingerprint = dataset.fingerprint if dataset else None
    rows = [row for row in evaluations.history(candidate.id) if evaluations.is_whole(row)]
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


def _paired(
    rows: Sequence[EvaluationRow], promoted: ModelVersion, evaluations: EvaluationStore
) -> Pair | None:
    for row in rows:
        other = evaluations.latest(promoted.id, row.fingerprint, row.split)
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
    """The gate's verdict on a new version; a pair is needed where another one is promoted.

    Raises:
        ValidationFailed: The gate's metric is none of this kind of model's.
        Conflict: A report is gone.
    """
    expected_promoted = promoted.version if promoted else ""
    if promoted is not None and promoted.id == candidate.id:
        said = Verdict(True, (f"{candidate.id} is the promoted version already.",))
        return GateResult(said, gate, (), expected_promoted)
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
            f"The report of an evaluation of {candidate.name!r} has gone this moment. Ask again."
        ) from error
    known = promoted.description.names
    verdict = decide(*reports[0], gate, known, reports[1] if len(reports) > 1 else None)
    return GateResult(verdict, gate, tuple(pairs), expected_promoted)


def run(recipe: PromotionRecipe, job: JobHandle, registry: Registry) -> Verdict:
    """Evaluate what is missing, decide, promote or refuse. Returns the verdict.

    Raises:
        VisionLoopError: What evaluating raises; nothing is decided then.
        JobCancelled: A stop was asked for.
    """
    evaluations = EvaluationStore(registry.database)
    for left in reversed(range(TRIES)):
        candidate = registry.candidate(recipe.model_id)
        promoted = registry.promoted(candidate.name)
        try:
            pairs: list[Pair] = []
            if promoted is not None and promoted.id != candidate.id:
                pairs = _evaluated(recipe, promoted, job, registry, evaluations)
            judged = judge(candidate, promoted, pairs, recipe.gate, evaluations)
            _carry_out(judged, candidate, recipe, job, registry)
        except (Conflict, ModelNotFound) as error:  # perhaps of the promoted one
            if not left:
                raise
            job.log(f"{error.message} Comparing again.")
        else:
            return judged.verdict
    raise AssertionError("unreachable")


def _carry_out(
    judged: GateResult,
    candidate: ModelVersion,
    recipe: PromotionRecipe,
    job: JobHandle,
    registry: Registry,
) -> None:
    """Do what the verdict says, and record it.

    Raises:
        Conflict: Another version was promoted in the meantime.
    """
    why = judged.why(recipe.by, job.id)
    if not judged.verdict.promote:
        registry.refuse(candidate.id, why)
    elif judged.expected_promoted != candidate.version:
        if not await_loading(registry.database, candidate, PATIENCE, job.check):
            job.log(f"{candidate.id} could not be loaded ahead of the requests.")
        registry.promote(candidate.id, why, judged.expected_promoted)
    done = "is promoted" if judged.verdict.promote else "is refused"
    job.log(" ".join((f"{candidate.id} {done}.", *judged.verdict.reasons)))


def _evaluated(
    recipe: PromotionRecipe,
    promoted: ModelVersion,
    job: JobHandle,
    registry: Registry,
    evaluations: EvaluationStore,
) -> list[Pair]:
    """Evaluations of both on what the data sets hold now, made where they are missing."""
    asked = [recipe.evaluation, *([recipe.old] if recipe.old else [])]
    return [
        _measured(
            mine, promoted, job, registry, evaluations, (i / len(asked), 1 / len(asked)), i > 0
        )
        for i, mine in enumerate(asked)
    ]


def _measured(
    mine: EvaluationRecipe,
    promoted: ModelVersion,
    job: JobHandle,
    registry: Registry,
    evaluations: EvaluationStore,
    part: tuple[float, float],
    aside: bool,
) -> Pair:
    """Both on one data set; `part` is where this begins in the job's progress, and its share.

    Raises:
        Conflict: The data changes all the time.
    """
    from evaluation.job import run_evaluation  # draws plots

    theirs = mine.model_copy(update={"model_id": promoted.id, "trained_on": None})
    first, share = part
    middle = first + share / 2
    for _ in range(TRIES):
        dataset = _dataset(mine, job, registry.settings)
        rows = [
            evaluations.latest(asked.model_id, dataset.fingerprint, asked.split)
            or run_evaluation(asked, job, registry, moves, aside)
            for asked, moves in ((mine, (first, middle)), (theirs, (middle, first + share)))
        ]
        if rows[0].fingerprint == rows[1].fingerprint:
            return Pair(*rows)
    raise Conflict("The data set changes while it is evaluated.")


def _dataset(recipe: EvaluationRecipe, job: JobHandle, settings: Settings) -> Dataset:
    if recipe.dataset is not None:
        return check(Path(recipe.dataset), recipe.task, data_roots(settings), min_classes=1)
    path = drawn_set(recipe.task, settings, lambda *_: job.check())
    return check(path, recipe.task, (path.parent, path))
