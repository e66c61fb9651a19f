"""`/models/import`: import of uploaded weights as a model version."""

from __future__ import annotations

import asyncio
import shutil
import time
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.datastructures import FormData, UploadFile

from api import schemas
from api.dependencies import GatewayDep, evaluation_stores
from api.groups import MODELS
from api.job_control import notify_trainer
from api.middleware.auth import require_admin, require_use
from api.middleware.errors import check
from api.middleware.request_state import caller, changed
from api.requests import UPLOAD_IN_MEMORY, fields, read_form
from api.schemas import ImportForm, ImportOptions, errors, form_body
from errors import BackendTimeout, BackendUnavailable, ValidationFailed, VisionLoopError
from evaluation.gate import default_gate
from evaluation.promotion_request import PromotionRequest, decide_promotion
from files import temporary_folder
from models_store.archive import import_archive
from models_store.decision_log import DecisionReason
from models_store.foreign.importer import Conversion, import_model
from models_store.names import suggest_name
from models_store.versions import ModelVersion
from serving.gateway import Gateway
from serving.gateways.one_process import OneAtATime

router = APIRouter(tags=[MODELS], dependencies=[Depends(require_use)])

SUFFIXES = (".pt", ".pth", ".zip")
MARGIN = 10.0  # seconds by which the conversion's timeout is shorter than the request's

_one_at_a_time = OneAtATime(
    "import"
)  # held during a conversion, which may take gigabytes of memory


@router.post(
    "/models/import",
    status_code=201,
    response_model=schemas.Model,
    responses=errors(400, 403, 413, 503),
    dependencies=[Depends(require_admin)],
    openapi_extra=form_body(ImportForm),
)
async def import_weights(request: Request, gateway: GatewayDep) -> Any:
    """Import a `.pt` checkpoint (YOLO, MobileNetV2), or an archive of another server.

    Code in the file is never run: a file with anything but plain data is rejected. `promote`
    works as in `/promote`: if VISIONLOOP_GATE is on, a job may promote the model later, or
    reject it. The response says in `promoted` what happened.
    """
    deadline = time.monotonic() + gateway.settings.import_timeout - MARGIN
    form = await read_form(request, UPLOAD_IN_MEMORY)
    if not await _one_at_a_time.try_acquire():
        await form.close()
        raise BackendUnavailable("Another model is being imported. Try again later.", 30)
    work = asyncio.create_task(_import_alone(gateway, form, deadline, caller(request)))
    model = await asyncio.shield(work)  # the thread continues if the request ends
    changed("imported and promoted it" if model.promoted else "imported it", model.id)
    return model.to_json()


async def _import_alone(gateway: Gateway, form: FormData, deadline: float, by: str) -> ModelVersion:
    """Import a model. The caller holds the lock; it is released here after the thread has ended."""
    try:
        upload = form.get("file")
        options = check(ImportOptions, fields(form, "file"))
        if not isinstance(upload, UploadFile):
            raise ValidationFailed(
                "'file' is required: send the weights as a file in this form field."
            )
        suffix = PurePath(upload.filename or "").suffix.lower()
        if suffix not in SUFFIXES:
            raise ValidationFailed(
                f"'file' must be named {' or '.join(SUFFIXES)}; got {suffix!r:.20}."
            )
        model = await asyncio.to_thread(_import, gateway, upload, suffix, options, deadline)
        if options.promote:
            await _promote(gateway, model, by)
            model = gateway.registry.get(model.id)
        return model
    finally:
        _one_at_a_time.release()
        await form.close()


async def _promote(gateway: Gateway, model: ModelVersion, by: str) -> None:
    """Promote the model as `/promote` does; if that is refused, the import still succeeds."""
    gate = default_gate(gateway.settings) if gateway.settings.gate else None
    try:
        await decide_promotion(
            PromotionRequest(model, gate, by),
            evaluation_stores(gateway),
            gateway.promote,
            partial(notify_trainer, gateway),
        )
    except VisionLoopError as error:
        asked = gate.model_dump() if gate else None
        why = DecisionReason(
            by, (f"It was not compared with the promoted version: {error.message}",), asked
        )
        await asyncio.to_thread(gateway.registry.refuse, model.id, why)


def _import(
    gateway: Gateway, upload: UploadFile, suffix: str, options: ImportOptions, deadline: float
) -> ModelVersion:
    registry = gateway.registry
    stem = suggest_name(PurePath(upload.filename or "").stem)
    with temporary_folder(gateway.settings.paths.scratch) as folder:
        path = Path(folder, stem + suffix)
        with path.open("wb") as file:
            shutil.copyfileobj(upload.file, file)
        left = deadline - time.monotonic()
        if left <= 0:
            raise BackendTimeout(
                "The upload used all of the time that an import may take. Try again over a "
                "faster connection."
            )
        if suffix == ".zip":
            return import_archive(registry, path, name=options.name, timeout=left)
        return import_model(
            registry,
            path,
            Conversion(
                family=options.family,
                names=options.class_names,
                imgsz=options.imgsz,
                description=options.description,
            ),
            name=options.name,
            timeout=left,
        )
