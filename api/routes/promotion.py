"""`/models/{id}/promote`, `/models/{name}/rollback` and the decision log of a model name."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from access.scopes import ADMIN
from api import schemas
from api.dependencies import GatewayDep, evaluation_stores
from api.groups import MODELS
from api.job_control import notify_trainer
from api.middleware.auth import allows, require_admin, require_use
from api.middleware.errors import check
from api.middleware.request_state import caller, changed, unchanged
from api.requests import json_body
from api.schemas import RequestFields, errors, json_request_body
from dataset.allowed_roots import shown_name
from errors import Conflict, ModelNotFound, ValidationFailed
from evaluation.gate import Gate, default_gate
from evaluation.promotion_request import (
    PromotionOutcome,
    PromotionPreview,
    PromotionRequest,
    decide_promotion,
    preview_promotion,
)
from jobs.job import Job
from models_store.decision_log import Decision as LoggedDecision
from models_store.decision_log import DecisionReason
from models_store.registry import Registry
from serving.gateway import Gateway
from settings import Settings

router = APIRouter(tags=[MODELS], dependencies=[Depends(require_use)])


class Promote(RequestFields):
    """The gate to apply; without one the settings' gate, if VISIONLOOP_GATE is on.

    Fields that are missing in a gate are taken from the settings.
    """

    gate: Gate | None = Field(
        None, description="an object with the gate's fields; {}: the default gate"
    )
    force: bool = Field(
        False, description="true or false: whether to promote even if the gate rejects it"
    )
    dry_run: bool = Field(
        False,
        description="true or false: whether to say only what the promotion would do; nothing is "
        "changed, recorded or queued",
    )


class PromotionAnswer(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    message: str = Field(description="what the name means now, in a sentence")
    status: Literal["promoted", "refused"]
    promoted: bool
    forced: bool = Field(
        description="whether the version was promoted although the gate rejected it"
    )
    model_id: str
    previous: str | None = Field(
        description="id of the version that was promoted before this call; null: none was"
    )
    reasons: list[str]
    gate: Gate | None
    comparison: dict[str, Any] | None = Field(
        description="metrics and classes of the promoted version (a) and this one (b)"
    )
    active_model: schemas.Model | None = Field(
        description="the model that answers requests without a model id"
    )


class RegressedClass(BaseModel):
    """A class that regressed by more than the gate allows."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    class_name: str = Field(alias="class", description="the class's name")
    metric: str = Field(description="the metric by which it is judged")
    old: float = Field(description="the promoted version's value, from 0 to 1")
    new: float = Field(description="this version's value, from 0 to 1; 0: it lacks the class")
    instances: int = Field(description="objects of the class in the split; or its images")


class PromotionPreviewed(BaseModel):
    """What a promotion would do: the answer to `dry_run`."""

    model_config = ConfigDict(protected_namespaces=())

    message: str = Field(description="what would happen, in a sentence")
    status: Literal["preview"]
    would_promote: bool | None = Field(
        description="the verdict; null: evaluations are missing, which a job would make before it "
        "decides"
    )
    forced: bool = Field(description="whether `force` would override the gate")
    model_id: str
    promoted_now: str | None = Field(
        description="id of the version that is promoted now; null: none is"
    )
    replaces: str | None = Field(
        description="id of the version that this one would replace; null: none"
    )
    reasons: list[str]
    regressed: list[RegressedClass] = Field(
        description="the classes that regressed by more than the gate allows, worst first"
    )
    gate: Gate | None
    comparison: dict[str, Any] | None = Field(
        description="metrics and classes of the promoted version (a) and this one (b)"
    )


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
    regressed: list[str] = Field(
        description="the classes that regressed by more than the gate allows, the worst first"
    )
    forced: bool
    gate: dict[str, Any] | None
    evaluations: dict[str, Any] | None = Field(description="ids of the compared evaluations")
    job_id: str | None
    at: str


class DecisionList(BaseModel):
    decisions: list[Decision] = Field(description="the decisions, the newest first")
    rolls_back_to: str | None = Field(
        description="id of the version that a rollback would promote; null: there is none"
    )


