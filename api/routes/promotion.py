"""`/models/{id}/promote` and `/models/{name}/rollback`: which version the name stands for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from api import schemas
from api.dependencies import GatewayDep
from api.middleware.auth import require_admin
from api.middleware.errors import check
from api.middleware.request_state import ADMIN, caller, exchange
from api.promotions import active_model, decide_promotion
from api.requests import json_body, json_schema
from api.schemas import RequestFields, errors
from dataset.allowed_roots import shown_name
from errors import ValidationFailed
from evaluation.gate import Gate, default_gate
from models_store.decision_log import DecisionReason
from settings import Settings

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
async def promote(request: Request, model_id: str, gateway: GatewayDep) -> Any:
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


@router.post(
    "/models/{name}/rollback",
    response_model=RolledBack,
    responses=errors(400, 403, 404, 409),
    dependencies=[Depends(require_admin)],
)
async def rollback(request: Request, name: str, gateway: GatewayDep) -> Any:
    """Promote the version again that was promoted before; again leads further back.

    Only of a name: which version it leads to follows from the decisions. 409 where there is none,
    or it was deleted. Requests under way finish where they began.
    """
    if ":" in name:
        raise ValidationFailed(
            f"A rollback is of a name, not of a version: {name[:140]!r}. To go to a version, "
            f"promote it: POST /models/{name[:140]}/promote."
        )
    model = await gateway.rollback(name, DecisionReason(caller(request)))
    message = f"'{model.name}' is {model.id} again."
    return {"message": message, "model": model.to_json(), "active_model": active_model(gateway)}


@router.get("/models/{name}/decisions", response_model=DecisionList, responses=errors(404))
async def list_decisions(request: Request, name: str, gateway: GatewayDep) -> Any:
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
