"""The OpenAPI document: valid, complete, and good to generate clients from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from api.groups import GROUPS, HEALTH, RECOGNISE
from api.openapi import OPERATIONS
from tests.support import api_document

LONGEST = 30  # letters of an operation's id


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    return api_document.described()


def operations(described: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def walk(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for part in value.values():
            yield from walk(part)
    elif isinstance(value, list):
        for part in value:
            yield from walk(part)


def test_it_is_valid(described: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(described).validate()


def test_every_reference_leads_to_a_component(described: dict[str, Any]) -> None:
    known = {f"#/components/schemas/{name}" for name in described["components"]["schemas"]}
    used = {part["$ref"] for part in walk(described) if isinstance(part.get("$ref"), str)}
    assert used <= known
    assert not any("$defs" in part for part in walk(described))
    assert known - used <= set(), "components that nothing uses"


def test_operations_have_short_ids_of_their_own(described: dict[str, Any]) -> None:
    ids = Counter(operation["operationId"] for _, operation in operations(described))
    assert [name for name, count in ids.items() if count > 1] == []
    assert [
        name for name in ids if not re.fullmatch(rf"[a-z][a-z0-9_]{{3,{LONGEST - 1}}}", name)
    ] == []
    assert {"infer", "infer_base64", "train_regular", "auto_annotate", "predict"} <= set(ids)
    named = {label for label, _ in operations(described)}
    assert set(OPERATIONS) <= named, "ids of routes that are not there"


def test_every_operation_says_what_it_is(described: dict[str, Any]) -> None:
    for label, operation in operations(described):
        assert operation.get("summary"), label
        assert operation.get("tags"), label
        for parameter in operation.get("parameters", []):
            assert parameter.get("description"), f"{label} {parameter['name']}"


def test_every_field_is_described(described: dict[str, Any]) -> None:
    bare = [
        f"{name}.{field}"
        for name, schema in described["components"]["schemas"].items()
        for field, about in schema.get("properties", {}).items()
        if not about.get("description")
    ]
    assert bare == []


def test_titles_are_the_names_of_components(described: dict[str, Any]) -> None:
    for name, schema in described["components"]["schemas"].items():
        assert schema["title"] == name
        assert re.fullmatch(r"[A-Z][A-Za-z0-9]+", name), name
        snake = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
        assert snake not in schema.get("properties", {}), f"{name} has a field of its own name"


def test_files_are_binary(described: dict[str, Any]) -> None:
    found = {}
    for label, operation in operations(described):
        form = operation.get("requestBody", {}).get("content", {}).get("multipart/form-data")
        if form:
            name = form["schema"]["$ref"].rpartition("/")[2]
            fields = described["components"]["schemas"][name]["properties"]
            files = [
                name
                for name, schema in fields.items()
                if "binary" in (schema.get("format"), schema.get("items", {}).get("format"))
            ]
            found[label] = files
            for schema in fields.values():
                assert {"type": "null"} not in schema.get("anyOf", []), "a form has no null"
    assert all(len(files) == 1 for files in found.values()), found
    assert len(found) >= 8


def test_every_error_has_our_form(described: dict[str, Any]) -> None:
    form = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}}
    for label, operation in operations(described):
        refusals = {s: r for s, r in operation["responses"].items() if s >= "400"}
        assert "422" not in refusals, label
        probe = operation["tags"] == [HEALTH]
        assert refusals.keys() >= (
            {"403", "500"} if probe else {"400", "401", "403", "429", "500"}
        ), label
        for status, response in refusals.items():
            if (label, status) == ("GET /readyz", "503"):  # it lists what is missing as well
                reference = {"$ref": "#/components/schemas/NotReadyAnswer"}
                assert response["content"]["application/json"]["schema"] == reference
            else:
                assert response["content"] == form, label


def test_every_answer_has_a_content_with_a_schema(described: dict[str, Any]) -> None:
    for label, operation in operations(described):
        for status, response in operation["responses"].items():
            assert response.get("description"), label
            if status not in ("204", "304") and operation["tags"] != [HEALTH]:
                assert response.get("content"), f"{label} {status}"


def test_groups_are_described_and_recognising_images_comes_first(described: dict[str, Any]) -> None:
    used = {tag for _, operation in operations(described) for tag in operation["tags"]}
    listed = {group["name"]: group["description"] for group in described["tags"]}
    assert used == listed.keys() == GROUPS.keys()
    assert all(re.fullmatch(r"[A-Z].{15,90}\.", text) for text in listed.values())
    assert next(iter(listed)) == RECOGNISE
    assert next(iter(described["paths"])) == "/infer"


def test_infer_answers_one_image_many_or_a_picture(described: dict[str, Any]) -> None:
    responses = described["paths"]["/infer"]["post"]["responses"]
    content = responses["200"]["content"]
    assert set(content) == {"application/json", "image/jpeg", "image/png", "image/webp"}
    one, many = content.pop("application/json")["schema"]["oneOf"]
    assert one == {"$ref": "#/components/schemas/InferAnswer"}
    entries = many["items"]["oneOf"]
    assert [entry["$ref"].rpartition("/")[2] for entry in entries] == ["InferAnswer", "ErrorAnswer"]
    assert all(kind["schema"]["format"] == "binary" for kind in content.values())
    assert {"X-Model-Id", "X-Prediction-Count"} <= responses["200"]["headers"].keys()
    images = described["components"]["schemas"]["InferForm"]["properties"]["image"]
    assert (images["type"], images["maxItems"]) == ("array", 32)
    assert images["items"]["format"] == "binary"
