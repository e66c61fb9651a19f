"""Names, ids and paths that no file system takes, in every text of every route."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from api.training_fields import FIELDS_OF_MODE
from tests.support.api_document import described
from tests.support.training_app import Service

HOSTILE = {
    "4,000 letters": "a" * 4000,
    "5,000 letters": "/" + "b" * 5000,
    "a path of 4,000 bytes": "/" + "c/" * 2000,
    "a name of 300 bytes": "/tmp/" + "d" * 300,
    "Chinese, 1,500 letters": "/" + "图" * 1500,
    "a null byte": "/tmp/\0x",
    "half a surrogate pair": "/tmp/\ud800",
    "memory": "/proc/self/mem",
    "below a file": "/etc/hostname/x",
    "a device": "/dev/zero",
    "a folder": "/tmp",
    "dots": "../../../../etc/passwd",
    "a line": "x\ny",
}
PATHS = {
    "data_path", "dataset_path", "dataset", "old_data_path", "base_model_path", "resume_weights",
    "teacher_model_path", "model_id", "model_type", "dir",
}  # fmt: skip


def operations() -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    document = described()
    for path, methods in document["paths"].items():
        if path not in ("/predict", "/annotate", "/livez", "/readyz"):  # BentoML's own
            for method, operation in methods.items():
                yield method.upper(), path, operation, document


def properties(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    found: dict[str, Any] = schema.get("properties", {})
    return found


def texts(schema: dict[str, Any]) -> bool:
    kinds = [schema, *schema.get("anyOf", [])]
    return any(kind.get("type") == "string" and "format" not in kind for kind in kinds)


def base(service: Service, name: str) -> Any:
    """What makes a request go as far as it can."""
    known = {
        "data_path": str(service.data),
        "dataset_path": str(service.data),
        "dataset": str(service.data),
        "base_model_path": "n",
        "teacher_model_path": "n",
        "model_id": "n",
        "tool": "object_detection",
        "fraction": 1,
        "tasks": [],
        "action": "PROJECT_UPDATED",
        "parameters": {},
    }
    return known.get(name)


def sound(answer: httpx.Response, what: str) -> None:
    assert answer.status_code < 500, f"{what}: {answer.status_code} {answer.text[:300]}"
    if answer.status_code >= 400:
        assert set(answer.json()) == {"error", "code", "message", "detail", "request_id"}, what
        assert len(answer.json()["message"]) < 6000, what


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_address_breaks_a_route(service: Service, kind: str) -> None:
    said = quote(HOSTILE[kind].encode("utf-8", "surrogatepass"), safe="")
    tried = 0
    for method, path, operation, _ in operations():
        for parameter in operation.get("parameters", []):
            if parameter["in"] not in ("path", "query"):
                continue
            address = path
            for other in operation["parameters"]:
                if other["in"] == "path":
                    text = said if other is parameter else "x"
                    address = address.replace(f"{{{other['name']}}}", text)
            if parameter["in"] == "query":
                address += f"?{parameter['name']}={said}"
            if len(address) > 60_000:
                continue
            answer = service.call(service.app, method, address)
            sound(answer, f"{method} {path} {parameter['name']}")
            tried += 1
    assert tried > 60


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_text_of_a_body_breaks_a_route(service: Service, kind: str) -> None:
    tried = set()
    for method, path, operation, document in operations():
        contents = operation.get("requestBody", {}).get("content", {})
        if "application/json" not in contents:
            continue
        known = properties(contents["application/json"]["schema"], document)
        address = path.replace("{", "").replace("}", "")
        for name, schema in known.items():
            if not texts(schema):
                continue
            required = {n: base(service, n) for n in known if base(service, n) is not None}
            answer = service.call(
                service.app,
                method,
                address,
                content=json.dumps(required | {name: HOSTILE[kind]}).encode(),
                headers={"Content-Type": "application/json"},
            )
            sound(answer, f"{method} {path} {name}")
            mode = path.rpartition("/")[2].replace("-", "_")
            others = set().union(*FIELDS_OF_MODE.values()) - FIELDS_OF_MODE.get(mode, set())
            passed = path.startswith("/api/training/") and name in others
            if name in PATHS and not passed and answer.status_code < 400:
                pytest.fail(f"{method} {path} took {kind} for {name}: {answer.text[:200]}")
            tried.add((path, name))
    assert len(tried) > 30, tried


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize(
    "path",
    ["/infer", "/api/auto_annotate", "/models/import", "/api/datasets", "/api/auto_annotate/batch",
     "/api/datasets/x/annotations"],
)  # fmt: skip
def test_no_text_of_a_form_breaks_a_route(service: Service, path: str, kind: str) -> None:
    document = described()
    address = path.replace("/x/", "/{dataset_id}/")
    contents = document["paths"][address]["post"]["requestBody"]["content"]
    known = properties(contents["multipart/form-data"]["schema"], document)
    text = HOSTILE[kind].encode("utf-8", "surrogatepass")
    for name in [name for name, schema in known.items() if texts(schema)]:
        part = (
            b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
            b'--b\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n\r\nx\r\n--b--\r\n'
        ) % (name.encode(), text, b"image" if "image" in known else b"file", text[:2000])
        answer = service.call(
            service.app,
            "POST",
            path,
            content=part,
            headers={"Content-Type": "multipart/form-data; boundary=b"},
        )
        sound(answer, f"POST {path} {name}")