@router.post(
    "/models/{model_id}/promote",
    response_model=PromotionAnswer | PromotionPreviewed,
    responses=errors(400, 403, 404, 409) | {202: {"model": Evaluating}},
    openapi_extra=json_request_body(Promote, required=False),
    dependencies=[Depends(require_admin)],
)
async def promote(request: Request, model_id: str, gateway: GatewayDep) -> Any:
    """Make this the version that the bare name means. With a bare name, promote its newest version.

    With a gate it is first compared with the promoted version: at once where both were evaluated
    on the same images, else by a job (202) that evaluates what is missing and decides. Requests
    in progress finish on the version they started with. With `dry_run` nothing is done: the answer
    is the verdict of the gate, with its reasons.
    """
    empty = not (await request.body()).strip()
    wanted = check(Promote, {}) if empty else await json_body(request, Promote)
    candidate = await asyncio.to_thread(gateway.registry.candidate, model_id)
    gate = _gate(wanted, gateway.settings)
    asked = PromotionRequest(candidate, gate, caller(request), wanted.force)
    if wanted.dry_run:
        unchanged()
        seen = await asyncio.to_thread(preview_promotion, asked, evaluation_stores(gateway))
        return {"message": _preview(seen)} | seen.to_json()
    previous = await asyncio.to_thread(gateway.registry.promoted, candidate.name)
    found = await decide_promotion(
        asked,
        evaluation_stores(gateway),
        gateway.promote,
        partial(notify_trainer, gateway),
    )
    if isinstance(found, Job):
        message = (
            "Some evaluations are missing. A job makes them and then decides: GET "
            f"/jobs/{found.id}."
        )
        started = {"status": "evaluating", "promoted": False, "message": message}
        changed(f"asked to promote it; job {found.id} decides", candidate.id)
        return JSONResponse(started | {"job_id": found.id}, 202)
    before = None if previous is None else previous.id
    verb = "promoted" if found.promoted else "the gate did not promote"
    changed(f"{verb} {before or 'none'} → {candidate.id}", candidate.id)
    told = {"message": _outcome(found, before)} | found.to_json() | {"previous": before}
    return told | {"active_model": _active_model(gateway)}


def _preview(seen: PromotionPreview) -> str:
    name, model = seen.model.name, seen.model.id
    if seen.would_promote is None:
        return f"A job would evaluate {model} and {seen.promoted}, and then decide."
    if not seen.would_promote:
        now = f"would still mean {seen.promoted}" if seen.promoted else "would stay unpromoted"
        return f"{model} would not be promoted: '{name}' {now}."
    if seen.promoted == model:
        return f"'{name}' means {model} already."
    was = f"replacing {seen.promoted}" if seen.promoted else "its first promoted version"
    return f"'{name}' would mean {model}, {was}."


def _outcome(found: PromotionOutcome, before: str | None) -> str:
    model = found.model
    if not found.promoted:
        now = f"still means {before}" if before else "has no promoted version"
        return f"{model.id} is not promoted: '{model.name}' {now}."
    if before == model.id:
        return f"'{model.name}' means {model.id}, as before."
    was = f"before, it meant {before}" if before else "it is the first promoted version"
    return f"'{model.name}' means {model.id} now; {was}."


@router.post(
    "/models/{name}/rollback",
    response_model=RolledBack,
    responses=errors(400, 403, 404, 409),
    dependencies=[Depends(require_admin)],
)
async def rollback(request: Request, name: str, gateway: GatewayDep) -> Any:
    """Promote the previously promoted version again; a second rollback goes one further back.

    Send the name only: the version follows from the decisions. 409 if there is none, or if it
    was deleted. Requests in progress finish on the version that they started with.
    """
    if ":" in name:
        raise ValidationFailed(
            f"A rollback needs a model's name without a version; got {name[:140]!r}. To choose a "
            f"version, promote it: POST /models/{name[:140]}/promote."
        )
    before = gateway.registry.promoted(name)
    model = await gateway.rollback(name, DecisionReason(caller(request)))
    changed(f"rolled back {before.id if before else 'none'} → {model.id}", model.id)
    message = f"'{model.name}' means {model.id} again."
    return {"message": message, "model": model.to_json(), "active_model": _active_model(gateway)}


@router.get("/models/{name}/decisions", response_model=DecisionList, responses=errors(404))
async def list_decisions(request: Request, name: str, gateway: GatewayDep) -> Any:
    """The decisions on a name: promotions, rejections and rollbacks, with who made them and why.

    Addresses of callers and paths of datasets are shown only with the admin token.
    """
    rows, back = await asyncio.to_thread(_decided, gateway.registry, name)
    found = [row.to_json() for row in rows]
    if not allows(request, ADMIN):
        for row in found:
            row["by"] = row["by"].partition(",")[0]
            if (row["gate"] or {}).get("dataset"):
                name = shown_name(Path(row["gate"]["dataset"]), gateway.settings)
                row["gate"] = row["gate"] | {"dataset": name}
    return {"decisions": found, "rolls_back_to": back}


def _decided(registry: Registry, name: str) -> tuple[Sequence[LoggedDecision], str | None]:
    """The decisions on a name, and the version that a rollback would promote."""
    rows = registry.decisions(name)
    try:
        return rows, registry.previous(name).id
    except Conflict:
        return rows, None


def _active_model(gateway: Gateway) -> dict[str, Any] | None:
    """The active model in the form of responses; None if there is none."""
    try:
        return gateway.registry.active().to_json()
    except ModelNotFound:
        return None


def _gate(wanted: Promote, settings: Settings) -> Gate | None:
    """The gate to apply, with missing fields from the settings; None: no gate."""
    if wanted.gate is None:
        return default_gate(settings) if settings.gate else None
    return default_gate(settings).model_copy(update=wanted.gate.model_dump(exclude_unset=True))
