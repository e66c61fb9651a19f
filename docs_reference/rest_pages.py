"""The REST calls and the schemas of their bodies and answers, from the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from api.app import create_app
from api.openapi import document
from docs_reference.markdown import code, table
from serving.gateway import Gateway

HEAD = """# REST

A running server describes its API: `/openapi.json` has the content of this page for programs,
`/docs` (Swagger UI) and `/redoc` show it to people. Coordinates are pixels of the image after its
EXIF rotation, origin top-left. Times are ISO 8601 in UTC; durations are milliseconds. A model's
id is `name:version`; a request may send the name alone. Every error is [an object with a
code](errors.md); 400, 401, 403, 429, 500, 503 and 504 can come from every call and are not
repeated below.

A token is sent as `Authorization: Bearer …`, as `Token: …`, or as the password of HTTP Basic. Each
call has the [scope](scopes.md) that the token needs, `x-scope` in the document.

"""

SCHEMAS_HEAD = """# Schemas

The bodies of the requests and answers of the [REST calls](rest.md). A field in bold is required in
a request, and always present in an answer.

"""

EVERYWHERE = {"400", "401", "403", "429", "500", "503", "504"}
PREFIX = "#/components/schemas/"


def described() -> dict[str, Any]:
    """The OpenAPI document, made without a server: making it does not need the gateway."""
    return document(create_app(cast(Gateway, None)))


def calls(described: dict[str, Any]) -> str:
    """Every call by tag: parameters, body, answers."""
    by_tag: dict[str, list[str]] = {}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            text = _call(f"{method.upper()} {path}", operation)
            by_tag.setdefault(operation["tags"][0], []).append(text)
    return HEAD + "".join(f"## {tag}\n\n" + "".join(texts) for tag, texts in by_tag.items())


def schemas(described: dict[str, Any]) -> str:
    """The page of the schemas, with one section per component."""
    names = sorted(described["components"]["schemas"])
    return SCHEMAS_HEAD + "".join(f"## {name}\n\n{fields(described, name)}\n" for name in names)


def fields(described: dict[str, Any], name: str) -> str:
    """A table of the fields of a component, with their types and descriptions."""
    schema = described["components"]["schemas"][name]
    text = f"{schema['description'].strip()}\n\n" if schema.get("description") else ""
    required = set(schema.get("required", ()))
    rows = [
        (f"**{code(field)}**" if field in required else code(field), kind(one), meaning(one))
        for field, one in schema.get("properties", {}).items()
    ]
    if not rows:
        return text + f"{kind(schema)}\n"
    return text + table(("field", "type", "meaning"), rows)


def _call(name: str, operation: Mapping[str, Any]) -> str:
    lines = [f"### {code(name)}\n"]
    if scope := operation.get("x-scope"):
        lines.append(f"Scope: [{code(scope)}](scopes.md).\n")
    if said := operation.get("description") or operation.get("summary"):
        lines.append(f"{said.strip()}\n")
    if parameters := operation.get("parameters"):
        rows = [
            (
                f"**{code(one['name'])}**" if one.get("required") else code(one["name"]),
                one["in"],
                kind(one["schema"]),
                one.get("description", ""),
            )
            for one in parameters
        ]
        lines.append(table(("parameter", "in", "type", "meaning"), rows))
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        lines.append(f"Body, {code(media)}: {kind(content.get('schema', {}))}\n")
    lines += ["Answers: " + "; ".join(_answers(operation["responses"])) + ".\n"]
    return "\n".join(lines) + "\n"


def _answers(responses: Mapping[str, Any]) -> Iterator[str]:
    for status, answer in responses.items():
        if status in EVERYWHERE:
            continue
        if int(status) >= 400:
            yield f"{status} " + ", ".join(map(code, answer["description"].split(", ")))
            continue
        kinds = [
            f"{kind(content['schema'])} ({media})"
            if media != "application/json" and "schema" in content
            else kind(content.get("schema", {})) or media
            for media, content in answer.get("content", {}).items()
        ]
        yield f"**{status}** " + (" or ".join(kinds) or answer["description"])


def kind(schema: Mapping[str, Any]) -> str:
    """A type in words; components are links."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(PREFIX)
        return f"[{name}](schemas.md#{name.lower()})"
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            kinds = dict.fromkeys(kind(one) for one in schema[several])
            return " or ".join(one for one in kinds if one)
    if "enum" in schema:
        return " · ".join(map(code, schema["enum"]))
    if "const" in schema:
        return code(schema["const"])
    if schema.get("type") == "array":
        return f"list of {kind(schema['items'])}" if schema.get("items") else "list"
    if schema.get("contentMediaType") or schema.get("format") == "binary":
        return "file"
    named = schema.get("type", "")
    words = " or ".join(named) if isinstance(named, list) else str(named)
    return ", ".join([words, *_bounds(schema)]) if words else "any value"


def _bounds(schema: Mapping[str, Any]) -> Iterator[str]:
    signs = {
        "minimum": "at least",
        "maximum": "at most",
        "exclusiveMinimum": "above",
        "exclusiveMaximum": "below",
        "minLength": "characters at least",
        "maxLength": "characters at most",
    }
    for key, words in signs.items():
        if key in schema:
            yield f"{words} {schema[key]}"


def meaning(schema: Mapping[str, Any]) -> str:
    """The description of a field."""
    return str(schema.get("description", ""))
