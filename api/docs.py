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
from pydantic import BaseModel
from starlette.responses import HTMLResponse

from api.annotate import NativeAnnotateForm
from api.schemas import NativeForm, errors, form_body

ASSETS = Path(str(files(fastapi_offline) / "static"))
DOCUMENT = "/openapi.json"

# Nothing is loaded from elsewhere, whatever the scripts would like (ReDoc: a logo).
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'"
)

PREDICT_ERRORS = {
    status: listed["description"] for status, listed in errors(400, 404, 413, 503, 504).items()
}
PROBES = {
    "/livez": ("Whether the process lives", ""),
    "/readyz": ("Whether the runners answer and a model can serve", "BACKEND_UNAVAILABLE"),
}

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
        schema["paths"] |= _bentomls_own()
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


def _bentomls_own() -> dict[str, Any]:
    """What FastAPI does not know of: the native route and the probes."""
    paths: dict[str, Any] = {
        "/predict": _native("predict", "Inference", "/infer", NativeForm, "InferAnswer"),
        "/annotate": _native(
            "annotate", "Annotation", "/api/auto_annotate", NativeAnnotateForm, "AnnotateAnswer"
        ),
    }
    for path, (summary, refusal) in PROBES.items():
        ok = {"200": {"description": "Yes"}}
        no = {"503": {"description": refusal}} if refusal else {}
        paths[path] = {
            "get": {
                "tags": ["Probes"],
                "summary": summary,
                "operationId": path.strip("/"),
                "responses": ok | no,
            }
        }
    return paths


def _native(name: str, tag: str, like: str, form: type[BaseModel], answer: str) -> dict[str, Any]:
    """BentoML's own route for what another one answers."""
    schema = {"schema": {"$ref": f"#/components/schemas/{answer}"}}
    operation = {
        "tags": [tag],
        "summary": name.capitalize(),
        "description": f"`{like}` for `bentoml.SyncHTTPClient(url).{name}(image=Path(...))`.",
        "operationId": name,
        **form_body(form),
        "responses": {
            "200": {"description": "As there", "content": {"application/json": schema}},
            **{str(status): {"description": text} for status, text in PREDICT_ERRORS.items()},
        },
    }
    return {"post": operation}


def _name_errors(responses: dict[str, Any]) -> None:
    """Our form of errors everywhere; FastAPI's own 422 does not happen here."""
    responses.pop("422", None)
    reference = {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}
    for number, response in responses.items():
        if number >= "400":
            response.setdefault("content", {"application/json": reference})
    for status, listed in errors(401, 429, 500).items():
        content = {"application/json": reference}
        responses.setdefault(
            str(status), {"description": listed["description"], "content": content}
        )
