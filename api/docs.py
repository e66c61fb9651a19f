"""`/docs` and `/redoc`: the OpenAPI document for people, with scripts that we serve."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import fastapi_offline
from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.staticfiles import StaticFiles
from starlette.responses import HTMLResponse

from api.schemas import errors

ASSETS = Path(str(files(fastapi_offline) / "static"))
DOCUMENT = "/openapi.json"

# Nothing is loaded from elsewhere, whatever the scripts would like (ReDoc: a logo).
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'"
)

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def swagger() -> HTMLResponse:
    page = get_swagger_ui_html(
        openapi_url=DOCUMENT,
        title="VisionLoop",
        swagger_js_url="/static/swagger-ui-bundle.js",
        swagger_css_url="/static/swagger-ui.css",
        swagger_favicon_url="/static/favicon.png",
        swagger_ui_parameters={"validatorUrl": None, "persistAuthorization": True},
    )
    return _sealed(page)


@router.get("/redoc")
async def redoc() -> HTMLResponse:
    page = get_redoc_html(
        openapi_url=DOCUMENT,
        title="VisionLoop",
        redoc_js_url="/static/redoc.standalone.js",
        redoc_favicon_url="/static/favicon.png",
        with_google_fonts=False,
    )
    return _sealed(page)


def _sealed(page: HTMLResponse) -> HTMLResponse:
    page.headers["Content-Security-Policy"] = POLICY
    return page


def mount_assets(app: FastAPI) -> None:
    app.mount("/static", StaticFiles(directory=ASSETS), name="static")


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, made once: routes, error form, tokens, and the native route."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
        )
        components = schema.setdefault("components", {})
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "basic": {"type": "http", "scheme": "basic", "description": "token as password"},
            "token": {"type": "apiKey", "in": "header", "name": "Token"},
        }
        schema["security"] = [{}, {"bearer": []}, {"basic": []}, {"token": []}]
        for operations in schema["paths"].values():
            for operation in operations.values():
                _name_errors(operation["responses"])
        app.openapi_schema = schema
    return app.openapi_schema


def _name_errors(responses: dict[str, Any]) -> None:
    """Our form of errors everywhere; FastAPI's own 422 does not happen here."""
    responses.pop("422", None)
    reference = {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}
    for status, listed in errors(401, 429, 500).items():
        content = {"application/json": reference}
        responses.setdefault(
            str(status), {"description": listed["description"], "content": content}
        )
