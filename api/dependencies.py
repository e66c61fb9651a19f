"""What handlers are given: the gateway of their application."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request

from serving.gateway import Gateway


def _of(request: Request) -> Any:
    return request.app.state.gateway


GatewayDep = Annotated[Gateway, Depends(_of)]
