"""Every route says which scope it needs, and the documents say the same."""

from __future__ import annotations

from typing import Any, cast

import pytest
from starlette.routing import Route

from access.scopes import ORDER
from api.app import create_app
from api.middleware.auth import OPEN, SAFE, declared
from api.openapi import document

ABOVE_USE = {
    "POST /api/auto_annotate/batch": "annotate",
    "POST /api/datasets": "annotate",
    "POST /api/datasets/check": "annotate",
    "POST /api/datasets/{dataset_id}/images": "annotate",
    "POST /api/datasets/{dataset_id}/annotations": "annotate",
    "PUT /api/datasets/{dataset_id}/images/{content}/draft": "annotate",
    "GET /api/datasets/{dataset_id}/images/{content}/draft": "annotate",
    "DELETE /api/datasets/{dataset_id}/images/{content}/draft": "annotate",
    "GET /api/datasets/{dataset_id}/drafts": "annotate",
    "POST /api/datasets/{dataset_id}/drafts/commit": "annotate",
    "POST /api/annotation/queue/claim": "annotate",
    "POST /api/annotation/queue/release": "annotate",
    "POST /api/annotation/queue/skip": "annotate",
    "POST /api/annotation/queue/unskip": "annotate",
    "POST /api/annotation/kept/{image_id}/dataset": "annotate",
    "GET /api/annotation/kept/{image_id}": "annotate",
    "GET /models/{model_id}/live/kept": "annotate",
    "POST /label-studio/webhook": "annotate",
    "POST /label-studio/pull/{project}": "annotate",
    "POST /jobs/{job_id}/cancel": "annotate",
    "POST /train": "train",
    "DELETE /train/{job_id}": "train",
    "POST /api/training/regular": "train",
    "POST /api/training/incremental": "train",
    "POST /api/training/distillation": "train",
    "POST /api/training/freeze-strategy": "train",
    "POST /api/training/tasks/{task_id}/cancel": "train",
    "GET /api/training/select-local-file": "train",
    "POST /metrics/{model_id}/evaluate": "train",
    "POST /models/import": "admin",
    "POST /models/{model_id}/export": "train",
    "POST /models/{model_id}/engines": "train",
    "DELETE /models/{model_id}/exports/{export_id}": "train",
    "GET /models/{model_id}/download": "train",
    "POST /models/fetch": "admin",
    "POST /models/active": "admin",
    "DELETE /models/{model_id}": "admin",
    "POST /models/{model_id}/promote": "admin",
    "POST /models/{name}/rollback": "admin",
    "POST /models/shadow": "admin",
    "DELETE /models/shadow": "admin",
    "DELETE /models/{model_id}/live/kept": "admin",
    "DELETE /api/datasets/{dataset_id}": "admin",
    "DELETE /jobs/{job_id}": "admin",
    "POST /tokens": "admin",
    "GET /tokens": "admin",
    "POST /api/datasets/{dataset_id}/drafts/take-over": "admin",
    "POST /api/datasets/{dataset_id}/drafts/discard": "admin",
    "DELETE /tokens/{token}": "admin",
    "POST /tokens/{token}/renew": "admin",
    "POST /webhooks/deliveries/{delivery_id}/resend": "admin",
    "GET /audit": "admin",
    "GET /webhooks/deliveries": "admin",
    "POST /webhooks/test": "admin",
}
"""A new route that needs more than `use` is added here, so that somebody has thought about it."""

PREDICTING = {
    "/infer", "/infer/base64", "/api/auto_annotate", "/api/function_invocations", "/v1/predict",
    "/label-studio/predict", "/label-studio/setup",
}  # fmt: skip
"""Paths of the `use` scope by methods other than GET."""


@pytest.fixture(scope="module")
def routes() -> list[Route]:
    app = create_app(cast(Any, None))
    found: list[Route] = app.state.routes
    return found


def scope_of(route: Route) -> str | None:
    needs = declared(getattr(route, "dependencies", ()))
    return needs.scope if needs else None


def test_every_route_declares_a_scope_unless_it_is_open_to_all(routes: list[Route]) -> None:
    without = {route.path for route in routes if scope_of(route) is None}
    files = {"/console/{name}"}
    assert without == OPEN - {"/livez", "/readyz", "/healthz", "/openapi.json"} | files
    assert not without & {route.path for route in routes if scope_of(route)}


def test_what_needs_more_than_use_is_what_the_table_says(routes: list[Route]) -> None:
    found = {
        f"{method} {route.path}": scope
        for route in routes
        for method in route.methods or ()
        if (scope := scope_of(route)) not in ("use", None) and method != "HEAD"
    }
    assert found == ABOVE_USE


def test_what_changes_something_needs_more_than_use(routes: list[Route]) -> None:
    changing = {
        route.path
        for route in routes
        if (route.methods or set()) - SAFE and scope_of(route) == "use"
    }
    assert changing == PREDICTING


def test_the_openapi_document_has_the_scopes() -> None:
    described = document(create_app(cast(Any, None)))
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            label = f"{method.upper()} {path}"
            if path in OPEN:
                assert operation["security"] == []
                assert "x-scope" not in operation
            else:
                assert operation["x-scope"] == ABOVE_USE.get(label, "use"), label
                assert operation["x-scope"] in ORDER
