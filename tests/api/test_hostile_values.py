"""Whatever a client writes in place of a value, in any route: an answer of ours, never a 500.

Every operation of the OpenAPI document, every field, parameter and body.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import pytest

from errors import BackendUnavailable
from inference.prediction import InferenceItem
from tests.support.api_document import described
from tests.support.correction_app import drawn, packed, street
from tests.support.training_app import Service

LONG = "a" * 5000
DEEP = 50_000
JSON_VALUES = {  # name → JSON text
    "NaN": "NaN",
    "Infinity": "Infinity",
    "-Infinity": "-Infinity",
    "1e999": "1e999",
    "a lone surrogate": '"\\ud800"',
    "a surrogate in a path": '"/tmp/\\udfff/x"',
    "NUL": '"\\u0000"',
    "5,000 letters": json.dumps(LONG),
    "a path of 5,000 letters": json.dumps("/" + LONG),
    "a URL of a port that cannot be": '"http://example.com:99999/a.jpg"',
    "a URL that is none": '"http://[::1/a.jpg"',
    "5,000 digits": "9" * 5000,
    "400 digits": "9" * 400,
    "-400 digits": "-" + "9" * 400,
    "2^63": str(2**63),
    "deep lists": "[" * DEEP + "]" * DEEP,
    "deep objects": '{"a":' * DEEP + "1" + "}" * DEEP,
    "900 lists": "[" * 900 + "]" * 900,
    "99 lists": "[" * 98 + "]" * 98,
    "null": "null",
    "true": "true",
    "empty": '""',
    "a list": "[]",
    "an object": "{}",
    "a list of everything": '[null, NaN, "\\ud800", {"\\ud800": [1e999]}, -1, 0.5, "x"]',
    "an object of everything": '{"\\ud800": NaN, "id": "\\u0000", "data": {"x": NaN}, "": null}',
    "minus one": "-1",
    "a half": "0.5",
    "a text": '"x"',
    "an emoji": '"\\ud83d\\ude00"',
}
TEXT_VALUES = {  # name → bytes of a form's field, a query or a path
    "NaN": b"NaN",
    "Infinity": b"-Infinity",
    "1e999": b"1e999",
    "a lone surrogate": b"\xed\xa0\x80",
    "not UTF-8": b"\xff\xfe\x80",
    "NUL": b"a\0b",
    "5,000 letters": LONG.encode(),
    "a path of 5,000 letters": b"/" + LONG.encode(),
    "a URL of a port that cannot be": b"http://example.com:99999/a.jpg",
    "a URL that is none": b"http://[::1/a.jpg",
    "5,000 digits": b"9" * 5000,
    "400 digits": b"-" + b"9" * 400,
    "2^63": b"9223372036854775808",
    "deep lists": b"[" * DEEP,
    "deep objects": b'{"a":' * 10_000,
    "JSON": b'{"accept": NaN, "review": "\\ud800"}',
    "empty": b"",
    "minus one": b"-1",
    "a line": b"x\r\ny",
    "Arabic digits": "٣".encode(),
}
BODIES = {  # name → a whole JSON body
    "nothing": b"",
    "NaN": b"NaN",
    "null": b"null",
    "a list": b"[]",
    "a number": b"1",
    "a lone surrogate": b'"\\ud800"',
    "a lone surrogate as a key": b'{"\\ud800": 1}',
    "NUL as a key": b'{"\\u0000": 1}',
    "a key of 5,000 letters": json.dumps({LONG: 1}).encode(),
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "UTF-16": '{"a": "b"}'.encode("utf-16"),
    "deep lists": b"[" * DEEP,
    "deep objects": b'{"a":' * DEEP,
    "a deep field": b'{"a":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "cut off": b'{"a": "',
    "twice": b'{"a": 1, "a": NaN}',
    "10,000 keys": json.dumps({f"k{i}": i for i in range(10_000)}).encode(),
}
FORMS = {  # name → content type, body
    "no boundary": (b"multipart/form-data", b"x"),
    "an empty boundary": (b"multipart/form-data; boundary=", b"x"),
    "a boundary that is not ASCII": ("multipart/form-data; boundary=ü".encode(), b"x"),
    "cut off": (b"multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data; na"),
    "no name": (b"multipart/form-data; boundary=b", b"--b\r\nA: b\r\n\r\nx\r\n--b--\r\n"),
    "10,000 headers": (
        b"multipart/form-data; boundary=b",
        b"--b\r\n" + b"A: b\r\n" * 10_000 + b"\r\nx\r\n--b--\r\n",
    ),
    "a header of 5,000 letters": (
        b"multipart/form-data; boundary=b",
        b'--b\r\nContent-Disposition: form-data; name="'
        + LONG.encode()
        + b'"\r\n\r\nx\r\n--b--\r\n',
    ),
    "1,000 fields": (
        b"multipart/form-data; boundary=b",
        b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n' * 1000 + b"--b--\r\n",
    ),
    "damaged": (b"multipart/form-data; boundary=b", b"--b\r\n:\r\n\r\n--b--"),
    "percent": (b"application/x-www-form-urlencoded", b"a=%ED%A0%80&%00=%zz&" + b"b=1&" * 500),
    "another charset": (b"multipart/form-data; boundary=b; charset=utf-7", b"--b--\r\n"),
}
HEADERS = (
    "Content-Length", "Content-Type", "Accept", "Accept-Encoding", "Authorization", "Token",
    "Cookie", "Origin", "Host", "Range", "If-None-Match", "If-Modified-Since", "Last-Event-ID",
    "X-Forwarded-Prefix", "X-Forwarded-For", "X-Forwarded-Proto", "Access-Control-Request-Method",
)  # fmt: skip
HEADER_VALUES = {
    "digits that are not ASCII": "٣".encode(),
    "Latin-1": b"\xe9\xff",
    "a list": b"a;q=NaN, */*;q=1e999, ,;=",
    "a range": b"bytes=" + b"0-," * 1000,
    "base64": b"Basic ////",
    "commas": b"," * 4000,
}
ROUTES = (  # that are tried with headers
    ("GET", "/"), ("GET", "/metrics"), ("GET", "/models"), ("POST", "/infer"), ("POST", "/train"),
    ("OPTIONS", "/models"), ("HEAD", "/docs"),
)  # fmt: skip
BENTOML = ("/predict", "/annotate", "/livez", "/readyz")


class Nobody:
    """In the runners' place: they are restarting."""

    up = False

    async def predict(self, item: InferenceItem) -> None:
        raise BackendUnavailable("The runner is being restarted.", 1)

    async def status(self) -> None:
        raise BackendUnavailable("The runner is being restarted.", 1)

    warm = unload = status


