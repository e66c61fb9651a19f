"""The OpenAPI document, for readers and for client generators.

FastAPI generates most of it. This module adds what FastAPI does not know: bodies that handlers read
themselves, responses of the middleware, BentoML's own routes, short operation ids, and descriptions
of fields that mean the same in every schema.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel

from access.scopes import USE
from api.glossary import MEANINGS
from api.groups import ANNOTATE, GROUPS, HEALTH, RECOGNISE
from api.middleware.auth import OPEN, declared
from api.predictions import NativeAnnotateForm
from api.schemas import (
    BODIES,
    ErrorAnswer,
    NativeForm,
    NotReadyAnswer,
    RequestFields,
    errors,
    form_body,
)
from api.training_forms import FORMS, REQUIRED

SCHEMAS = "#/components/schemas/"
BODY = "/body/"  # prefix of the temporary paths that `_bodies` adds
BINARY = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
EVERYWHERE = (400, 401, 403, 429, 500, 503, 504)  # statuses of the middleware and query checks
MULTIPART = "multipart/form-data"

OPERATIONS = {
    "POST /models/import": "import_model",
    "GET /models/{model_id}": "get_model",
    "GET /models/{model_id}/download": "download_model",
    "POST /models/{model_id}/promote": "promote_model",
    "POST /models/{name}/rollback": "rollback_model",
    "GET /models/{model_id}/live": "get_live",
    "GET /label-studio/health": "label_studio_health",
    "GET /label-studio": "label_studio_root",
    "POST /label-studio/setup": "label_studio_setup",
    "GET /label-studio/versions": "label_studio_versions",
    "POST /label-studio/predict": "label_studio_predict",
    "POST /label-studio/webhook": "label_studio_webhook",
    "POST /label-studio/pull/{project}": "label_studio_pull",
    "GET /health": "xanylabeling_health",
    "GET /v1/models": "xanylabeling_models",
    "GET /v1/models/{model_id}/info": "xanylabeling_model",
    "POST /v1/predict": "xanylabeling_predict",
    "GET /api/functions": "cvat_functions",
    "GET /api/functions/{name}": "cvat_function",
    "POST /api/function_invocations": "cvat_invoke",
    "GET /metrics": "list_metrics",
    "GET /metrics/compare": "compare_models",
    "GET /metrics/{model_id}": "get_metrics",
    "POST /metrics/{model_id}/evaluate": "evaluate_model",
    "GET /metrics/{model_id}/history": "list_evaluations",
    "GET /metrics/{model_id}/report": "get_report",
    "GET /metrics/{model_id}/report.html": "get_report_page",
    "GET /metrics/{model_id}/plots/{name}.png": "get_plot",
    "GET /metrics/{model_id}/worst/{number}.jpg": "get_worst_image",
    "GET /api/annotation/queue": "annotation_queue",
    "GET /api/annotation/kept/{image_id}": "get_kept_image",
    "GET /api/datasets/{dataset_id}/pictures/{content}": "get_dataset_image",
    "GET /api/datasets/{dataset_id}/waiting": "list_waiting_annotations",
    "GET /api/datasets/{dataset_id}/revisions/{revision}/diff": "diff_revision",
    "GET /api/datasets/{dataset_id}/export": "export_dataset",
    "GET /api/datasets/{dataset_id}/sheet.png": "get_contact_sheet",
    "POST /api/datasets": "upload_dataset",
    "POST /train": "start_training",
    "GET /train": "list_trainings",
    "GET /train/{job_id}": "get_training",
    "DELETE /train/{job_id}": "stop_training",
    "POST /api/training/regular": "train_regular",
    "POST /api/training/incremental": "train_incremental",
    "POST /api/training/distillation": "train_distillation",
    "POST /api/training/freeze-strategy": "train_freeze_strategy",
    "GET /api/training/tasks": "list_tasks",
    "GET /api/training/tasks/{task_id}": "get_task",
    "GET /api/training/tasks/{task_id}/logs": "get_task_logs",
    "POST /api/training/tasks/{task_id}/cancel": "cancel_task",
    "GET /api/training/status": "training_status",
}
"""Operation ids of routes whose handlers' names are unclear outside of their module, or doubled."""

