"""`/api/datasets/{id}/…/draft`, `/drafts`: what people draw until they commit it."""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import Row

from annotation.corrections.submission import CorrectionPolicy, CorrectionSubmission
from annotation.draft_tables import Draft
from annotation.drafts.commit import CommitRequest, DraftCommitter
from annotation.drafts.drawing import Drawer
from annotation.drafts.image_state import ImageReader
from annotation.drafts.store import ANY, STATES, DraftStore, Drawn, Place
from api.accounting import Corrected
from api.console.author import AuthorDep
from api.console.image_annotations import read_image
from api.console.shapes import MOST_SHAPES, Shape
from api.dependencies import GatewayDep
from api.groups import DATASETS
from api.middleware.auth import require_annotate, require_annotate_to_read
from api.middleware.request_state import changed, unchanged
from api.requests import MOST_VALUES, json_body
from api.schemas import RequestFields, errors, json_request_body
from api.thread_pool import slow_work
from errors import PreconditionRequired, ValidationFailed
from serving.gateway import Gateway

router = APIRouter(prefix="/api/datasets", tags=[DATASETS])

State = Literal["draft", "accepted", "skipped"]
ETAG = re.compile(r'"([0-9a-f]{1,32})"')
CONTENT = re.compile(r"[0-9a-f]{64}")
MOST_DRAFT_VALUES = 2_000_000  # JSON values of a draft
STATE = (
    "`draft`: being drawn; `accepted`: to be committed, without objects: checked, nothing is "
    "there; `skipped`: left for others"
)


class DraftBody(RequestFields):
    """What a person has drawn on an image so far."""

    objects: list[Shape] = Field(
        max_length=MOST_SHAPES, description="all objects of the image, in the console's form"
    )
    state: State = Field("draft", description=STATE)
    base: str = Field(
        min_length=1,
        max_length=32,
        description="`base` of the annotations that it was drawn on, as …/annotations answers it",
    )
    reason: str = Field("", max_length=500, description="why the image was skipped")


class DraftSummary(BaseModel):
    """Whose draft, of which image, and how far it is."""

    dataset_id: str = Field(description="the dataset")
    content: str = Field(description="SHA-256 of the image file")
    image: str = Field(description="the image's path as it was sent")
    author: str = Field(description="the person")
    mine: bool = Field(description="whether the caller is the author")
    state: State = Field(description=STATE)
    etag: str = Field(description="its version, for `If-Match`")
    base: str = Field(description="names the annotations that it was drawn on")
    object_count: int = Field(description="the number of objects")
    reason: str = Field(description="why the image was skipped; or empty")
    created_at: str = Field(description="ISO 8601, UTC")
    updated_at: str = Field(description="ISO 8601, UTC")


class DraftAnswer(DraftSummary):
    objects: list[Shape] = Field(description="the objects in the console's form")


class DraftList(BaseModel):
    dataset_id: str = Field(description="the dataset")
    counts: dict[str, int] = Field(description="state → number of the caller's own drafts")
    drafts: list[DraftSummary] = Field(description="the drafts, the newest change first")
    total: int = Field(description="the number of drafts, of which `drafts` are the first")


class CommitBody(RequestFields):
    """Which drafts become a revision."""

    key: str | None = Field(
        None,
        min_length=8,
        max_length=80,
        description="a name of this commit that the client chooses: sent again, after a lost "
        "answer, it is answered as the first time and stores nothing",
    )
    contents: list[str] | None = Field(
        None,
        max_length=MOST_VALUES,
        description="SHA-256 of the images; null: all that the caller has accepted",
    )
    mine: list[str] = Field(
        [],
        max_length=MOST_VALUES,
        description="SHA-256 of images that others have annotated meanwhile, and whose drafts "
        "replace that",
    )
    confirm: bool = Field(
        False,
        description="true: allow the removal of more than half of the objects, or of all objects "
        "of a class with five or more",
    )


class Side(BaseModel):
    author: str = Field(description="the person; `person` if it is not known")
    at: str | None = Field(description="when, ISO 8601, UTC; null: with the upload")


class CommitConflict(BaseModel):
    """An image that others have annotated since the draft was begun."""

    content: str = Field(description="SHA-256 of the image file")
    image: str = Field(description="the image's path as it was sent")
    yours: Side = Field(description="the draft")
    theirs: Side = Field(description="what is stored")


