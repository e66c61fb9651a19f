"""From a new version to the traffic: both evaluated where that is missing, judged, recorded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from errors import Conflict, VisionLoopError
from models_store.decisions import Why
from models_store.registry import Registry
from models_store.versions import ModelVersion
from settings import Settings
from training.data_roots import data_roots
from training.dataset_store import DatasetStore
from training.datasets import Dataset, check
from training.evaluation_recipe import EvaluationRecipe
from training.evaluations import EvaluationRow, EvaluationStore
from training.gate import Gate, Verdict, decide, default_gate
from training.starter_sets import drawn_set

if TYPE_CHECKING:
    from training.recipe import Recipe
    from training.worker import JobHandle

GATE = "gate"  # mode of the jobs that decide
TRIES = 3  # where others promote, or change the data, while this is at work


class PromotionRecipe(BaseModel):
    """What a job does that evaluates what is missing and then decides.

    Attributes:
        model_id: The new version, `name:version`.
        gate: What is asked of it.
        evaluation: Of the new version; the promoted one is measured on the same.
        by: Who asked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_id: str
    gate: Gate
    evaluation: EvaluationRecipe
    by: str


@dataclass(frozen=True)
class Pair:
    """Two evaluations on the same images."""

    candidate: EvaluationRow
    promoted: EvaluationRow


@dataclass(frozen=True)
class Judged:
    """A verdict, and what it was found in.

    Attributes:
        verdict: Of the gate.
        pair: The evaluations; None where no version was promoted.
        over: The version that was promoted then; empty: none; None: whichever.
    """

    verdict: Verdict
    gate: Gate
    pair: Pair | None
    over: str | None

    def why(self, by: str, job_id: str | None = None, forced: bool = False) -> Why:
        """What is recorded of it."""
        pair, gate = self.pair, self.gate.model_dump()
        rows = {"candidate": pair.candidate.id, "promoted": pair.promoted.id} if pair else None
        return Why(by, self.verdict.reasons, gate, rows, forced, job_id)


def on_hand(
    candidate: ModelVersion,
    promoted: ModelVersion,
    gate: Gate,
    evaluations: EvaluationStore,
    dataset: Dataset | None = None,
) -> Pair | None:
    """The newest evaluations of both on one split, if there are such.

    Args:
        candidate, promoted: The two versions.
        gate: Names the split.
        evaluations: Where to look.
        dataset: What they must be of, as it is now; None: any that both were measured on.
    """
    split, fingerprint = gate.split or "val", dataset.fingerprint if dataset else None
    for row in evaluations.history(candidate.id):
        if row.split == split and fingerprint in (None, row.fingerprint):
            other = evaluations.latest(promoted.id, row.fingerprint, split)
            if other is not None:
                return Pair(row, other)
    return None


def judge(
    candidate: ModelVersion,
    promoted: ModelVersion | None,
    pair: Pair | None,
    gate: Gate,
    evaluations: EvaluationStore,
) -> Judged:
    """The gate's verdict on a new version; a pair is needed where another one is promoted.

    Raises:
        ValidationFailed: The gate's metric is none of this kind of model's.
        Conflict: A report is gone.
    """
    over = promoted.version if promoted else ""
    if promoted is not None and promoted.id == candidate.id:
        said = Verdict(True, (f"{candidate.id} is the promoted version already.",))
        return Judged(said, gate, None, over)
    if promoted is None or pair is None:
        return Judged(decide({"model": {"name": candidate.name}}, None, gate), gate, None, over)
    try:
        mine, theirs = evaluations.report(pair.candidate), evaluations.report(pair.promoted)
    except OSError as error:
        raise Conflict(f"The report of an evaluation of {candidate.name!r} is gone.") from error
    return Judged(decide(mine, theirs, gate), gate, pair, over)


def run(recipe: PromotionRecipe, job: JobHandle, registry: Registry) -> Verdict:
    """Evaluate what is missing, decide, promote or refuse. Returns the verdict.

    Raises:
        VisionLoopError: What evaluating raises; nothing is decided then.
        JobCancelled: A stop was asked for.
    """
    evaluations = EvaluationStore(registry.settings)
    try:
        for left in reversed(range(TRIES)):
            candidate = registry.candidate(recipe.model_id)
            promoted = registry.promoted(candidate.name)
            pair = None
            if promoted is not None and promoted.id != candidate.id:
                pair = _evaluated(recipe, promoted, job, registry, evaluations)
            judged = judge(candidate, promoted, pair, recipe.gate, evaluations)
            try:
                _carry_out(judged, candidate, recipe, job, registry)
            except Conflict as error:
                if not left:
                    raise
                job.log(f"{error.message} Comparing again.")
            else:
                return judged.verdict
    finally:
        evaluations.close()
    raise AssertionError("unreachable")


def after_training(
    version: ModelVersion, recipe: Recipe, job: JobHandle, registry: Registry
) -> None:
    """Promote what a training made, if it passes the gate of the settings.

    A decision that cannot be made is a refusal; the training has succeeded all the same.
    """
    gate = default_gate(registry.settings)
    evaluation = EvaluationRecipe(
        model_id=version.id, task=recipe.task, dataset=recipe.dataset, split=gate.split or "val"
    )
    by = "training"
    try:
        if gate.dataset:
            path = DatasetStore(registry.settings).resolve(gate.dataset)
            evaluation = evaluation.model_copy(update={"dataset": str(path)})
        run(
            PromotionRecipe(model_id=version.id, gate=gate, evaluation=evaluation, by=by),
            job,
            registry,
        )
    except VisionLoopError as error:
        reason = f"It could not be compared with the promoted version: {error.message}"
        job.log(f"{version.id} is not promoted. {reason}")
        registry.refuse(version.id, Why(by, (reason,), gate.model_dump(), job_id=job.id))


def _carry_out(
    judged: Judged,
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
    elif judged.over != candidate.version:
        registry.promote(candidate.id, why, judged.over)
    done = "is promoted" if judged.verdict.promote else "is refused"
    job.log(" ".join((f"{candidate.id} {done}.", *judged.verdict.reasons)))


def _evaluated(
    recipe: PromotionRecipe,
    promoted: ModelVersion,
    job: JobHandle,
    registry: Registry,
    evaluations: EvaluationStore,
) -> Pair:
    """Evaluations of both on what the data set holds now, made where they are missing.

    Raises:
        Conflict: It changes all the time.
    """
    from training.evaluating import run_evaluation  # draws plots

    mine = recipe.evaluation
    theirs = mine.model_copy(update={"model_id": promoted.id, "trained_on": None})
    for _ in range(TRIES):
        dataset = _dataset(mine, job, registry.settings)
        rows = [
            evaluations.latest(asked.model_id, dataset.fingerprint, asked.split)
            or run_evaluation(asked, job, registry, share)
            for asked, share in ((mine, (0.0, 0.5)), (theirs, (0.5, 1.0)))
        ]
        if rows[0].fingerprint == rows[1].fingerprint:
            return Pair(*rows)
    raise Conflict("The data set changes while it is evaluated.")


def _dataset(recipe: EvaluationRecipe, job: JobHandle, settings: Settings) -> Dataset:
    if recipe.dataset is not None:
        return check(Path(recipe.dataset), recipe.task, data_roots(settings), fewest=1)
    path = drawn_set(recipe.task, settings, lambda *_: job.check())
    return check(path, recipe.task, (path.parent, path))
