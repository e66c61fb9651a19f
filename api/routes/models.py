"""`/models`: the model versions, and the active one."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from api import schemas
from api.dependencies import GatewayDep, evaluation_stores
from api.groups import MODELS
from api.job_control import notify_trainer
from api.middleware.auth import require_admin, require_train, require_use
from api.middleware.request_state import caller, changed
from api.requests import json_body
from api.schemas import errors
from engines.trial_submission import submit_trial
from inference.cpu.engine_choice import read_choice
from jobs.control import status_of
from models_store.decision_log import DecisionReason
from models_store.versions import ModelVersion
from serving.gateway import Gateway

router = APIRouter(tags=[MODELS], dependencies=[Depends(require_use)])


@router.get("/models", response_model=schemas.ModelList)
async def list_models(gateway: GatewayDep) -> Any:
    """Every model version."""
    return {"models": await _shown(gateway, *gateway.registry.list())}


@router.get("/models/active", response_model=schemas.CurrentModel, responses=errors(404))
async def active_model(gateway: GatewayDep) -> Any:
    """The model that answers requests without a model id."""
    [model] = await _shown(gateway, gateway.registry.active())
    return {"active_model": model}


@router.post(
    "/models/active",
    response_model=schemas.Activated,
    responses=errors(400, 403, 404),
    dependencies=[Depends(require_admin)],
    openapi_extra=schemas.json_request_body(schemas.ModelChoice),
)
async def activate_model(request: Request, gateway: GatewayDep) -> Any:
    """Set the active model.

    With a name, later promotions change the version; `name:version` is fixed. Requests in
    progress finish on the model that they started with.
    """
    choice = await json_body(request, schemas.ModelChoice)
    before = gateway.registry.active_pointer()
    model = await gateway.activate(choice.model_id, caller(request))
    changed(f"activated {choice.model_id} (before: {before or 'none'})", model.id)
    [shown] = await _shown(gateway, model)
    return {"message": f"'{model.id}' is active.", "active_model": shown}


@router.get("/models/{model_id}", response_model=schemas.ModelDetails, responses=errors(404))
async def get_model(model_id: str, gateway: GatewayDep) -> Any:
    """One version: `name:version`, or for a name its promoted version, or else its newest."""
    model = gateway.registry.get(model_id)
    [shown] = await _shown(gateway, model)
    choice = await asyncio.to_thread(read_choice, model.path, gateway.settings)
    return shown | {"engines": choice and choice.to_json()}


@router.post(
    "/models/{model_id}/engines",
    status_code=202,
    response_model=schemas.EnginesTried,
    responses=errors(403, 404, 409),
    dependencies=[Depends(require_train)],
)
async def try_engines(model_id: str, gateway: GatewayDep) -> Any:
    """Start a job that tries the model's engines on this machine's CPU and chooses the fastest.

    The job runs while no other job does, and measures while the machine is idle. The choice is in
    `GET /models/{model_id}`. A job that waits or runs for this model is the answer.
    """
    stores = evaluation_stores(gateway)
    job = await asyncio.to_thread(submit_trial, stores, model_id, {"model_id": model_id})
    notify_trainer(gateway, job)
    status = "running" if status_of(job) == "running" else "queued"
    return {"job_id": job.id, "model_id": job.base_model, "status": status}


@router.delete(
    "/models/{model_id}",
    status_code=204,
    responses=errors(403, 404, 409),
    dependencies=[Depends(require_admin)],
)
async def delete_model(request: Request, model_id: str, gateway: GatewayDep) -> Response:
    """Delete a version with its evaluations, unless it is active or a job uses it.

    A rollback to it is no longer possible.
    """
    model = gateway.registry.get(model_id)
    await gateway.delete(model_id, DecisionReason(caller(request)))
    changed("deleted the model", model.id)
    return Response(status_code=204)


async def _shown(gateway: Gateway, *models: ModelVersion) -> list[dict[str, Any]]:
    """The models in the form of responses, with the engines of loaded models."""
    engines = await gateway.engines()
    unloaded = {"engine": None, "letterbox": None}
    return [model.to_json() | engines.get(model.id, unloaded) for model in models]
