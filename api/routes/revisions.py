"""`/api/datasets/{id}/…`: corrections that come back, revisions, what they changed, exports."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import chain
from typing import Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import StreamingResponse

from annotation.confidence_bands import Bands
from annotation.diff import ACCEPTED_IOU, MATCH_IOU
from annotation.export import entries, zipped
from annotation.history import diff, exported, newest, revision_rows
from api.accounting import Row
from api.dependencies import GatewayDep
from api.schemas import errors
from api.thread_pool import slow_work
from formats.annotations import Format
from serving.gateway import Gateway

router = APIRouter(prefix="/api/datasets", tags=["Data sets"])

KINDS = "label_studio, yolo, coco, labelme, voc or cvat_xml"
ZIP: dict[int | str, dict[str, Any]] = {200: {"content": {"application/zip": {}}}}


class RevisionList(BaseModel):
    dataset_id: str
    revisions: list[Row] = Field(description="the newest first")


class Diff(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    dataset_id: str
    revision: int
    accepted_iou: float = Field(description="from which an object counts as not moved")
    compared: list[dict[str, Any]] = Field(
        description="by who spoke before (a model, `original`): pictures, accepted, moved, "
        "relabelled, added, removed, precision and recall, the same for each class, and the "
        "precision of each confidence band"
    )
    changed_count: int
    changed: list[dict[str, Any]] = Field(description="pictures with changes, the first 200")


@router.get("/{dataset_id}/revisions", response_model=RevisionList, responses=errors(404))
async def list_revisions(dataset_id: str, gateway: GatewayDep) -> Any:
    """Everything that the data set has been."""
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
        ACCEPTED_IOU, ge=MATCH_IOU, le=1, description="from which nothing was moved"
    ),
    against: int | None = Query(None, ge=0, description="another revision; else the pre-labels"),
) -> Any:
    """What people made of the pre-labels: accepted, moved, relabelled, added, removed; from it
    the precision and recall of the model, as annotators see them."""

    def compare() -> dict[str, Any]:
        return diff(
            gateway.datasets,
            dataset_id,
            revision,
            accepted=iou,
            bands=_bands(gateway, dataset_id),
            against=against,
        )

    return await slow_work.run(compare)


@router.get(
    "/{dataset_id}/export", response_class=StreamingResponse, responses=errors(400, 404, 503) | ZIP
)
async def export(
    dataset_id: str,
    gateway: GatewayDep,
    form: Format | None = Query(
        None, alias="format", description=f"{KINDS}; default: what it was annotated for, or yolo"
    ),
    revision: int | None = Query(None, ge=0, description="default: the newest; 0: as uploaded"),
    images: bool = Query(True, description="with the pictures"),
) -> StreamingResponse:
    """A data set as a zip, in the form that a tool reads."""

    def begin() -> tuple[str, Iterator[bytes]]:
        number = newest(gateway.datasets, dataset_id) if revision is None else revision
        data = exported(gateway.datasets, dataset_id, number)
        kind = form or _format(gateway, dataset_id)
        pieces = zipped(entries(data, kind, images))
        first = next(pieces, b"")  # what cannot be written is told before the answer begins
        return f"{dataset_id}-{number}-{kind}.zip", chain((first,), pieces)

    name, pieces = await slow_work.run(begin)
    disposition = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(pieces, media_type="application/zip", headers=disposition)


def _bands(gateway: Gateway, dataset_id: str) -> Bands | None:
    dataset = gateway.annotated.find(gateway.datasets.get(dataset_id).get("source") or "")
    bands = dataset.options.get("bands") if dataset is not None else None
    return Bands.model_validate(bands) if bands else None


def _format(gateway: Gateway, dataset_id: str) -> Format:
    dataset = gateway.annotated.find(gateway.datasets.get(dataset_id).get("source") or "")
    found: Format = dataset.options.get("format", "yolo") if dataset is not None else "yolo"
    return found
