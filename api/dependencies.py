"""FastAPI dependencies of the handlers: the application's gateway and groups of its stores."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request

from evaluation.submission import EvaluationStores
from serving.gateway import Gateway


def _gateway(request: Request) -> Any:
    return request.app.state.gateway


GatewayDep = Annotated[Gateway, Depends(_gateway)]


def evaluation_stores(gateway: Gateway) -> EvaluationStores:
    """The gateway's stores that are used to plan and find evaluations."""
    return EvaluationStores(gateway.registry, gateway.datasets, gateway.evaluations, gateway.jobs)
