"""`/models/{id}/promote` and `/models/{name}/rollback`: which version the name stands for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from api import schemas
from api.auth import require_admin
from api.errors import check
from api.evaluations import enqueue, plan
from api.exchange import ADMIN, caller, exchange
from api.gateway import Gateway, Wired
from api.jobs import json_body, json_schema
from api.schemas import RequestFields, errors
from errors import JobNotFound, ModelNotFound, ValidationFailed, VisionLoopError
from models_store.decisions import Why
from models_store.versions import ModelVersion
from settings import Settings
from training.data_roots import shown_name
from training.gate import Gate, Verdict, default_gate
from training.promotion import (
    GATE,
    Judged,
    Pair,
    PromotionRecipe,
    judge,
    old_data,
    on_hand,
)

router = APIRouter(tags=["Models"])


class Promote(RequestFields):
    """Without a gate that of the settings holds, if VISIONLOOP_GATE is on.

    Fields that a gate does not give are those of the settings.
    """

    gate: Gate | None = Field(None, description="an object with the gate's fields; {}: the default")
    force: bool = Field(False, description="true or false: promote whatever the gate says")


class PromotionAnswer(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    status: Literal["promoted", "refused"]
    promoted: bool
    forced: bool = Field(description="against the gate's verdict")
    model_id: str
    reasons: list[str]
    gate: Gate | None
    comparison: dict[str, Any] | None = Field(
        description="figures and classes of the promoted version (a) and this one (b)"
    )
    active_model: schemas.Model | None = Field(description="what answers requests naming none")


class Evaluating(BaseModel):
    status: Literal["evaluating"]
    promoted: Literal[False]
    message: str
    job_id: str


class RolledBack(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    message: str
    model: schemas.Model
    active_model: schemas.Model | None


class Decision(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    model_id: str
    previous: str | None = Field(description="the promoted version before the decision")
    action: Literal["promoted", "refused", "rolled_back", "deleted"]
    by: str
    reasons: list[str]
    forced: bool
    gate: dict[str, Any] | None
    evaluations: dict[str, Any] | None = Field(description="ids of those that were compared")
    job_id: str | None
    at: str


class DecisionList(BaseModel):
    decisions: list[Decision] = Field(description="the newest first")


@router.post(
    "/models/{model_id}/promote",
    response_model=PromotionAnswer,
    responses=errors(400, 403, 404, 409) | {202: {"model": Evaluating}},
    openapi_extra=json_schema(Promote),
    dependencies=[Depends(require_admin)],
)
async def promote(request: Request, model_id: str, gateway: Wired) -> Any:
    """Have requests that send the name answered by this version; a bare name means its newest.

    With a gate it is first held against the promoted version: at once where both were evaluated
    on the same images, otherwise by a job (202) that evaluates what is missing and decides.
    Requests under way finish on the version they began with.
    """
    empty = not (await request.body()).strip()
    wanted = check(Promote, {}) if empty else await json_body(request, Promote)
    candidate = await asyncio.to_thread(gateway.registry.candidate, model_id)
    gate = _gate(wanted, gateway.settings)
    answer = await decide_promotion(gateway, candidate, gate, caller(request), wanted.force)
    return JSONResponse(answer, 202) if isinstance(answer, dict) else answer.to_json(gateway)


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
            "active_model": _active(gateway),
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
        promoted = await gateway.promote(candidate, Why(by, forced=force))
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
        judged = Judged(Verdict(False, (f"It was not compared: {missing}",)), gate, (), None)
    forced = force and not judged.verdict.promote
    why = judged.why(by, forced=forced)
    if not (judged.verdict.promote or forced):
        await asyncio.to_thread(gateway.registry.refuse, candidate.id, why)
    elif judged.over != candidate.version:
        await gateway.promote(candidate, why, judged.over)
    return Outcome(candidate, judged.verdict, gate, forced)


@router.post(
    "/models/{name}/rollback",
    response_model=RolledBack,
    responses=errors(400, 403, 404, 409),
    dependencies=[Depends(require_admin)],
)
async def rollback(request: Request, name: str, gateway: Wired) -> Any:
    """Promote the version again that was promoted before; again leads further back.

    Only of a name: which version it leads to follows from the decisions. 409 where there is none,
    or it was deleted. Requests under way finish where they began.
    """
    if ":" in name:
        raise ValidationFailed(
            f"A rollback is of a name, not of a version: {name[:140]!r}. To go to a version, "
            f"promote it: POST /models/{name[:140]}/promote."
        )
    model = await gateway.rollback(name, Why(caller(request)))
    message = f"'{model.name}' is {model.id} again."
    return {"message": message, "model": model.to_json(), "active_model": _active(gateway)}


@router.get("/models/{name}/decisions", response_model=DecisionList, responses=errors(404))
async def list_decisions(request: Request, name: str, gateway: Wired) -> Any:
    """Who was promoted, refused and rolled back, by whom and why.

    Callers' addresses and paths of data sets are for the admin token.
    """
    rows = await asyncio.to_thread(gateway.registry.decisions, name)
    found = [row.to_json() for row in rows]
    if ADMIN not in exchange(request.scope).scopes:
        for row in found:
            row["by"] = row["by"].partition(",")[0]
            if (row["gate"] or {}).get("dataset"):
                name = shown_name(Path(row["gate"]["dataset"]), gateway.settings)
                row["gate"] = row["gate"] | {"dataset": name}
    return {"decisions": found}


def _gate(wanted: Promote, settings: Settings) -> Gate | None:
    """What is asked; fields that are not given are those of the settings."""
    if wanted.gate is None:
        return default_gate(settings) if settings.gate else None
    return default_gate(settings).model_copy(update=wanted.gate.model_dump(exclude_unset=True))


def _judge(gateway: Gateway, candidate: ModelVersion, gate: Gate) -> Judged | None:
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


def _active(gateway: Gateway) -> dict[str, Any] | None:
    try:
        return gateway.registry.active().to_json()
    except ModelNotFound:
        return None
