"""Whatever a document has in it, it is read or refused in our words."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotation.corrections.correction import CorrectionRules
from annotation.corrections.reader import read_correction
from annotation.image_records import ImageRecord
from dataset.documents.format_detection import names_in_json
from dataset.documents.reader import from_json, parse
from errors import VisionLoopError
from formats.annotations import Annotations
from tests.support.correction_app import BOX, coco, labelme, task
from tests.support.examples import EXAMPLES

pytestmark = pytest.mark.properties

NAMES = ("car", "person", "dog")
DOCUMENTS: list[Any] = [
    coco({"a.png": ["dog"], "b.png": []}),
    [coco({"a.png": ["dog"]})],
    [task("a.png"), task("b.png", None)],
    labelme("a.png"),
    [labelme("a.png"), labelme("b.png", None)],
    {"names": list(NAMES), "labels": {"a.png": f"0 {BOX}\n"}},
]
ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 0, -1, 1.5, 1e308, -1e400, float("nan"), 10**30, "", "x", "\ud800", "http://[a",
     "a" * 5000, [], {}, [[]], [{}], {"": None}, [None], {"id": []}, "0 0.5 0.5 0.1 0.1"]
).map(copy.deepcopy)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything in a document."""
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


@st.composite
def odd_documents(draw: st.DrawFn) -> Any:
    """A document with some of its values replaced, removed or added."""
    document = copy.deepcopy(draw(st.sampled_from(DOCUMENTS)))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(places(document))))
        if not path:
            return draw(ODD)
        holder = document
        for key in path[:-1]:
            holder = holder[key]
        change = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if change == "remove":
            del holder[path[-1]]
        elif change == "add" and isinstance(holder, list):
            holder.append(draw(ODD))
        else:
            holder[path[-1]] = draw(ODD)
    return document


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(odd_documents())
def test_an_odd_document_is_read_or_refused(document: Any) -> None:
    pictures = [
        ImageRecord(name, Path(name), Annotations(name, 64, 48), name)
        for name in ("a.png", "b.png")
    ]
    told = answered(document, pictures)
    json.dumps(told, ensure_ascii=False, allow_nan=False).encode()
    if "message" in told:
        assert told["code"] in ("VALIDATION_ERROR", "DATASET_INVALID")
        assert "Error" not in told["message"]
        assert "object has no attribute" not in told["message"]
    else:
        objects = told["accounting"]["objects"]
        assert objects["received"] == objects["stored"] + sum(objects["passed_over"].values())


def answered(document: Any, pictures: list[ImageRecord]) -> dict[str, Any]:
    try:
        parsed = parse(json.dumps(document).encode(), "The body")
        sent = from_json(parsed, None, NAMES, ())
        return read_correction(
            pictures, sent, CorrectionRules("x", NAMES, "detect", 10**6)
        ).to_json()
    except VisionLoopError as error:
        return error.to_json()


@pytest.mark.parametrize(
    ("document", "names"),
    [
        ({"categories": [{"id": 1, "name": "b"}, {"id": 0, "name": "a"}]}, ["a", "b"]),
        ({"categories": [{"id": 1, "name": "b"}]}, None),
        ({"categories": [{"id": [], "name": "b"}]}, None),
        ({"categories": [{"id": 0, "name": 5}]}, None),
        ({"categories": [{"id": 0, "name": "a"}], "images": []}, None),
        ({"categories": 5}, None),
    ],
)
def test_the_order_of_classes_in_a_note(document: Any, names: list[str] | None) -> None:
    assert names_in_json(Path("notes.json"), document) == names
