"""`/api/datasets/{id}/…`: revisions, what corrections changed in them, and exports."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import StreamingResponse

from annotation.dataset_export import confidence_bands, export_zip
from annotation.diff import ACCEPTED_IOU, MATCH_IOU
from annotation.history import diff, revision_rows
from api.accounting import Row
from api.dependencies import GatewayDep
from api.groups import DATASETS
from api.middleware.auth import require_use
from api.schemas import errors
from api.thread_pool import slow_reads
from formats.annotations import Format

router = APIRouter(prefix="/api/datasets", tags=[DATASETS], dependencies=[Depends(require_use)])

KINDS = "label_studio, yolo, coco, labelme, voc or cvat_xml"
ZIP: dict[int | str, dict[str, Any]] = {200: {"content": {"application/zip": {}}}}


class RevisionList(BaseModel):
    dataset_id: str
    revisions: list[Row] = Field(description="the revisions, the newest first")


class Diff(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    dataset_id: str
    revision: int
    accepted_iou: float = Field(description="smallest IoU at which an object counts as not moved")
    compared: list[dict[str, Any]] = Field(
        description=(
            "source of the earlier annotations (a model's id, or `original`) → the number of "
            "images (`pictures`), of objects accepted, moved, relabelled, added and removed, "
            "precision and recall, the same for each class, and the precision of each "
            "confidence band"
        )
    )
    changed_count: int
    changed: list[dict[str, Any]] = Field(description="the first 200 images with changes")


@router.get("/{dataset_id}/revisions", response_model=RevisionList, responses=errors(404))
async def list_revisions(dataset_id: str, gateway: GatewayDep) -> Any:
    """The revisions of a dataset."""
    rows = await asyncio.to_thread(revision_rows, gateway.datasets, dataset_id)
    return {"dataset_id": dataset_id, "revisions": rows}


@router.get(
    "/{dataset_id}/revisions/{revision}/diff",
    response_model=Diff,
    responses=errors(400, 404, 503),
)
async def show_diff(
    dataset_id: str,
    revision: int,
    gateway: GatewayDep,
    iou: float = Query(
        ACCEPTED_IOU,
        ge=MATCH_IOU,
        le=1,
        description="smallest IoU at which an object counts as not moved",
    ),
    against: int | None = Query(
        None, ge=0, description="the revision to compare with; by default the pre-labels"
    ),
) -> Any:
    """What people changed in the pre-labels: accepted, moved, relabelled, added, removed.

    The model's precision and recall are computed with the people's annotations as ground truth.
    """

    def compare() -> dict[str, Any]:
        return diff(
            gateway.datasets,
            dataset_id,
            revision,
            accepted=iou,
            bands=confidence_bands(gateway.datasets, gateway.annotated, dataset_id),
            against=against,
        )

    return await slow_reads.run(compare)


@router.get(
    "/{dataset_id}/export", response_class=StreamingResponse, responses=errors(400, 404, 503) | ZIP
)
async def export(
    dataset_id: str,
    gateway: GatewayDep,
    form: Format | None = Query(
        None,
        alias="format",
        description=f"{KINDS}; default: the format that the batch annotation requested, or yolo",
    ),
    revision: int | None = Query(
        None, ge=0, description="number of the revision; 0: as uploaded; default: the newest"
    ),
    images: bool = Query(True, description="true or false: whether the zip contains the images"),
) -> StreamingResponse:
    """A dataset as a zip, in a format that an annotation tool reads."""

    stores = gateway.datasets, gateway.annotated
    pack = partial(export_zip, *stores, dataset_id, revision, form, images)
    name, pieces = await slow_reads.run(pack)
    disposition = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(pieces, media_type="application/zip", headers=disposition)
