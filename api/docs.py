"""`/docs` and `/redoc`: the OpenAPI document as HTML pages, with scripts served from here.

URLs on the pages are relative, so that they work behind a proxy that strips a path prefix.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import fastapi_offline
from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.staticfiles import StaticFiles
from starlette.responses import HTMLResponse

ASSETS = Path(str(files(fastapi_offline) / "static"))
DOCUMENT = "/openapi.json"

# Forbids loading from other servers, which the scripts try (ReDoc: a logo).
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'"
)

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def swagger() -> HTMLResponse:
    """Swagger UI."""
    page = get_swagger_ui_html(
        openapi_url=DOCUMENT.lstrip("/"),
        title="VisionLoop",
        swagger_js_url="static/swagger-ui-bundle.js",
        swagger_css_url="static/swagger-ui.css",
        swagger_favicon_url="static/favicon.png",
        swagger_ui_parameters={
            "validatorUrl": None,
            "persistAuthorization": True,
            "showExtensions": True,  # the scope of each call
        },
    )
    return _with_policy(page)


@router.get("/redoc")
async def redoc() -> HTMLResponse:
    """ReDoc."""
    page = get_redoc_html(
        openapi_url=DOCUMENT.lstrip("/"),
        title="VisionLoop",
        redoc_js_url="static/redoc.standalone.js",
        redoc_favicon_url="static/favicon.png",
        with_google_fonts=False,
    )
    return _with_policy(page)


def _with_policy(page: HTMLResponse) -> HTMLResponse:
    page.headers["Content-Security-Policy"] = POLICY
    return page


def mount_assets(app: FastAPI) -> None:
    """Serve the pages' scripts and styles under `/static`."""
    app.mount("/static", StaticFiles(directory=ASSETS), name="static")
