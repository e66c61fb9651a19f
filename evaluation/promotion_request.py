"""A requested promotion: decided at once where the evaluations exist, else queued as a job."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import JobNotFound, VisionLoopError
from evaluation.gate import Gate, GateDecision
from evaluation.promotion import (
    GATE,
    GateResult,
    Pair,
    PromotionRecipe,
    judge,
    old_data,
    stored_pairs,
)
from evaluation.submission import EvaluationStores, enqueue
from jobs.store import Job
from models_store.decision_log import DecisionReason
from models_store.versions import ModelVersion

# Promotes a version, given why and which version must be the promoted one; see Registry.promote.
Promote = Callable[[ModelVersion, DecisionReason, str | None], Awaitable[ModelVersion]]


@dataclass(frozen=True)
class PromotionRequest:
    """What is asked for.

    Attributes:
        candidate: The version to promote.
        gate: The conditions; None: it is promoted without any.
        by: Who asks, for the decision log.
        force: Promote whatever the gate says, also where it cannot be applied.
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
        decision: What the gate says of it.
        gate: The conditions that were applied; None: none.
        forced: It was promoted against the gate's verdict.
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


async def decide_promotion(
    request: PromotionRequest,
    stores: EvaluationStores,
    promote: Promote,
    enqueued: Callable[[Job], None],
) -> PromotionOutcome | Job:
    """Promote or refuse a version, or queue a job that evaluates what is missing and decides.

    Args:
        request: What is asked for.
        stores: Where the versions, their evaluations and the queue are.
        promote: Loads the version where it serves, then promotes it.
        enqueued: Told of a new job.

    Returns:
        The outcome; or the job that is going to decide, an active one for the same request
        included.

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
        judged = GateResult(
            GateDecision(False, (f"It was not compared: {missing}",)), gate, (), None
        )
    forced = request.force and not judged.decision.promote
    why = judged.why(request.by, forced=forced)
    if not (judged.decision.promote or forced):
        await asyncio.to_thread(stores.registry.refuse, candidate.id, why)
    elif judged.expected_promoted != candidate.version:
        await promote(candidate, why, judged.expected_promoted)
    return PromotionOutcome(candidate, judged.decision, gate, forced)


def judge_now(stores: EvaluationStores, candidate: ModelVersion, gate: Gate) -> GateResult | None:
    """The decision from the evaluations that exist; None where some are missing.

    Raises:
        VisionLoopError: The gate names data or a metric that it cannot be applied to.
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


def _old_dataset(stores: EvaluationStores, candidate: ModelVersion) -> str | None:
    """Path of the data that the candidate knew before its training, if it was given and exists.

    Where it is gone, the classes that only that data has count as not measured.
    """
    try:
        recipe = stores.jobs.get(str(candidate.source.get("job_id"))).recipe
    except JobNotFound:
        return None
    path = old_data(recipe)
    return path if path and Path(path).exists() else None


def _both_evaluated_on(stores: EvaluationStores, path: Path, *models: ModelVersion) -> bool:
    """Whether each was ever evaluated on this path.

    Then its images have been scanned and the scan is cached, so that opening the dataset is quick.
    """
    histories = [stores.evaluations.history(model.id) for model in models]
    return all(any(row.dataset_path == str(path) for row in rows) for rows in histories)


def _enqueue_once(
    request: PromotionRequest, gate: Gate, stores: EvaluationStores
) -> tuple[Job, bool]:
    """The job that evaluates what is missing and decides, and whether it is a new one."""
    candidate = request.candidate
    evaluation = stores.plan(candidate.id, gate.dataset, gate.split)
    known = None if gate.dataset else _old_dataset(stores, candidate)
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
