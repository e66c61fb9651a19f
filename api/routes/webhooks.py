"""`/webhooks`: the messages that announce ended jobs, and a test of their receivers."""

from __future__ import annotations

import asyncio
import time
import uuid
from functools import partial
from typing import Any, Literal

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, Field

from api.dependencies import GatewayDep
from api.groups import WEBHOOKS
from api.middleware.auth import require_admin
from api.middleware.request_state import changed
from api.schemas import errors
from database import now
from errors import Conflict, ValidationFailed
from jobs.webhooks.deliveries import LISTED, STATES, DeliveryStore, target_of
from jobs.webhooks.event import TEST, body
from jobs.webhooks.post import MAX_ANSWER, client, post
from setting_values import without_credentials

router = APIRouter(tags=[WEBHOOKS], prefix="/webhooks", dependencies=[Depends(require_admin)])


class DeliveryView(BaseModel):
    id: str = Field(description="the same in the body and the header `VisionLoop-Delivery`")
    event: Literal["job.completed", "job.failed", "job.cancelled"] = Field(
        description="how the job ended"
    )
    job_id: str
    address: str = Field(description="without user name, password and query")
    state: Literal["pending", "delivered", "failed"] = Field(
        description="`pending`: it is sent, or tried again; `failed`: it is given up"
    )
    attempts: int = Field(description="number of attempts begun")
    next_attempt_at: str | None = Field(
        description="when it is sent next; during an attempt, when it would be sent again if the "
        "server died"
    )
    last_status: int | None = Field(description="HTTP status of the receiver's last response")
    last_error: str | None = Field(description="why the last attempt failed")
    created_at: str = Field(description="when the job ended, or when it was sent again")
    finished_at: str | None


class DeliveryViews(BaseModel):
    deliveries: list[DeliveryView] = Field(description="the newest first")


class WebhookTest(BaseModel):
    address: str = Field(description="without user name, password and query")
    id: str = Field(description="of this message, as its header `VisionLoop-Delivery` has it")
    delivered: bool = Field(description="whether the receiver answered with a status of 2xx")
    status: int | None = Field(description="HTTP status of the receiver's response")
    error: str | None = Field(description="why the message was not delivered")
    answer: str = Field(description=f"the first {MAX_ANSWER} bytes of the response's body")
    seconds: float = Field(description="time until the end of the response")


class WebhookTests(BaseModel):
    results: list[WebhookTest] = Field(description="one of each address")


@router.get("/deliveries", response_model=DeliveryViews, responses=errors(400, 403, 404))
async def list_deliveries(
    gateway: GatewayDep,
    state: str = Query("", description=f"one of: {', '.join(STATES)}"),
    limit: int = Query(LISTED, ge=1, le=LISTED, description=f"a whole number from 1 to {LISTED}"),
    before: str = Query(
        "", description="a delivery's id; only deliveries older than this one are listed"
    ),
) -> Any:
    """The deliveries of the last days, the newest first, in pages."""
    if state and state not in STATES:
        raise ValidationFailed(f"'state' must be one of {', '.join(STATES)}; got {state!r:.60}.")
    store = DeliveryStore(gateway.registry.database)
    look = partial(store.list, state or None, limit=limit, before=before or None)
    found = await asyncio.to_thread(look)
    return {
        "deliveries": [{n: getattr(row, n) for n in DeliveryView.model_fields} for row in found]
    }


@router.post(
    "/deliveries/{delivery_id}/resend",
    status_code=202,
    response_model=DeliveryView,
    responses=errors(403, 404, 409),
)
async def resend_delivery(
    gateway: GatewayDep, delivery_id: str = Path(max_length=200, description="the delivery's id")
) -> Any:
    """Send a delivery again, with the same body and id; a waiting one is sent now."""
    store = DeliveryStore(gateway.registry.database)
    targets = [target_of(address) for address in gateway.settings.webhook_url]
    row = await asyncio.to_thread(store.resend, delivery_id, targets)
    changed("sent a webhook again", row.job_id)
    return {name: getattr(row, name) for name in DeliveryView.model_fields}


@router.post("/test", response_model=WebhookTests, responses=errors(403, 409))
async def test_webhooks(gateway: GatewayDep) -> Any:
    """Send an event `test` to every address now, once; answers what the receivers said."""
    settings = gateway.settings
    if not settings.webhook_url or settings.webhook_secret is None:
        raise Conflict(
            "No webhook is set. Set VISIONLOOP_WEBHOOK_URL and VISIONLOOP_WEBHOOK_SECRET in the "
            "server's environment, and start it again."
        )
    secret = settings.webhook_secret.get_secret_value()

    async def test_all() -> list[dict[str, Any]]:
        tests = (_test(address, secret) for address in settings.webhook_url)
        return list(await asyncio.gather(*tests))

    # In a thread with its own event loop: certificates and names are read by blocking calls.
    return {"results": await asyncio.to_thread(asyncio.run, test_all())}


async def _test(address: str, secret: str) -> dict[str, Any]:
    delivery_id, began = uuid.uuid4().hex, time.monotonic()
    content = body(TEST, delivery_id, now(), None)
    async with client() as http:
        answer = await post(http, address, secret, TEST, delivery_id, content)
    return {
        "address": without_credentials(address),
        "id": delivery_id,
        "delivered": answer.error is None,
        "status": answer.status,
        "error": answer.error,
        "answer": answer.text,
        "seconds": round(time.monotonic() - began, 3),
    }