class Tried(NamedTuple):
    """A request: its description, and what httpx sends."""

    what: str
    method: str
    address: str
    content: bytes = b""
    kind: bytes = b""
    header: tuple[str, bytes] | None = None


def operations() -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    document = described()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if path not in BENTOML:
                yield method.upper(), path, operation, document


def fields_of(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    found: dict[str, Any] = dict(schema.get("properties", {}))
    for one in [*schema.get("anyOf", []), *schema.get("oneOf", []), *schema.get("allOf", [])]:
        found |= fields_of(one, document)
    return found


def filled(path: str, text: str = "x") -> str:
    parts = path.split("/")
    return "/".join(text if part.startswith("{") else part for part in parts)


def valid(service: Service, known: dict[str, Any]) -> dict[str, str]:
    """Values, as JSON text, with which a request goes as far as it can."""
    data = json.dumps(str(service.data))
    good = {
        "data_path": data, "dataset_path": data, "dataset": data, "base_model_path": '"n"',
        "teacher_model_path": '"n"', "model_id": '"n"', "tool": '"object_detection"',
        "fraction": "1", "tasks": "[]", "action": '"PROJECT_UPDATED"', "parameters": "{}",
        "project": '{"id": 1}', "image_base64": '"AAAA"', "project_id": '"1"',
    }  # fmt: skip
    return {name: good[name] for name in known if name in good}


def as_json(values: dict[str, str]) -> bytes:
    pairs = ", ".join(f"{json.dumps(name)}: {text}" for name, text in values.items())
    return f"{{{pairs}}}".encode()


def as_form(values: dict[str, bytes], file: tuple[str, bytes, bytes] | None) -> bytes:
    parts = [
        b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), value)
        for name, value in values.items()
    ]
    if file is not None:
        name, called, data = file
        head = b'--b\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n\r\n%s\r\n'
        parts.append(head % (name.encode(), called, data))
    return b"".join(parts) + b"--b--\r\n"


def of_json(service: Service) -> Iterator[Tried]:
    for method, path, operation, document in operations():
        contents = operation.get("requestBody", {}).get("content", {})
        if "application/json" not in contents:
            continue
        known = fields_of(contents["application/json"]["schema"], document)
        for name in known:
            for kind in JSON_VALUES:
                body = as_json(valid(service, known) | {name: JSON_VALUES[kind]})
                what = f"{method} {path}: {name} is {kind}"
                yield Tried(what, method, filled(path), body, b"application/json")
        for kind, body in BODIES.items():
            what = f"{method} {path}: the body is {kind}"
            yield Tried(what, method, filled(path), body, b"application/json")


