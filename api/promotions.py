"""Promotions requested over HTTP, with the stores and the warm-up of the gateway."""

from __future__ import annotations

from typing import Any

from api.dependencies import evaluation_stores
from api.job_control import notify_trainer
from errors import ModelNotFound
from evaluation.gate import Gate
from evaluation.promotion_request import PromotionOutcome, PromotionRequest, decide_promotion
from jobs.store import Job
from models_store.versions import ModelVersion
from serving.gateway import Gateway


async def request_promotion(
    gateway: Gateway, candidate: ModelVersion, gate: Gate | None, by: str, force: bool = False
) -> PromotionOutcome | Job:
    """Decide a promotion, or queue a job that decides it; see `decide_promotion`.

    Raises:
        VisionLoopError: The gate cannot be applied, and `force` is not set.
    """
    return await decide_promotion(
        PromotionRequest(candidate, gate, by, force),
        evaluation_stores(gateway),
        gateway.promote,
        lambda job: notify_trainer(gateway, job),
    )


def active_model(gateway: Gateway) -> dict[str, Any] | None:
    """The active model in the form of responses; None if there is none."""
    try:
        return gateway.registry.active().to_json()
    except ModelNotFound:
        return None
