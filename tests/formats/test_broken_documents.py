"""Whatever a document has in place of what it should have, it is read or refused: no other error
leaves a reader, and a refusal never tells Python's words."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errors import ValidationFailed
from formats.annotations import Annotation, AnnotationPart, Annotations, Keypoint
from formats.coco import from_coco, to_coco
from formats.cvat_xml import from_cvat_xml
from formats.cvat_xml_writer import to_cvat_xml
from formats.label_studio import from_label_studio, to_label_studio
from formats.label_studio_images import images_of
from formats.labelme import from_labelme, to_labelme
from formats.voc import from_voc, to_voc
from tests.support.examples import EXAMPLES

SQUARE = ((1.0, 1.0), (6.0, 1.0), (6.0, 6.0), (1.0, 6.0))
HOLE = ((2.0, 2.0), (2.0, 4.0), (4.0, 4.0), (4.0, 2.0))
BOXES = (
    Annotation("dog", box=(1, 2, 12, 9)),
    Annotation("cat", parts=(AnnotationPart(SQUARE, (HOLE,)),)),
)
POSE = Annotation(
    "dog", box=(0, 0, 9, 9), keypoints=(Keypoint("nose", 5, 6, 1), Keypoint("tail", 7, 8))
)
FOUND = Annotations("a.jpg", 20, 10, (*BOXES, POSE))
CLASS = Annotation("night")

COCO = to_coco([FOUND, Annotations("b.jpg", 9, 9)], ("dog", "cat"), ("nose", "tail"))
LABELME = to_labelme(Annotations("a.jpg", 20, 10, (*FOUND.objects, CLASS)))
REGIONS = to_label_studio(Annotations("a.jpg", 20, 10, (*FOUND.objects, CLASS)))
TASK = {"data": {"image": "a.jpg", "pages": ["b.jpg"]}, "result": REGIONS}
VOC = to_voc(Annotations("a.jpg", 20, 10, BOXES))
CVAT = to_cvat_xml([FOUND, Annotations("b.jpg", 9, 9, (CLASS,))], ("dog", "cat"), ("nose", "tail"))

JUNK: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([None, True, "", "x", "1", -1, 0, 2, 1e400, float("nan"), -0.5, [], {}, [[]]]),
    st.sampled_from(
        [[None], {"x": 1}, "1e999", 10**30, [1, 2], [[1, 2]], ["a"], "\ud800", "9" * 40]
    ),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
)
PYTHON = re.compile(
    r"KeyError|TypeError|ValueError|unhashable|NoneType|not subscriptable|object is not"
)


def refusal(read: Callable[[Any], Any], document: Any) -> str:
    """Why it is not read; empty: it is."""
    try:
        read(document)
    except ValidationFailed as error:
        return error.message
    return ""


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with each of its keys."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(pairs):
        yield value, key
        if isinstance(inner, dict | list):
            yield from places(inner)


@st.composite
def broken(draw: st.DrawFn, document: Any) -> Any:
    """A document of which one to three values are something else, or are not there."""
    made = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        all_places = list(places(made))
        if not all_places:
            break
        container, key = all_places[draw(st.integers(0, len(all_places) - 1))]
        if draw(st.booleans()) and isinstance(container, dict):
            del container[key]
        else:
            container[key] = copy.deepcopy(draw(JUNK))
    return made


def readers() -> list[tuple[str, Any, Callable[[Any], Any]]]:
    return [
        ("coco", COCO, from_coco),
        ("labelme", LABELME, from_labelme),
        ("label_studio", REGIONS, lambda rows: from_label_studio(rows, size=(20, 10))),
        ("its images", TASK, lambda task: images_of(task.get("data"), task.get("result") or [])),
    ]


@pytest.mark.properties
@pytest.mark.parametrize(("name", "document", "read"), readers(), ids=lambda v: str(v)[:12])
@given(data=st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_json_is_read_or_refused(
    name: str, document: Any, read: Callable[[Any], Any], data: st.DataObject
) -> None:
    given_document = data.draw(broken(json.loads(json.dumps(document))))
    assert not PYTHON.search(refusal(read, given_document))


VALUE = re.compile(r'(?<==")[^"]*(?=")|(?<=>)[^<>]+(?=<)|<(\w+)[^>]*/>')
TEXTS = st.one_of(
    st.sampled_from(
        ["", "x", "-1", "0", "1e400", "nan", "inf", "1.5", "9" * 40, "1,2", "1,2;3", ";"]
    ),
    st.text(st.characters(codec="ascii", exclude_characters='<>&"'), max_size=6),
)


@st.composite
def broken_xml(draw: st.DrawFn, text: str) -> str:
    """A document of which one to three texts, values or elements are others."""
    for _ in range(draw(st.integers(1, 3))):
        spots = list(VALUE.finditer(text))
        spot = spots[draw(st.integers(0, len(spots) - 1))]
        text = text[: spot.start()] + draw(TEXTS) + text[spot.end() :]
    return text


@pytest.mark.properties
@pytest.mark.parametrize(("text", "read"), [(VOC, from_voc), (CVAT, from_cvat_xml)])
@given(data=st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_xml_is_read_or_refused(text: str, read: Callable[[str], Any], data: st.DataObject) -> None:
    assert not PYTHON.search(refusal(read, data.draw(broken_xml(text))))