class ImageChanges(BaseModel):
    """What a draft changes in an image, by objects."""

    content: str = Field(description="SHA-256 of the image file")
    image: str = Field(description="the image's path as it was sent")
    before: str | None = Field(
        description="whose annotations they are compared with: a person's, `original`, a model's; "
        "null: there were none"
    )
    empty: bool = Field(description="whether the image has no objects now")
    accepted: int = Field(description="objects that stay as they were")
    moved: int = Field(description="objects with another place or outline")
    relabelled: int = Field(description="objects with another class")
    added: int = Field(description="new objects")
    removed: int = Field(description="objects that are gone")


class CommitChanges(BaseModel):
    images: int = Field(description="number of images")
    accepted: int = Field(description="objects that stay as they were")
    moved: int = Field(description="objects with another place or outline")
    relabelled: int = Field(description="objects with another class")
    added: int = Field(description="new objects")
    removed: int = Field(description="objects that are gone")
    changed: list[ImageChanges] = Field(description="the images, the first 200")


class CommitAnswer(Corrected):
    """What a commit stored, or in a dry run would store."""

    author: str = Field(description="the person")
    committed: list[str] = Field(description="SHA-256 of the images whose drafts were stored")
    conflicts: list[CommitConflict] = Field(
        description="images that others have annotated meanwhile; in a dry run also those that "
        "would be refused"
    )
    changes: CommitChanges = Field(description="what the drafts change")
    replayed: bool = Field(
        description="true: this commit was made before; the answer is the one of then"
    )


def _place(dataset_id: str, content: str, author: str) -> Place:
    if not CONTENT.fullmatch(content):
        raise ValidationFailed(
            f"Images are named by the SHA-256 of their files, 64 hexadecimal digits; got "
            f"{content[:80]!r}."
        )
    return Place(dataset_id, content, author)


def _summary(row: Draft | Row[Any], author: str) -> dict[str, Any]:
    return {
        "dataset_id": row.dataset_id,
        "content": row.content,
        "image": row.name,
        "author": row.author,
        "mine": row.author == author,
        "state": row.state,
        "etag": f'"{row.version}"',
        "base": row.base,
        "object_count": row.object_count,
        "reason": row.reason,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }


def _answer(response: Response, row: Draft, author: str) -> dict[str, Any]:
    response.headers["ETag"] = f'"{row.version}"'
    response.headers["Cache-Control"] = "no-store"
    return _summary(row, author) | {"objects": row.objects}


def _seen(request: Request) -> str | None:
    """The version that the request replaces; None: there must be none yet.

    Raises:
        PreconditionRequired: It says neither.
        ValidationFailed: It says something else.
    """
    match, none = request.headers.get("if-match"), request.headers.get("if-none-match")
    if match is None and none is None:
        raise PreconditionRequired(
            "Say which version of the draft this replaces: 'If-Match: \"…\"' with the ETag of the "
            "newest one you have seen, or 'If-None-Match: *' if there is none yet. Two windows "
            "would otherwise overwrite each other."
        )
    if match is None and none is not None and none.strip() == ANY:
        return None
    if match is not None and none is None and (found := ETAG.fullmatch(match.strip())):
        return found[1]
    raise ValidationFailed(
        "Send either 'If-Match' with one ETag of this draft, such as \"5f1c9a0e7d3b2846\" with its "
        f"quotes, or 'If-None-Match: *'; got If-Match {match!r:.60}, If-None-Match {none!r:.60}."
    )


@router.put(
    "/{dataset_id}/images/{content}/draft",
    response_model=DraftAnswer,
    responses=errors(400, 403, 404, 412, 413, 428, 503),
    dependencies=[Depends(require_annotate_to_read)],  # the commit is what the audit trail names
    openapi_extra=json_request_body(DraftBody),
)
async def put_draft(
    request: Request,
    response: Response,
    dataset_id: str,
    content: str,
    gateway: GatewayDep,
    author: AuthorDep,
) -> Any:
    """Keep what a person has drawn on an image so far.

    Nothing of the dataset changes until it is committed. `If-Match` with the draft's ETag, or
    `If-None-Match: *` for the first time, is required: of two windows the second gets a 412, with
    the author and time of what is there. After a commit of one's own, the committed draft's ETag
    begins a new draft on what was committed. A draft that is accepted must be one that can be
    stored.
    """
    seen = _seen(request)
    body = await json_body(request, DraftBody, most=MOST_DRAFT_VALUES)
    place = _place(dataset_id, content, author)
    reader = ImageReader(gateway.datasets, gateway.annotated)
    drawer = Drawer(reader, DraftStore(gateway.registry.database), gateway.review.claims)
    objects = [shape.model_dump(mode="json") for shape in body.objects]
    drawn = Drawn(objects, body.state, body.base, body.reason)
    row = await read_image(reader, dataset_id, partial(drawer.keep, place, drawn, seen))
    return _answer(response, row, author)


