"""`/models/{id}/promote` and `/models/{name}/rollback`: which version the name stands for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from api import schemas
from api.auth import require_admin
from api.errors import check
from api.evaluations import enqueue, plan
from api.exchange import caller
from api.gateway import Gateway, Wired
from api.jobs import json_body, json_schema
from api.schemas import EmptyIsAbsent, errors
from errors import ModelNotFound
from models_store.decisions import Why
from models_store.versions import ModelVersion
from settings import Settings
from training.gate import Gate, Verdict, default_gate
from training.promotion import GATE, Judged, PromotionRecipe, judge, on_hand

router = APIRouter(tags=["Models"])


class Promote(EmptyIsAbsent):
    """Without a gate that of the settings holds, if VISIONLOOP_GATE is on.

    Fields that a gate does not give are those of the settings.
    """

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    gate: Gate | None = Field(None, description="an object with the gate's fields; {}: the default")
    force: bool = Field(False, description="true or false: promote whatever the gate says")


class Promoted(BaseModel):
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


class Decisions(BaseModel):
    decisions: list[Decision] = Field(description="the newest first")


@router.post(
    "/models/{model_id}/promote",
    response_model=Promoted,
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
    if gate is None:
        why = Why(caller(request), forced=wanted.force)
        promoted = await gateway.promote(candidate, why)
        return _answer(gateway, promoted, Verdict(True, ()), None)
    judged = await asyncio.to_thread(_judge, gateway, candidate, gate)
    if judged is None and not wanted.force:
        return await _evaluate(gateway, candidate, gate, caller(request))
    if judged is None:
        said = Verdict(False, ("It was not compared: evaluations are missing.",))
        judged = Judged(said, gate, None, None)
    forced = wanted.force and not judged.verdict.promote
    why = judged.why(caller(request), forced=forced)
    if not (judged.verdict.promote or forced):
        await asyncio.to_thread(gateway.registry.refuse, candidate.id, why)
    elif judged.over != candidate.version:
        await gateway.promote(candidate, why, judged.over)
    return _answer(gateway, candidate, judged.verdict, gate, forced)


@router.post(
    "/models/{name}/rollback",
    response_model=RolledBack,
    responses=errors(403, 404, 409),
    dependencies=[Depends(require_admin)],
)
async def rollback(request: Request, name: str, gateway: Wired) -> Any:
    """Promote the version again that was promoted before; again leads further back.

    409 where there is none, or it was deleted. Requests under way finish where they began.
    """
    model = await gateway.rollback(name, Why(caller(request)))
    message = f"'{model.name}' is {model.id} again."
    return {"message": message, "model": model.to_json(), "active_model": _active(gateway)}


@router.get("/models/{name}/decisions", response_model=Decisions, responses=errors(404))
async def list_decisions(name: str, gateway: Wired) -> Any:
    """Who was promoted, refused and rolled back, by whom and why."""
    rows = await asyncio.to_thread(gateway.registry.decisions, name)
    return {"decisions": [row.to_json() for row in rows]}


def _gate(wanted: Promote, settings: Settings) -> Gate | None:
    """What is asked; fields that are not given are those of the settings."""
    if wanted.gate is None:
        return default_gate(settings) if settings.gate else None
    return default_gate(settings).model_copy(update=wanted.gate.model_dump(exclude_unset=True))


def _judge(gateway: Gateway, candidate: ModelVersion, gate: Gate) -> Judged | None:
    """The verdict on what was evaluated; None where something is missing for it."""
    promoted = gateway.registry.promoted(candidate.name)
    pair = None
    if promoted is not None and promoted.id != candidate.id:
        dataset = None
        if gate.dataset:
            path = gateway.datasets.resolve(gate.dataset)
            if not _measured_on(gateway, path, candidate, promoted):
                return None
            dataset = gateway.datasets.open(gate.dataset, candidate.description.task)
        pair = on_hand(candidate, promoted, gate, gateway.evaluations, dataset)
        if pair is None:
            return None
    return judge(candidate, promoted, pair, gate, gateway.evaluations)


def _measured_on(gateway: Gateway, path: Path, *models: ModelVersion) -> bool:
    """Whether both ever were; then its pictures were looked at, and that is remembered."""
    histories = [gateway.evaluations.history(model.id) for model in models]
    return all(any(row.dataset_path == str(path) for row in rows) for rows in histories)


async def _evaluate(gateway: Gateway, candidate: ModelVersion, gate: Gate, by: str) -> JSONResponse:
    """Have a job evaluate what is missing and decide."""
    evaluation = await asyncio.to_thread(plan, gateway, candidate.id, gate.dataset, gate.split)
    recipe = PromotionRecipe(model_id=candidate.id, gate=gate, evaluation=evaluation, by=by)
    sent = {"gate": gate.model_dump()}
    job = await enqueue(gateway, evaluation, sent, recipe.model_dump(mode="json"), GATE)
    message = f"What is missing is evaluated, then it is decided: GET /jobs/{job.id}."
    answer = {"status": "evaluating", "promoted": False, "message": message, "job_id": job.id}
    return JSONResponse(answer, 202)


def _answer(
    gateway: Gateway,
    model: ModelVersion,
    verdict: Verdict,
    gate: Gate | None,
    forced: bool = False,
) -> dict[str, Any]:
    promoted = verdict.promote or forced
    return {
        "status": "promoted" if promoted else "refused",
        "promoted": promoted,
        "forced": forced,
        "model_id": model.id,
        "reasons": list(verdict.reasons),
        "gate": gate,
        "comparison": verdict.comparison,
        "active_model": _active(gateway),
    }


def _active(gateway: Gateway) -> dict[str, Any] | None:
    try:
        return gateway.registry.active().to_json()
    except ModelNotFound:
        return None
