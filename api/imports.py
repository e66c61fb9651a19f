"""`/models/import`: somebody's weights become a model."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path, PurePath
from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.datastructures import UploadFile

from api import schemas
from api.auth import require_admin
from api.errors import check
from api.forms import fields, read_form
from api.gateway import Gateway, Wired
from api.schemas import ImportForm, ImportOptions, errors, form_body
from errors import BackendUnavailable, ValidationFailed
from models_store.archive import import_archive
from models_store.importer import import_model
from models_store.names import suggest_name
from models_store.scratch import scratch
from models_store.versions import ModelVersion

router = APIRouter(tags=["Models"])

SUFFIXES = (".pt", ".pth", ".zip")
IN_MEMORY = 1024 * 1024
MARGIN = 10.0  # seconds, so that the conversion gives up before the request does

_one = asyncio.Lock()  # a conversion may take gigabytes


@router.post(
    "/models/import",
    status_code=201,
    response_model=schemas.Model,
    responses=errors(400, 403, 413, 503),
    dependencies=[Depends(require_admin)],
    openapi_extra=form_body(ImportForm),
)
async def import_weights(request: Request, gateway: Wired) -> Any:
    """Import a `.pt` checkpoint (YOLO, MobileNetV2), or an archive of `export-archive`.

    Nothing in the file is run: what is no plain data is refused.
    """
    if _one.locked():
        raise BackendUnavailable("Another model is being imported. Try again.", 30)
    async with _one:
        form = await read_form(request, IN_MEMORY)
        try:
            upload = form.get("file")
            options = check(ImportOptions, fields(form))
            if not isinstance(upload, UploadFile):
                raise ValidationFailed("'file' is required: the weights, as a file of the form.")
            suffix = PurePath(upload.filename or "").suffix.lower()
            if suffix not in SUFFIXES:
                raise ValidationFailed(f"'file' must be named {' or '.join(SUFFIXES)}.")
            model = await asyncio.to_thread(_import, gateway, upload, suffix, options)
        finally:
            await form.close()
    return model.to_json()


def _import(
    gateway: Gateway, upload: UploadFile, suffix: str, options: ImportOptions
) -> ModelVersion:
    registry = gateway.registry
    stem = suggest_name(PurePath(upload.filename or "").stem)
    with scratch(gateway.settings.home) as folder:
        path = Path(folder, stem + suffix)
        with path.open("wb") as file:
            shutil.copyfileobj(upload.file, file)
        if suffix == ".zip":
            return import_archive(registry, path, name=options.name, promote=options.promote)
        return import_model(
            registry,
            path,
            name=options.name,
            family=options.family,
            names=options.class_names,
            imgsz=options.imgsz,
            description=options.description,
            promote=options.promote,
            timeout=gateway.settings.import_timeout - MARGIN,
        )
