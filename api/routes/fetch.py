"""`/models/fetch`: pretrained weights, fetched by a job."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from api.dependencies import GatewayDep
from api.groups import MODELS
from api.job_control import notify_trainer
from api.middleware.auth import require_admin, require_use
from api.middleware.request_state import changed
from api.requests import as_sent, json_body
from api.schemas import RequestFields, errors, json_request_body
from jobs.model_fetch import submit_fetch

router = APIRouter(tags=[MODELS], dependencies=[Depends(require_use)])


class Fetch(RequestFields):
    """Which pretrained weights to fetch."""

    network: str = Field(
        min_length=1,
        max_length=100,
        description="a network such as yolo11n, yolov8s-seg or mobilenet, or a scale of yolov8 "
        "(n, s, m, l or x)",
        examples=["yolo11n"],
    )
    activate: bool = Field(False, description="true or false")


class FetchStarted(BaseModel):
    status: Literal["queued"]
    message: str
    job_id: str
    notes: list[str] = Field(description="what the job will do, in sentences")


@router.post(
    "/models/fetch",
    status_code=202,
    response_model=FetchStarted,
    responses=errors(400, 403),
    dependencies=[Depends(require_admin)],
    openapi_extra=json_request_body(Fetch),
)
async def fetch_model(request: Request, gateway: GatewayDep) -> Any:
    """Fetch the pretrained weights of a network as a job, for inference and for trainings.

    The model is named after the network and its data: `yolo11n-coco`, with 80 classes. If it is in
    the registry, nothing is fetched. 403: VISIONLOOP_ALLOW_DOWNLOAD is `never`.
    """
    body = await json_body(request, Fetch)
    sent = await as_sent(request, body)
    job = await asyncio.to_thread(
        submit_fetch, body.network, body.activate, gateway.registry, gateway.jobs, sent
    )
    changed(f"started to fetch {job.model_name}", job.id)
    notify_trainer(gateway, job)
    message = f"Fetching {job.base_model} as {job.model_name} is queued."
    return {"status": "queued", "message": message, "job_id": job.id, "notes": job.notes}