def of_forms(service: Service) -> Iterator[Tried]:
    image, archive = drawn(0), packed(street({"train/a.png": 0, "val/b.png": 1}))
    for method, path, operation, document in operations():
        contents = operation.get("requestBody", {}).get("content", {})
        if "multipart/form-data" not in contents:
            continue
        known = fields_of(contents["multipart/form-data"]["schema"], document)
        file = next((name for name in ("image", "file") if name in known), None)
        data = image if file == "image" else archive
        good = {name: json.loads(text) for name, text in valid(service, known).items()}
        sent = {name: str(value).encode() for name, value in good.items() if name != file}
        for name in known:
            for kind in TEXT_VALUES:
                part = (file, b"a.zip", data) if file and name not in (file, "image_url") else None
                body = as_form(sent | {name: TEXT_VALUES[kind]}, part)
                what = f"{method} {path}: {name} is {kind}"
                yield Tried(what, method, filled(path), body, b"multipart/form-data; boundary=b")
        for kind, called in TEXT_VALUES.items():
            if file and len(called) < 10_000:
                body = as_form(sent, (file, called, b"x"))
                what = f"{method} {path}: the file's name is {kind}"
                yield Tried(what, method, filled(path), body, b"multipart/form-data; boundary=b")
        for kind, (type_, body) in FORMS.items():
            yield Tried(f"{method} {path}: a form with {kind}", method, filled(path), body, type_)


def of_addresses(service: Service) -> Iterator[Tried]:
    for method, path, operation, _ in operations():
        for parameter in operation.get("parameters", []):
            for kind in TEXT_VALUES:
                text = TEXT_VALUES[kind][:8000]
                what = f"{method} {path}: {parameter['name']} is {kind}"
                if parameter["in"] == "query":
                    address = f"{filled(path)}?{parameter['name']}={quote(text, safe='')}"
                elif parameter["in"] == "path" and text:
                    address = filled(path, quote(text, safe=""))
                else:
                    continue
                yield Tried(what, method, address)


def of_headers() -> Iterator[Tried]:
    values = TEXT_VALUES | HEADER_VALUES
    for method, path in ROUTES:
        for name in HEADERS:
            for kind, value in values.items():
                if not set(b"\r\n\0") & set(value):
                    what = f"{method} {path}: {name} is {kind}"
                    yield Tried(what, method, path, header=(name, value[:8000]))


@asynccontextmanager
async def client_of(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(service.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


def try_all(service: Service, requests: Iterator[Tried]) -> int:
    """Send every request; the number of them. The answers that are not sound fail the test."""
    wrong: list[str] = []
    count = 0

    async def run() -> None:
        nonlocal count
        async with client_of(service) as client:
            for tried in requests:
                headers = {b"Content-Type": tried.kind} if tried.kind else {}
                if tried.header is not None:
                    headers = {tried.header[0].encode(): tried.header[1]}
                request = client.build_request(
                    tried.method, tried.address, content=tried.content, headers=headers
                )
                count += 1
                async with asyncio.timeout(60):
                    answer = await client.send(request, stream=True)
                    if answer.headers.get("content-type", "").startswith("text/event-stream"):
                        await answer.aclose()
                        continue
                    await answer.aread()
                if fault := fault_of(answer):
                    wrong.append(f"{tried.what}: {answer.status_code} {fault}")

    asyncio.run(run())
    assert not wrong, "\n".join([f"{len(wrong)} of {count} answers", *wrong[:40]])
    return count


def fault_of(answer: httpx.Response) -> str:
    """What is wrong with an answer; empty: nothing."""
    if answer.status_code >= 500 and answer.status_code != BackendUnavailable.status:
        return answer.text[:300]
    if answer.status_code < 400:
        return ""
    if answer.request.method == "HEAD":
        return ""
    try:
        body = answer.json()
    except ValueError:
        return f"no JSON: {answer.text[:100]!r}"
    usual = {"error", "code", "message", "detail", "request_id"}
    if not isinstance(body, dict) or not body.keys() >= usual:
        return f"not the usual body: {str(body)[:200]}"
    if len(body["message"]) > 6000:
        return f"a message of {len(body['message'])} characters: {body['message'][:200]}"
    return ""


@pytest.fixture
def hostile(service: Service, monkeypatch: pytest.MonkeyPatch) -> Service:
    runners = {"detector": Nobody(), "annotator": Nobody()}
    settings = service.gateway.settings.model_copy(update={"image_url": "public"})
    monkeypatch.setattr(service.gateway, "runners", runners)
    monkeypatch.setattr(service.gateway, "settings", settings)
    return service


def test_no_value_in_json_breaks_a_route(hostile: Service) -> None:
    assert try_all(hostile, of_json(hostile)) > 2000


def test_no_value_in_a_form_breaks_a_route(hostile: Service) -> None:
    assert try_all(hostile, of_forms(hostile)) > 300


def test_no_value_in_an_address_breaks_a_route(hostile: Service) -> None:
    assert try_all(hostile, of_addresses(hostile)) > 1000


def test_no_value_in_a_header_breaks_a_route(hostile: Service) -> None:
    assert try_all(hostile, of_headers()) > 2000