NEEDED: dict[str, tuple[str, ...]] = {
    "InferBase64": ("image_base64",),
    **{form.__name__: REQUIRED[mode] for mode, form in FORMS.items()},
    "Asked": ("image",),
    "Invocation": ("image",),
    "Predict": ("label_config",),
}
"""Required fields for which the handler has an error message of its own."""

NATIVE = ("/predict", "/annotate")

PROBES = {
    "/livez": "Whether the process lives",
    "/readyz": "Whether the runners answer and a model can serve",
}


def operation_id(route: APIRoute) -> str:
    """The name of a route's function in generated clients. Users' code calls it: do not rename."""
    return OPERATIONS.get(f"{min(route.methods or [''])} {route.path}", route.name)


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of an application; generated at the first call."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=[*app.routes, *_bodies().routes],
            servers=[{"url": "."}],  # relative, so that it works behind a proxy's prefix
        )
        paths, schemas = schema["paths"], schema["components"]["schemas"]
        schemas["ErrorAnswer"] = ErrorAnswer.model_json_schema()
        bodies = _read_bodies(paths)
        paths |= _bentoml_paths()
        _add_scopes(app, paths)
        for path, operations in paths.items():
            for method, operation in operations.items():
                _refer(operation, bodies)
                _answer_errors(operation, path in PROBES, writes=method != "get")
        _exclude_each_other(paths["/infer"]["post"]["responses"]["200"]["content"])
        _describe_readiness(paths["/readyz"]["get"], schemas)
        for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's 422
            schemas.pop(name, None)
        forms = _forms(paths, bodies)
        for kind in _kinds(RequestFields):
            if kind.__name__ in schemas:
                _close(schemas[kind.__name__], kind)
        for name in BODIES:
            _finish_body(schemas[bodies[name]], NEEDED.get(name, ()), name in forms)
        schema["components"]["schemas"] = {n.replace("-", ""): s for n, s in schemas.items()}
        for name, described in schema["components"]["schemas"].items():
            described["title"] = name
            _describe(name, described)
        _describe_parameters(paths)
        _remove_hyphens(schema)
        schema["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "basic": {"type": "http", "scheme": "basic", "description": "token as password"},
            "token": {"type": "apiKey", "in": "header", "name": "Token"},
        }
        schema["tags"] = [{"name": name, "description": text} for name, text in GROUPS.items()]
        schema["security"] = [{}, {"bearer": []}, {"basic": []}, {"token": []}]
        app.openapi_schema = schema
    return app.openapi_schema


def _add_scopes(app: FastAPI, paths: dict[str, Any]) -> None:
    """Add to each operation the scope that its route declares, as `x-scope`."""
    for route in app.state.routes:
        needs = declared(route.dependencies) if isinstance(route, APIRoute) else None
        for method in route.methods or () if needs else ():
            operation = paths.get(route.path, {}).get(method.lower())
            if operation is not None and needs is not None:
                operation["x-scope"] = needs.scope
    for path in NATIVE:
        paths[path]["post"]["x-scope"] = USE
    for path in OPEN & paths.keys():
        for operation in paths[path].values():
            operation["security"] = []


def _bodies() -> APIRouter:
    """Temporary routes that are never called, one per body model in `BODIES`.

    FastAPI thus generates the schemas of these bodies together with all others, so that references
    and schema names are consistent.
    """
    router = APIRouter()
    for name, model in BODIES.items():
        _add(router, name, model)
    return router


def _add(router: APIRouter, name: str, model: type[BaseModel]) -> None:
    def read(body: Any) -> None: ...

    read.__annotations__ = {"body": model, "return": None}
    router.add_api_route(f"{BODY}{name}", read, methods=["POST"], name=f"body_{name}")


