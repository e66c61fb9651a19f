"""Webhook events: their JSON bodies and their signatures."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json

MAX_BODY = 64 * 1024  # bytes of a request body
# Fields of a job that deliveries do not contain; from `eta_s` on, of jobs that have not ended.
OMITTED = (
    "config", "log_path", "size_bytes", "interruption", "eta_s", "queue_position", "runs_on",
    "outage_since",
)  # fmt: skip
SCHEME = "v1"

EVENTS = {"completed": "job.completed", "failed": "job.failed", "stopped": "job.cancelled"}
"""Final status of a job → name of the event."""
TEST = "test"


def body(event: str, delivery_id: str, time: str, job: Mapping[str, Any] | None) -> str:
    """The body of a delivery, at most `MAX_BODY` bytes; `metrics` are left out of a larger one.

    Args:
        event: Name of the event.
        delivery_id: The same for all attempts.
        time: When the event occurred, ISO 8601.
        job: The job, in the form of `GET /jobs/{job_id}`; None for a test event.
    """
    shown = None if job is None else {k: v for k, v in job.items() if k not in OMITTED}
    content = {"event": event, "id": delivery_id, "time": time, "job": shown}
    made = to_json(content, inf_nan_mode="null")
    if len(made) > MAX_BODY and shown is not None:
        content["job"] = shown | {"metrics": {}}
        made = to_json(content, inf_nan_mode="null")
    return made.decode()


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """HMAC-SHA256 over `timestamp.body`, in hexadecimal, with the version of the scheme.

    Args:
        secret: VISIONLOOP_WEBHOOK_SECRET.
        timestamp: Unix time of the attempt in seconds.
        body: The body as it is sent.
    """
    signed = str(timestamp).encode() + b"." + body
    return f"{SCHEME}={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"
