"""The body's schema of each mode of training: enough to make a form from, and true."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator

from api.training_fields import FIELDS_OF_MODE, IGNORED_FIELDS, TrainingFields
from api.training_forms import FIELDS, FORMS, GROUPS, REQUIRED, SHOWN
from tests.support import api_document
from tests.support.training_app import FORM, Service
from training.planning import hyperparameters
from training.planning.recipe import Mode

PATHS: dict[Mode, str] = {
    "regular": "/api/training/regular",
    "freeze_strategy": "/api/training/freeze-strategy",
    "incremental": "/api/training/incremental",
    "distillation": "/api/training/distillation",
}


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    return api_document.described()


def schema_of(described: dict[str, Any], mode: Mode) -> dict[str, Any]:
    body = described["paths"][PATHS[mode]]["post"]["requestBody"]["content"]["application/json"]
    name = body["schema"]["$ref"].rpartition("/")[2]
    assert name == FORMS[mode].__name__
    found: dict[str, Any] = described["components"]["schemas"][name]
    return found


def shown(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The properties that a form has, without the null that stands for "not given"."""
    found = {}
    for name, about in schema["properties"].items():
        if "x-group" in about:
            kinds = [kind for kind in about.get("anyOf", [{}]) if kind != {"type": "null"}]
            found[name] = about | (kinds[0] if len(kinds) == 1 else {})
    return found


def every(described: dict[str, Any]) -> Iterator[tuple[Mode, str, dict[str, Any]]]:
    for mode in PATHS:
        for name, about in shown(schema_of(described, mode)).items():
            yield mode, name, about
            for inside, more in about.get("x-properties", {}).items():
                yield mode, inside, more


def test_every_field_has_a_place_in_the_forms() -> None:
    grouped = {name for fields in FIELDS.values() for name in fields}
    assert {*grouped, "hyper", "project"} == TrainingFields.model_fields.keys()
    assert FIELDS.keys() | hyperparameters.MEANINGS.keys() == set(GROUPS)
    meant = [name for fields in hyperparameters.MEANINGS.values() for name in fields]
    assert sorted(meant) == sorted(hyperparameters.NAMES)


@pytest.mark.parametrize("mode", PATHS)
def test_a_mode_shows_its_own_fields_the_most_important_first(
    described: dict[str, Any], mode: Mode
) -> None:
    schema = schema_of(described, mode)
    fields = shown(schema)
    others = frozenset().union(*FIELDS_OF_MODE.values()) - FIELDS_OF_MODE.get(mode, frozenset())
    assert fields.keys() == TrainingFields.model_fields.keys() - others - {"project"}
    simple = [name for name, about in fields.items() if not about["x-advanced"]]
    assert tuple(simple) == SHOWN[mode] == tuple(fields)[: len(simple)]
    assert len(simple) == 5
    assert schema["required"] == sorted(REQUIRED[mode])
    without = {name for name, about in schema["properties"].items() if "x-group" not in about}
    assert without == {*others, "project", *IGNORED_FIELDS}
    assert schema["additionalProperties"] is False


def test_every_field_can_be_shown(described: dict[str, Any]) -> None:
    seen = set()
    for mode, name, about in every(described):
        seen.add(name)
        assert about["title"], name
        assert about["description"], name
        assert about["x-group"] in GROUPS, name
        assert type(about["x-advanced"]) is bool, name
        assert about.get("type") in {"string", "integer", "number", "boolean", "object"} or (
            name == "new_classes"
        ), (mode, name)
    assert seen >= hyperparameters.NAMES


def test_bounds_and_defaults_are_those_that_the_server_has(described: dict[str, Any]) -> None:
    for mode in PATHS:
        for name, about in shown(schema_of(described, mode)).items():
            default = TrainingFields.model_fields[name].default
            assert about.get("x-default") == (default or None) or about["x-default"] == default
    fields = shown(schema_of(described, "distillation"))
    assert (fields["epochs"]["minimum"], fields["epochs"]["maximum"]) == (1, 100_000)
    assert fields["distill_temperature"]["exclusiveMinimum"] == 0
    assert fields["replay_ratio"]["maximum"] == 0.9
    lr0 = fields["hyper"]["x-properties"]["lr0"]
    assert (lr0["minimum"], lr0["maximum"], lr0["x-group"]) == (1e-6, 1, "Schedule")
    mosaic = fields["hyper"]["x-properties"]["mosaic"]
    assert (mosaic["x-families"], mosaic["x-tasks"]) == (["yolo"], ["detect", "segment", "pose"])


@pytest.mark.parametrize("mode", PATHS)
def test_the_body_of_the_old_form_is_one_that_the_schema_describes(
    described: dict[str, Any], mode: Mode
) -> None:
    """With numbers and lists where it has them; empty texts mean "not given"."""
    body = {name: value or None for name, value in FORM.items() if value not in (False, [])}
    body |= dict.fromkeys(REQUIRED[mode], "x")
    assert list(OAS31Validator(schema_of(described, mode)).iter_errors(body)) == []


@pytest.mark.parametrize("mode", ["regular", "freeze_strategy"])
def test_what_a_form_sends_is_taken(service: Service, mode: Mode) -> None:
    body = {"data_path": str(service.data), "task": "detect", "model_type": "n", "epochs": 3}
    answer = service.post(PATHS[mode], body | {"hyper": {"lr0": 0.01, "mosaic": 0.5}})
    assert answer.status_code == 200, answer.text