def _read_bodies(paths: dict[str, Any]) -> dict[str, str]:
    """Remove the routes of `_bodies` from the document.

    Returns:
        Name of the model to name of its component.
    """
    found = {}
    for path in [path for path in paths if path.startswith(BODY)]:
        body = paths.pop(path)["post"]["requestBody"]["content"]["application/json"]["schema"]
        found[path.removeprefix(BODY)] = body["$ref"].removeprefix(SCHEMAS)
    return found


def _refer(operation: dict[str, Any], bodies: dict[str, str]) -> None:
    """Replace the placeholder schemas of bodies by references to their components."""
    for content in operation.get("requestBody", {}).get("content", {}).values():
        if name := bodies.get(content["schema"].get("title", "")):
            content["schema"] = {"$ref": SCHEMAS + name}


def _forms(paths: dict[str, Any], bodies: dict[str, str]) -> set[str]:
    used = {
        content["schema"].get("$ref", "").removeprefix(SCHEMAS)
        for operations in paths.values()
        for operation in operations.values()
        for kind, content in operation.get("requestBody", {}).get("content", {}).items()
        if kind == MULTIPART
    }
    return {name for name, component in bodies.items() if component in used}


def _kinds(kind: type[RequestFields]) -> Iterator[type[RequestFields]]:
    for narrower in kind.__subclasses__():
        yield narrower
        yield from _kinds(narrower)


def _close(described: dict[str, Any], kind: type[RequestFields]) -> None:
    """State in a schema that unknown fields are refused, if the model refuses them."""
    if kind.unknown == "refuse":
        for name in sorted(kind.passed_over - described["properties"].keys()):
            described["properties"][name] = {"description": "has no effect"}
        described["additionalProperties"] = False


def _finish_body(described: dict[str, Any], needed: tuple[str, ...], form: bool) -> None:
    if needed:
        described["required"] = sorted({*described.get("required", ()), *needed})
    for name, schema in described.get("properties", {}).items():
        kinds = [one for one in schema.get("anyOf", []) if one != {"type": "null"}]
        if form and len(kinds) == 1:  # forms have no null, so fields are omitted
            del schema["anyOf"]
            schema.update({**kinds[0], **schema})
        if not form and name not in described.get("required", ()):
            schema = described["properties"][name] = _or_null(schema)
        if schema.get("format") == "binary":
            described["properties"][name] = schema | BINARY
        if schema.get("items", {}).get("format") == "binary":
            schema["items"] |= BINARY


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a field of `RequestFields`, in whose JSON null means that it is not given."""
    about = ("title", "description", "default", "examples")
    told: dict[str, Any] = {k: v for k, v in schema.items() if k in about or k.startswith("x-")}
    kinds = schema.get("anyOf") or [{k: v for k, v in schema.items() if k not in told}]
    null = {"type": "null"}
    return schema if {} in kinds else {"anyOf": [*(k for k in kinds if k != null), null], **told}


def _describe_readiness(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Give the 503 of `/readyz` its own schema: it lists what is missing."""
    schema = NotReadyAnswer.model_json_schema(ref_template=SCHEMAS + "{model}")
    schemas |= schema.pop("$defs") | {NotReadyAnswer.__name__: schema}
    reference = {"$ref": SCHEMAS + NotReadyAnswer.__name__}
    operation["responses"]["503"]["content"] = {"application/json": {"schema": reference}}


def _answer_errors(operation: dict[str, Any], probe: bool, writes: bool) -> None:
    """Add our error responses to an operation; remove FastAPI's 422, which never occurs."""
    responses = operation["responses"]
    responses.pop("422", None)
    content = {"application/json": {"schema": {"$ref": SCHEMAS + "ErrorAnswer"}}}
    statuses = (403, 429, 500, 503) if probe else EVERYWHERE
    if "requestBody" in operation:
        statuses = (*statuses, 413)
    if writes:
        statuses = (*statuses, 507)
    for status, listed in errors(*statuses).items():
        responses.setdefault(str(status), {"description": listed["description"]})
    for status, response in responses.items():
        if status >= "400":
            response["content"] = content
        for kind, described in response.get("content", {}).items():
            if not kind.startswith(("application/json", "text/")) and "schema" not in described:
                described["schema"] = {"type": "string", "format": "binary"}
    operation["responses"] = dict(sorted(responses.items()))


