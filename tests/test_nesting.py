"""The bound on nested values: no parser of client bytes recurses further."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from errors import ValidationFailed
from nesting import DEEPEST, MOST_NODES, check_json_depth, check_json_values, check_yaml_size
from tests.support.examples import EXAMPLES

DEEP = [
    "[" * 50_000,
    "[" * 101 + "]" * 101,
    '{"a":' * 101 + "1" + "}" * 101,
    '[{"]":' * 51 + "1" + "}]" * 51,
    '{"a\\"]":' * 101 + "1" + "}" * 101,
    '["\\\\",' * 101 + "1" + "]" * 101,
    '{"\\\\\\"}": ' * 101 + "1" + "}" * 101,
]
FLAT = [
    "[" * 100 + "]" * 100,
    json.dumps([[[1, 2]]] * 1000),
    json.dumps({"a": "[" * 1000, "b": "{" * 1000}),
    json.dumps(["[\\", '"[', '\\"[' * 500]),
    "",
    "x",
    "\ud800",
]


@pytest.mark.parametrize("text", DEEP, ids=range(len(DEEP)))
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32-le"])
def test_deep_json_is_refused(text: str, encoding: str) -> None:
    for data in (text, text.encode(encoding)):
        with pytest.raises(ValidationFailed, match="The body has more than 100 levels"):
            check_json_depth(data, "The body")


@pytest.mark.parametrize("text", FLAT, ids=range(len(FLAT)))
def test_flat_json_passes(text: str) -> None:
    check_json_depth(text, "The body")
    check_json_depth(text.encode("utf-8", "surrogatepass"), "The body")


@pytest.mark.parametrize(
    ("data", "refused"),
    [
        (b"[" + b"1," * 100 + b"1]", False),
        (b"[" + b"1," * 101 + b"1]", True),
        (b"[" + b"[]," * 49 + b"1]", False),
        (b"[" + b"[]," * 50 + b"1]", True),
        (b"[" + b'{"a":1},' * 50 + b"1]", True),
        (b'"' + b"QUJD+/=" * 1000 + b'"', False),
    ],
)
def test_the_values_of_a_document_are_counted(data: bytes, refused: bool) -> None:
    if not refused:
        check_json_values(data, 100, "The body")
        return
    with pytest.raises(ValidationFailed, match="100 values, or more than 50 lists and objects"):
        check_json_values(data, 100, "The body")


def depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(depth, inner), default=0) if isinstance(value, dict | list) else 0


def nested(most: int) -> st.SearchStrategy[Any]:
    def wrap(pair: tuple[Any, list[bool]]) -> Any:
        value, kinds = pair
        for mapping in kinds:
            value = {'k"[\\': value} if mapping else [value, "]"]
        return value

    leaf = st.text('"\\[]{}a', max_size=6) | st.integers() | st.none()
    return st.tuples(leaf, st.lists(st.booleans(), max_size=most)).map(wrap)


@pytest.mark.properties
@given(nested(130))
@settings(max_examples=EXAMPLES)
def test_the_levels_are_counted_as_the_parser_nests_them(value: Any) -> None:
    text = json.dumps(value)
    try:
        check_json_depth(text, "It")
        refused = False
    except ValidationFailed:
        refused = True
    assert refused == (depth(value) > DEEPEST)
    try:
        check_yaml_size(text, yaml.CBaseLoader, "It")
        refused = False
    except ValidationFailed:
        refused = True
    assert refused == (depth(value) > DEEPEST)


def test_values_of_a_yaml_are_counted_with_aliases() -> None:
    text = f"a: &a [{'x,' * 1000}]\nb: [{'*a,' * (MOST_NODES // 1001 + 1)}]\n"
    with pytest.raises(ValidationFailed, match="1,000,000 values"):
        check_yaml_size(text, yaml.CBaseLoader, "data.yaml")
    check_yaml_size("a: &a [x, y]\nb: [*a, *a]\nc: *a\n", yaml.CBaseLoader, "data.yaml")
