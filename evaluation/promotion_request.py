"""Promotion requests: decided at once if all evaluations exist, else queued as a job."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import JobNotFound, VisionLoopError
from evaluation.gate import Gate, GateDecision
from evaluation.lookup import dataset_reference
from evaluation.promotion import (
    GATE,
    GateResult,
    Pair,
    PromotionRecipe,
    evaluated_on,
    judge,
    old_data,
    stored_pairs,
)
from evaluation.recipe import EvaluationRecipe
from evaluation.submission import EvaluationStores, enqueue
from jobs.job import Job
from models_store.decision_log import DecisionReason
from models_store.versions import ModelVersion

# Promotes a version. Further arguments: the reason to record, and the version that must be promoted
# at the moment (empty: none, None: not checked). See Registry.promote.
Promote = Callable[[ModelVersion, DecisionReason, str | None], Awaitable[ModelVersion]]


@dataclass(frozen=True)
class PromotionRequest:
    """A request to promote a version.

    Attributes:
        candidate: The version to promote.
        gate: The conditions; None: promote without conditions.
        by: Who requests the promotion, for the decision log.
        force: Promote even if the gate refuses or cannot be applied.
    """

    candidate: ModelVersion
    gate: Gate | None
    by: str
    force: bool = False


@dataclass(frozen=True)
class PromotionOutcome:
    """A decided promotion.

    Attributes:
        model: The candidate.
        decision: The gate's decision.
        gate: The conditions that were applied; None: no conditions.
        forced: It was promoted although the gate did not pass it.
    """

    model: ModelVersion
    decision: GateDecision
    gate: Gate | None
    forced: bool = False

    @property
    def promoted(self) -> bool:
        return self.decision.promote or self.forced

    def to_json(self) -> dict[str, Any]:
        return {
            "status": "promoted" if self.promoted else "refused",
            "promoted": self.promoted,
            "forced": self.forced,
            "model_id": self.model.id,
            "reasons": list(self.decision.reasons),
            "gate": self.gate,
            "comparison": self.decision.comparison,
        }


@dataclass(frozen=True)
class PromotionPreview:
    """What a request to promote would do now.

    Attributes:
        model: The candidate.
        promoted: Id of the version that is promoted; None: there is none.
        would_promote: None: evaluations are missing, which a job would make and then decide.
        decision: The gate's decision, or the reason that there is none.
        gate: The conditions; None: no conditions.
        forced: The version would be promoted although the gate does not pass it.
    """

    model: ModelVersion
    promoted: str | None
    would_promote: bool | None
    decision: GateDecision
    gate: Gate | None
    forced: bool = False

    @property
    def replaces(self) -> str | None:
        """Id of the version that would be replaced; None: none would be."""
        stays = self.would_promote is False or self.promoted == self.model.id
        return None if stays else self.promoted

    def to_json(self) -> dict[str, Any]:
        return {
            "status": "preview",
            "would_promote": self.would_promote,
            "forced": self.forced,
            "model_id": self.model.id,
            "promoted_now": self.promoted,
            "replaces": self.replaces,
            "reasons": list(self.decision.reasons),
            "regressed": [one.to_json() for one in self.decision.regressed],
            "gate": self.gate,
            "comparison": self.decision.comparison,
        }


def preview_promotion(request: PromotionRequest, stores: EvaluationStores) -> PromotionPreview:
    """What `decide_promotion` would do; nothing is changed, recorded or queued.

    Raises:
        VisionLoopError: The gate cannot be applied, and `force` is not set.
    """
    candidate, gate = request.candidate, request.gate
    promoted = stores.registry.promoted(candidate.name)
    now = None if promoted is None else promoted.id
    if gate is None:
        told = GateDecision(True, ("No gate applies: nothing is compared.",))
        return PromotionPreview(candidate, now, True, told, None)
    try:
        judged = judge_now(stores, candidate, gate)
        if judged is None and not request.force:
            known = None if gate.dataset else _old_dataset(stores, candidate)
            planned = _planned(stores, candidate, gate, known)  # what the job could not do is told
            told = GateDecision(
                False,
                (
                    f"{candidate.id} and {now} were not both evaluated on the {planned.split} "
                    "split yet. A job would evaluate what is missing, and then decide.",
                ),
            )
            return PromotionPreview(candidate, now, None, told, gate)
        missing = "evaluations are missing."
    except VisionLoopError as error:
        if not request.force:
            raise
        judged, missing = None, error.message
    decision = _not_compared(missing) if judged is None else judged.decision
    forced = request.force and not decision.promote
    return PromotionPreview(candidate, now, decision.promote or forced, decision, gate, forced)


def _not_compared(why: str) -> GateDecision:
    return GateDecision(False, (f"It was not compared with the promoted version: {why}",))


async def decide_promotion(
    request: PromotionRequest,
    stores: EvaluationStores,
    promote: Promote,
    enqueued: Callable[[Job], None],
) -> PromotionOutcome | Job:
    """Promote or refuse a version, or queue a job that makes missing evaluations and decides.

    Args:
        request: The version, the conditions and who requests it.
        stores: The stores of versions, evaluations and jobs.
        promote: Loads the version into the runner, then promotes it.
        enqueued: Called with a newly queued job.

    Returns:
        The outcome, or the job that is going to decide. If a job for the same request is active
        already, that one is returned.

    Raises:
        VisionLoopError: The gate cannot be applied, and `force` is not set.
    """
    candidate, gate = request.candidate, request.gate
    if gate is None:
        why = DecisionReason(request.by, forced=request.force)
        promoted = await promote(candidate, why, None)
        return PromotionOutcome(promoted, GateDecision(True, ()), None)
    try:
        judged = await asyncio.to_thread(judge_now, stores, candidate, gate)
        if judged is None and not request.force:
            job, is_new = await asyncio.to_thread(_enqueue_once, request, gate, stores)
            if is_new:
                enqueued(job)
            return job
        missing = "evaluations are missing."
    except VisionLoopError as error:
        if not request.force:
            raise
        judged, missing = None, error.message
    if judged is None:
        judged = GateResult(_not_compared(missing), gate, (), None)
    forced = request.force and not judged.decision.promote
    why = judged.why(request.by, forced=forced)
    if not (judged.decision.promote or forced):
        await asyncio.to_thread(stores.registry.refuse, candidate.id, why)
    elif judged.expected_promoted != candidate.version:
        await promote(candidate, why, judged.expected_promoted)
    return PromotionOutcome(candidate, judged.decision, gate, forced)


def judge_now(stores: EvaluationStores, candidate: ModelVersion, gate: Gate) -> GateResult | None:
    """The decision from the existing evaluations; None if some are missing.

    Raises:
        VisionLoopError: The gate names a dataset or a metric that cannot be used for this model.
    """
    promoted = stores.registry.promoted(candidate.name)
    pairs: tuple[Pair, ...] | None = ()
    if promoted is not None and promoted.id != candidate.id:
        dataset = old = None
        if gate.dataset:
            path = stores.datasets.resolve(gate.dataset)
            if not _both_evaluated_on(stores, path, candidate, promoted):
                return None
            dataset = stores.datasets.open(gate.dataset, candidate.description.task)
        else:
            old = _old_dataset(stores, candidate)
        pairs = stored_pairs(candidate, promoted, gate, stores.evaluations, dataset, old)
    return None if pairs is None else judge(candidate, promoted, pairs, gate, stores.evaluations)


def _planned(
    stores: EvaluationStores, candidate: ModelVersion, gate: Gate, old: str | None
) -> EvaluationRecipe:
    """The evaluation of the new version for a gate.

    On the gate's dataset; else on the one that both versions were evaluated on with a letterbox
    that no longer serves; else on the new version's training data.

    Raises:
        VisionLoopError: As `plan_evaluation`.
    """
    promoted = stores.registry.promoted(candidate.name)
    if not gate.dataset and promoted is not None:
        row = evaluated_on(candidate, promoted, gate, stores.evaluations, old)
        if row is not None:
            with contextlib.suppress(VisionLoopError):  # the dataset was deleted since
                return stores.plan(candidate.id, dataset_reference(stores, row), row.split)
    return stores.plan(candidate.id, gate.dataset, gate.split)


def _old_dataset(stores: EvaluationStores, candidate: ModelVersion) -> str | None:
    """Path of the old data (learned before the candidate's training), if given and existing.

    If it no longer exists, the classes that only the old data has count as not measured.
    """
    try:
        recipe = stores.jobs.get(str(candidate.source.get("job_id"))).recipe
    except JobNotFound:
        return None
    path = old_data(recipe)
    return path if path and Path(path).exists() else None


def _both_evaluated_on(stores: EvaluationStores, path: Path, *models: ModelVersion) -> bool:
    """Whether each of the models has been evaluated on the dataset at this path.

    If so, its images have been scanned and the scan is cached, so opening the dataset is quick.
    """
    histories = [stores.evaluations.history(model.id) for model in models]
    return all(any(row.dataset_path == str(path) for row in rows) for rows in histories)


def _enqueue_once(
    request: PromotionRequest, gate: Gate, stores: EvaluationStores
) -> tuple[Job, bool]:
    """The job that makes the missing evaluations and decides, and whether it is newly queued."""
    candidate = request.candidate
    known = None if gate.dataset else _old_dataset(stores, candidate)
    evaluation = _planned(stores, candidate, gate, known)
    old = evaluation.model_copy(update={"dataset": known, "split": "val", "trained_on": None})
    recipe = PromotionRecipe(
        model_id=candidate.id,
        gate=gate,
        evaluation=evaluation,
        by=request.by,
        old=old if known else None,
    ).model_dump(mode="json")
    for job in stores.jobs.list("evaluation", "queued", "running"):
        if job.mode == GATE and job.recipe | {"by": request.by} == recipe:
            return job, False
    return enqueue(stores.jobs, evaluation, {"gate": gate.model_dump()}, recipe, GATE), True
