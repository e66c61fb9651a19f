"""`/models/shadow`: a candidate model that is tested on a copy of the live traffic."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from api.dependencies import GatewayDep
from api.groups import MODELS
from api.middleware.auth import require_admin, require_use
from api.middleware.request_state import changed
from api.requests import json_body
from api.schemas import MODEL_EXAMPLE, RequestFields, errors, json_request_body
from monitoring.shadow_store import ShadowRow

router = APIRouter(tags=[MODELS], dependencies=[Depends(require_use)])


class ShadowChoice(RequestFields):
    model_id: str = Field(min_length=1, max_length=200, examples=[MODEL_EXAMPLE])
    fraction: float = Field(
        1.0, gt=0, le=1, allow_inf_nan=False, description="share of the live traffic that is copied"
    )
    against: str | None = Field(
        None,
        max_length=200,
        description=(
            "a model's id or name, to copy only its traffic; empty: the traffic of every model "
            "of the candidate's type"
        ),
    )


class ShadowClass(BaseModel):
    name: str
    live: int = Field(description="objects in the live answers")
    candidate: int = Field(description="objects in the candidate's answers")
    matched: int = Field(description="objects that both found")
    agreement: float = Field(description="F1 score: 2·matched / (live + candidate)")


class Shadow(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    model_id: str
    against: str | None
    fraction: float
    state: Literal["running", "ended"]
    ended_because: Literal["stopped", "replaced", "deleted", "activated", "promoted"] | None
    started_at: datetime
    ended_at: datetime | None
    seen: int = Field(description="live answers of models of the candidate's type")
    run: int = Field(description="live answers that `fraction` selected and that were compared")
    dropped: int = Field(
        description="selected live answers that were skipped to keep live traffic fast"
    )
    failed: int
    agreement: float | None = Field(
        description=(
            "mean agreement over `run`: for boxes the F1 score with equal class and an IoU of "
            "at least 0.5; for classes the share of images with the same best class"
        )
    )
    live_time: float | None = Field(description="mean time in the live model, in milliseconds")
    candidate_time: float | None = Field(
        description=(
            "mean time in the candidate, in milliseconds; it is slower, because it runs in one "
            "thread at low priority"
        )
    )
    classes: list[ShadowClass]


class ShadowAnswer(BaseModel):
    shadow: Shadow | None = Field(description="the running shadow, or else the last one")


class ShadowChanged(ShadowAnswer):
    message: str


@router.get("/models/shadow", response_model=ShadowAnswer)
async def get_shadow(gateway: GatewayDep) -> Any:
    """The shadow, and how far its candidate agrees with the live answers."""
    row = await gateway.shadow.newest()
    return {"shadow": _view(row) if row else None}


@router.post(
    "/models/shadow",
    response_model=ShadowChanged,
    responses=errors(400, 403, 404),
    dependencies=[Depends(require_admin)],
    openapi_extra=json_request_body(ShadowChoice),
)
async def begin_shadow(request: Request, gateway: GatewayDep) -> Any:
    """Run a candidate on a copy of the live traffic; its answers are only compared, never returned.

    Copies run after the live answers, at the lowest priority, and are dropped under load. The
    shadow survives restarts, and ends when its model is activated, promoted or deleted.
    """
    choice = await json_body(request, ShadowChoice)
    row = await gateway.shadow.begin(choice.model_id, choice.fraction, choice.against)
    changed("began the shadow", row.model_id)
    return {"message": f"'{row.model_id}' now runs in the shadow.", "shadow": _view(row)}


@router.delete(
    "/models/shadow",
    response_model=ShadowChanged,
    responses=errors(403, 404),
    dependencies=[Depends(require_admin)],
)
async def end_shadow(gateway: GatewayDep) -> Any:
    """End the shadow; its results can still be read."""
    row = await gateway.shadow.end()
    changed("ended the shadow", row.model_id)
    return {"message": f"'{row.model_id}' no longer runs in the shadow.", "shadow": _view(row)}


def _view(row: ShadowRow) -> dict[str, Any]:
    figures, run = row.figures, row.figures.get("run", 0)

    def mean(name: str, digits: int) -> float | None:
        return round(figures[name] / run, digits) if run else None

    fields = ("model_id", "against", "fraction", "ended_because", "started_at", "ended_at")
    counts = ("seen", "run", "dropped", "failed")
    return {
        **{name: getattr(row, name) for name in fields},
        **{name: figures.get(name, 0) for name in counts},
        "state": "ended" if row.ended_at else "running",
        "agreement": mean("agreement", 4),
        "live_time": mean("live_ms", 2),
        "candidate_time": mean("candidate_ms", 2),
        "classes": _classes(figures.get("classes", {})),
    }


def _classes(counts: dict[str, dict[str, int]]) -> list[dict[str, Any]]:
    live, candidate, matched = (
        Counter(counts.get(side, {})) for side in ("live", "candidate", "matched")
    )
    return [
        {
            "name": name,
            "live": live[name],
            "candidate": candidate[name],
            "matched": matched[name],
            "agreement": round(2 * matched[name] / (live[name] + candidate[name]), 4),
        }
        for name in sorted(live | candidate)
    ]
