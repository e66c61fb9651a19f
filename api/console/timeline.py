"""`/models/{name}/timeline`: what happened to a model name."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from api.dependencies import GatewayDep
from api.groups import QUALITY
from api.middleware.auth import require_use
from api.middleware.request_state import address_of
from api.schemas import errors
from api.thread_pool import slow_reads
from evaluation.timeline.entry import Entry, EntryKind
from evaluation.timeline.page import timeline

router = APIRouter(tags=[QUALITY], dependencies=[Depends(require_use)])

LISTED = 50
MOST_LISTED = 200


class TimelineEntry(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    id: str = Field(description="of this entry; `before` goes on from it")
    at: str = Field(description="when, in UTC")
    kind: EntryKind = Field(
        description="what happened; `failed`: a training or evaluation failed or was stopped"
    )
    text: str = Field(description="what happened, in a sentence")
    who: str | None = Field(
        description="a token's name; `open`: a caller without one; null: the service by itself"
    )
    reasons: list[str] = Field(description="why, in sentences")
    regressed: list[str] = Field(
        description="classes that regressed by more than the gate allows, the worst first"
    )
    forced: bool = Field(description="whether the gate was overruled")
    model_id: str | None = Field(description="the version, which may have been deleted since")
    job_id: str | None = Field(description="the job, which may have been deleted since")
    evaluation: str | None = Field(description="id of the evaluation that it rests on")
    compared: list[str] | None = Field(description="ids of the versions compared, the old first")
    dataset: str | None = Field(description="name of a dataset, or `id@revision`")
    report_url: str | None = Field(description="URL of the page with the evaluation's report")
    compare_url: str | None = Field(description="URL of the comparison, in JSON")


class Timeline(BaseModel):
    entries: list[TimelineEntry] = Field(description="the newest first")
    before: str | None = Field(
        description="`before` of the next page; null: there are no older entries"
    )


@router.get("/models/{name}/timeline", response_model=Timeline, responses=errors(400, 404, 503))
async def model_timeline(
    name: str,
    request: Request,
    gateway: GatewayDep,
    kind: list[EntryKind] = Query(
        [], description="only entries of this kind; repeat it for entries of several"
    ),
    limit: int = Query(
        LISTED, ge=1, le=MOST_LISTED, description=f"a whole number from 1 to {MOST_LISTED}"
    ),
    before: str = Query(
        "", max_length=160, description="an entry's `id`; only entries older than it are listed"
    ),
) -> Any:
    """What happened to the versions of a name, the newest first.

    Corrections that came, trainings, imports, evaluations, comparisons, decisions on promotions
    and why, rollbacks, activations, drift, engines. It is read from the records of each, also of
    versions that were deleted.
    """
    work = partial(timeline, gateway.registry, gateway.evaluations, name, limit, before, kind)
    entries, more = await slow_reads.run(work)
    shown = [_shown(entry, request) for entry in entries]
    return {"entries": shown, "before": entries[-1].id if more else None}


def _shown(entry: Entry, request: Request) -> dict[str, Any]:
    report = compare = None
    if entry.evaluation and entry.model_id:
        path = f"/metrics/{quote(entry.model_id, safe=':')}/report.html"
        report = f"{address_of(request, path)}?{urlencode({'evaluation': entry.evaluation})}"
    if entry.compared:
        query = urlencode({"a": entry.compared[0], "b": entry.compared[1]})
        compare = f"{address_of(request, '/metrics/compare')}?{query}"
    return {
        "id": entry.id,
        "at": entry.at,
        "kind": entry.kind,
        "text": entry.text,
        "who": entry.who,
        "reasons": list(entry.reasons),
        "regressed": list(entry.regressed),
        "forced": entry.forced,
        "model_id": entry.model_id,
        "job_id": entry.job_id,
        "evaluation": entry.evaluation,
        "compared": list(entry.compared) if entry.compared else None,
        "dataset": entry.dataset,
        "report_url": report,
        "compare_url": compare,
    }