@router.get(
    "/{dataset_id}/images/{content}/draft",
    response_model=DraftAnswer,
    responses=errors(400, 403, 404),
    dependencies=[Depends(require_annotate_to_read)],
)
async def get_draft(
    response: Response,
    dataset_id: str,
    content: str,
    gateway: GatewayDep,
    author: AuthorDep,
    of: str = Query("", max_length=100, description="another author; by default the caller"),
) -> Any:
    """The draft of an image, with its ETag."""
    store = DraftStore(gateway.registry.database)
    row = await asyncio.to_thread(store.get, _place(dataset_id, content, of or author))
    return _answer(response, row, author)


@router.delete(
    "/{dataset_id}/images/{content}/draft",
    status_code=204,
    responses=errors(400, 403, 412, 428),
    dependencies=[Depends(require_annotate_to_read)],
)
async def discard_draft(
    request: Request, dataset_id: str, content: str, gateway: GatewayDep, author: AuthorDep
) -> Response:
    """Discard the caller's draft of an image: `If-Match` says which version.

    It cannot be brought back. A draft that is gone already is no error.
    """
    seen = _seen(request)
    if seen is None:
        raise ValidationFailed("Discard a draft by 'If-Match' with its ETag.")
    store = DraftStore(gateway.registry.database)
    await asyncio.to_thread(store.discard, _place(dataset_id, content, author), seen)
    return Response(status_code=204)


@router.get(
    "/{dataset_id}/drafts",
    response_model=DraftList,
    responses=errors(403, 404),
    dependencies=[Depends(require_annotate_to_read)],
)
async def list_drafts(
    dataset_id: str,
    gateway: GatewayDep,
    author: AuthorDep,
    mine: bool = Query(False, description="true: only the caller's own"),
    state: State | None = Query(None, description="only those of this state"),
    content: str | None = Query(
        None, max_length=64, description="only those of the image with this SHA-256"
    ),
    limit: int = Query(500, ge=1, le=5000, description="maximum number of drafts in the answer"),
) -> Any:
    """The drafts of a dataset, of all authors."""
    store = DraftStore(gateway.registry.database)

    def read() -> dict[str, Any]:
        gateway.datasets.get(dataset_id)
        found = store.page(dataset_id, limit, author if mine else None, state, content)
        return {
            "dataset_id": dataset_id,
            "counts": {name: found.counts.get((author, name), 0) for name in STATES},
            "drafts": [_summary(row, author) for row in found.rows],
            "total": found.total,
        }

    return await asyncio.to_thread(read)


@router.post(
    "/{dataset_id}/drafts/commit",
    status_code=201,
    response_model=CommitAnswer,
    responses=errors(400, 403, 404, 409, 503)
    | {
        200: {
            "model": CommitAnswer,
            "description": "No revision was made: a dry run, or a commit that was made before",
        }
    },
    dependencies=[Depends(require_annotate)],
    openapi_extra=json_request_body(CommitBody, required=False),
)
async def commit_drafts(
    request: Request,
    response: Response,
    dataset_id: str,
    gateway: GatewayDep,
    author: AuthorDep,
    dry_run: bool = Query(False, description="true: change nothing, and return what would change"),
) -> Any:
    """Make one revision of the caller's accepted drafts, all or nothing.

    It is a correction: checked, counted and confirmed in the same way, with the caller as its
    author. Images that others have annotated since the drafts were begun refuse it (409
    `DRAFT_CONFLICT`, with both authors and times), unless `mine` names them. Committed drafts are
    deleted; a draft that was changed meanwhile stays.
    """
    body = await json_body(request, CommitBody)
    wanted = CommitRequest(
        key=body.key,
        contents=body.contents,
        mine=frozenset(body.mine),
        confirm=body.confirm,
        dry_run=dry_run,
    )
    found = await slow_work.run(partial(_committer(gateway, dataset_id, author).commit, wanted))
    if found["dry_run"] or found["repeated"] or found["replayed"]:
        response.status_code = 200
        unchanged()
    else:
        changed(f"committed drafts of {len(found['committed'])} images", dataset_id)
    return found


def _committer(gateway: Gateway, dataset_id: str, author: str) -> DraftCommitter:
    submission = CorrectionSubmission(
        dataset_id,
        CorrectionPolicy(),
        gateway.datasets,
        gateway.annotated,
        gateway.settings,
        partial(gateway.inbox.build_now, keep=True),
    )
    reader = ImageReader(gateway.datasets, gateway.annotated)
    return DraftCommitter(author, submission, DraftStore(gateway.registry.database), reader)
