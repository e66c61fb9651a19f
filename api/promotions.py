"""A promotion is decided: the gate, and the evaluations that it needs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.evaluation_jobs import enqueue, plan
from errors import JobNotFound, ModelNotFound, VisionLoopError
from evaluation.gate import Gate, Verdict
from evaluation.promotion import GATE, GateResult, Pair, PromotionRecipe, judge, old_data, on_hand
from models_store.decision_log import DecisionReason
from models_store.versions import ModelVersion
from serving.gateway import Gateway


@dataclass(frozen=True)
class Outcome:
    """What became of a promotion."""

    model: ModelVersion
    verdict: Verdict
    gate: Gate | None
    forced: bool = False

    def to_json(self, gateway: Gateway) -> dict[str, Any]:
        promoted = self.verdict.promote or self.forced
        return {
            "status": "promoted" if promoted else "refused",
            "promoted": promoted,
            "forced": self.forced,
            "model_id": self.model.id,
            "reasons": list(self.verdict.reasons),
            "gate": self.gate,
            "comparison": self.verdict.comparison,
            "active_model": active_model(gateway),
        }


async def decide_promotion(
    gateway: Gateway, candidate: ModelVersion, gate: Gate | None, by: str, force: bool = False
) -> Outcome | dict[str, Any]:
    """Promote, or refuse, or have a job evaluate what is missing for that: its answer then.

    Forced is what the gate refuses, and also what it cannot judge, whatever the reason.

    Raises:
        VisionLoopError: What the gate asks for cannot be had.
    """
    if gate is None:
        promoted = await gateway.promote(candidate, DecisionReason(by, forced=force))
        return Outcome(promoted, Verdict(True, ()), None)
    try:
        judged = await asyncio.to_thread(_judge, gateway, candidate, gate)
        if judged is None and not force:
            return await _evaluate(gateway, candidate, gate, by)
        missing = "evaluations are missing."
    except VisionLoopError as error:
        if not force:
            raise
        judged, missing = None, error.message
    if judged is None:
        judged = GateResult(Verdict(False, (f"It was not compared: {missing}",)), gate, (), None)
    forced = force and not judged.verdict.promote
    why = judged.why(by, forced=forced)
    if not (judged.verdict.promote or forced):
        await asyncio.to_thread(gateway.registry.refuse, candidate.id, why)
    elif judged.expected_promoted != candidate.version:
        await gateway.promote(candidate, why, judged.expected_promoted)
    return Outcome(candidate, judged.verdict, gate, forced)


def _judge(gateway: Gateway, candidate: ModelVersion, gate: Gate) -> GateResult | None:
    """The verdict on what was evaluated; None where something is missing for it."""
    promoted = gateway.registry.promoted(candidate.name)
    pairs: tuple[Pair, ...] | None = ()
    if promoted is not None and promoted.id != candidate.id:
        dataset = old = None
        if gate.dataset:
            path = gateway.datasets.resolve(gate.dataset)
            if not _measured_on(gateway, path, candidate, promoted):
                return None
            dataset = gateway.datasets.open(gate.dataset, candidate.description.task)
        else:
            old = _old_data(gateway, candidate)
        pairs = on_hand(candidate, promoted, gate, gateway.evaluations, dataset, old)
    return None if pairs is None else judge(candidate, promoted, pairs, gate, gateway.evaluations)


def _old_data(gateway: Gateway, candidate: ModelVersion) -> str | None:
    """What it knew before it went on learning, if that was said, and is there still.

    Where it is gone, the classes that only it has count as not measured.
    """
    try:
        recipe = gateway.jobs.get(str(candidate.source.get("job_id"))).recipe
    except JobNotFound:
        return None
    path = old_data(recipe)
    return path if path and Path(path).exists() else None


def _measured_on(gateway: Gateway, path: Path, *models: ModelVersion) -> bool:
    """Whether both ever were; then its pictures were looked at, and that is remembered."""
    histories = [gateway.evaluations.history(model.id) for model in models]
    return all(any(row.dataset_path == str(path) for row in rows) for rows in histories)


async def _evaluate(
    gateway: Gateway, candidate: ModelVersion, gate: Gate, by: str
) -> dict[str, Any]:
    """Have a job evaluate what is missing and decide; one that does that already will do."""
    evaluation = await asyncio.to_thread(plan, gateway, candidate.id, gate.dataset, gate.split)
    known = None if gate.dataset else await asyncio.to_thread(_old_data, gateway, candidate)
    old = evaluation.model_copy(update={"dataset": known, "split": "val", "trained_on": None})
    recipe = PromotionRecipe(
        model_id=candidate.id,
        gate=gate,
        evaluation=evaluation,
        by=by,
        old=old if known else None,
    ).model_dump(mode="json")
    active = await asyncio.to_thread(gateway.jobs.list, "evaluation", "queued", "running")
    same = (job.id for job in active if job.mode == GATE and job.recipe | {"by": by} == recipe)
    job_id = next(same, None)
    if job_id is None:
        sent = {"gate": gate.model_dump()}
        job_id = (await enqueue(gateway, evaluation, sent, recipe, GATE)).id
    message = f"What is missing is evaluated, then it is decided: GET /jobs/{job_id}."
    return {"status": "evaluating", "promoted": False, "message": message, "job_id": job_id}


def active_model(gateway: Gateway) -> dict[str, Any] | None:
    try:
        return gateway.registry.active().to_json()
    except ModelNotFound:
        return None
