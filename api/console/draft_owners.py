"""`/api/datasets/{id}/drafts/take-over`, `/discard`: drafts of somebody who is gone."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from annotation.draft_tables import LONGEST_AUTHOR
from annotation.drafts.store import DraftStore
from api.console.author import AuthorDep
from api.dependencies import GatewayDep
from api.groups import DATASETS
from api.middleware.auth import require_admin
from api.middleware.request_state import changed
from api.requests import MOST_VALUES, json_body
from api.schemas import RequestFields, errors, json_request_body
from errors import ValidationFailed

router = APIRouter(prefix="/api/datasets", tags=[DATASETS], dependencies=[Depends(require_admin)])


class DraftsOf(RequestFields):
    """Whose drafts are meant."""

    author: str = Field(
        min_length=1, max_length=LONGEST_AUTHOR, description="the person, as `…/drafts` names them"
    )
    contents: list[str] | None = Field(
        None,
        max_length=MOST_VALUES,
        description="SHA-256 of the images; null: all of the person's",
    )


class DraftsMoved(BaseModel):
    dataset_id: str = Field(description="the dataset")
    author: str = Field(description="whose drafts they were")
    contents: list[str] = Field(description="SHA-256 of the images whose drafts were moved")
    left: list[str] = Field(
        description="SHA-256 of images of which the caller has a draft, too: nothing was changed"
    )


@router.post(
    "/{dataset_id}/drafts/take-over",
    response_model=DraftsMoved,
    responses=errors(400, 403, 404),
    openapi_extra=json_request_body(DraftsOf),
)
async def take_over_drafts(
    request: Request, dataset_id: str, gateway: GatewayDep, author: AuthorDep
) -> Any:
    """Make the drafts of somebody who is gone the caller's, who can then commit or discard them.

    The audit trail names whose they were. If that person still draws, their next change is kept as
    a draft of theirs again.
    """
    body = await json_body(request, DraftsOf)
    if body.author == author:
        raise ValidationFailed(f"The drafts of {author} are yours already. Name somebody else.")
    store = DraftStore(gateway.registry.database)
    take = partial(store.take_over, dataset_id, body.author, author, body.contents)
    found = await asyncio.to_thread(take)
    changed(f"took over {len(found.taken)} drafts of {body.author}", dataset_id)
    moved = {"contents": found.taken, "left": found.left}
    return {"dataset_id": dataset_id, "author": body.author} | moved


@router.post(
    "/{dataset_id}/drafts/discard",
    response_model=DraftsMoved,
    responses=errors(400, 403, 404),
    openapi_extra=json_request_body(DraftsOf),
)
async def discard_drafts_of(request: Request, dataset_id: str, gateway: GatewayDep) -> Any:
    """Delete the drafts of somebody who is gone. They cannot be brought back.

    The audit trail names whose they were.
    """
    body = await json_body(request, DraftsOf)
    store = DraftStore(gateway.registry.database)
    discard = partial(store.discard_of, dataset_id, body.author, body.contents)
    found = await asyncio.to_thread(discard)
    changed(f"discarded {len(found)} drafts of {body.author}", dataset_id)
    return {"dataset_id": dataset_id, "author": body.author, "contents": found, "left": []}