def _exclude_each_other(contents: dict[str, Any]) -> None:
    """State that the alternatives of a JSON answer exclude each other, also inside a list."""
    schema = contents["application/json"]["schema"]
    while "anyOf" in schema:
        schema["oneOf"] = schema.pop("anyOf")
        schema = next((one["items"] for one in schema["oneOf"] if "items" in one), {})


def _describe(name: str, schema: dict[str, Any]) -> None:
    """Add the glossary's descriptions to fields without a description."""
    for field, described in schema.get("properties", {}).items():
        if "x-group" not in described:  # the titles of forms are written for people
            described.pop("title", None)
        if "description" not in described:
            meaning = MEANINGS.get(f"{name}.{field}") or MEANINGS.get(field)
            if meaning is not None:
                described["description"] = meaning
        if "default" in described:
            _tell_default(described)


def _tell_default(described: dict[str, Any]) -> None:
    """Move a default value into the description.

    If a field has a `default`, openapi-typescript assumes that it is always present, and
    openapi-python-client always sends it.
    """
    default = described.pop("default")
    text = default if isinstance(default, str) else json.dumps(default)
    written = described.get("description", "")
    stated = f"({text})" in written or "default" in written
    if default not in (None, "", [], {}) and not stated:
        described["description"] = f"{written} (default: {text})"


def _describe_parameters(paths: dict[str, Any]) -> None:
    for operations in paths.values():
        for operation in operations.values():
            for parameter in operation.get("parameters", []):
                parameter.get("schema", {}).pop("title", None)
                written = parameter.get("schema", {}).get("description")
                meaning = written or MEANINGS.get(parameter["name"])
                if meaning is not None:
                    parameter.setdefault("description", meaning)


def _remove_hyphens(value: Any) -> None:
    """Remove the hyphens from the schema names in references (`Gate-Input`)."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            value["$ref"] = value["$ref"].replace("-", "")
        for part in value.values():
            _remove_hyphens(part)
    elif isinstance(value, list):
        for part in value:
            _remove_hyphens(part)


def _bentoml_paths() -> dict[str, Any]:
    """The paths of routes that FastAPI does not know: BentoML's native routes and the probes."""
    paths: dict[str, Any] = {
        "/predict": _native("predict", RECOGNISE, "/infer", NativeForm, "InferAnswer"),
        "/annotate": _native(
            "annotate", ANNOTATE, "/api/auto_annotate", NativeAnnotateForm, "AnnotateAnswer"
        ),
    }
    for path, summary in PROBES.items():
        paths[path] = {
            "get": {
                "tags": [HEALTH],
                "summary": summary,
                "operationId": path.strip("/"),
                "responses": {"200": {"description": "Yes"}},
            }
        }
    return paths


def _native(name: str, tag: str, like: str, form: type[BaseModel], answer: str) -> dict[str, Any]:
    """The operation of a native route of BentoML, whose response is that of one of our routes."""
    content = {"application/json": {"schema": {"$ref": SCHEMAS + answer}}}
    listed = {str(s): {"description": r["description"]} for s, r in errors(404, 413).items()}
    operation = {
        "tags": [tag],
        "summary": name.capitalize(),
        "description": f"`{like}` for `bentoml.SyncHTTPClient(url).{name}(image=Path(...))`.",
        "operationId": name,
        **form_body(form),
        "responses": {"200": {"description": f"As of `{like}`", "content": content}, **listed},
    }
    return {"post": operation}


form_body(NativeForm), form_body(NativeAnnotateForm)
