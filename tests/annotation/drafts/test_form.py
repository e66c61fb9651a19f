"""The console's form of objects: what goes out comes back as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.confidence_bands import Bands
from annotation.drafts import form
from annotation.drafts.form import NOTHING, as_stored, base_of, from_shapes, split_stored, to_shapes
from formats.annotations import Annotation, AnnotationPart, Annotations, Keypoint

places = st.floats(-1e8, 1e8)
corners = st.tuples(places, places)
rings = st.lists(corners, min_size=3, max_size=6).map(tuple)
parts = st.builds(AnnotationPart, rings, st.lists(rings, max_size=2).map(tuple))
points = st.builds(
    Keypoint, st.text(max_size=5), places, places, st.sampled_from([0, 1, 2]), st.none()
)
objects = st.builds(
    Annotation,
    label=st.text(min_size=1, max_size=8),
    box=st.none() | st.tuples(places, places, places, places),
    parts=st.lists(parts, max_size=2).map(tuple),
    keypoints=st.lists(points, max_size=3).map(tuple),
    score=st.none(),
    id=st.sampled_from(["", "a", "b", "#1", "a#0", "a#0#1", "#"]) | st.text(max_size=6),
)
images = st.builds(
    Annotations, st.just("a.png"), st.just(60), st.just(40), st.lists(objects, max_size=5)
).map(lambda found: replace(found, objects=tuple(found.objects)))


def sent(shapes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The shapes after their way to a browser and back."""
    back: list[dict[str, Any]] = json.loads(json.dumps(shapes))
    return back


@pytest.mark.properties
@given(images)
def test_what_goes_to_the_console_comes_back_as_it_was(found: Annotations) -> None:
    shapes = sent(to_shapes(found, "person", "alice"))
    assert from_shapes(shapes) == found.objects
    assert len({shape["id"] for shape in shapes}) == len(shapes)
    again = replace(found, objects=from_shapes(shapes))
    assert base_of(again) == base_of(found)
    assert base_of(Annotations.from_json(json.loads(json.dumps(found.to_json())))) == base_of(found)


def test_objects_of_one_id_have_ids_of_their_own_and_get_theirs_back() -> None:
    found = Annotations(
        "a.png", 9, 9, tuple(Annotation(x, id=i) for x, i in (("a", "e"), ("b", "e"), ("c", "#0")))
    )
    shapes = to_shapes(found, "person", "alice")
    assert [shape["id"] for shape in shapes] == ["e", "e#1", "#0#2"]
    assert [thing.id for thing in from_shapes(shapes)] == ["e", "e", "#0"]


def test_a_models_objects_have_scores_and_bands() -> None:
    found = Annotations("a.png", 9, 9, (Annotation("car", score=0.5), Annotation("dog", score=0.9)))
    shapes = to_shapes(found, "model", "m:1", Bands(accept=0.8, review=0.3))
    assert [(s["source"], s["by"], s["score"], s["band"]) for s in shapes] == [
        ("model", "m:1", 0.5, "review"),
        ("model", "m:1", 0.9, "accept"),
    ]
    assert [thing.score for thing in from_shapes(shapes)] == [None, None]


def test_nothing_there_is_another_base_than_nobody_looked() -> None:
    empty = Annotations("a.png", 9, 9)
    assert base_of(None) == NOTHING
    assert base_of(empty) != NOTHING
    assert base_of(empty) != base_of(replace(empty, objects=(Annotation("car"),)))


def test_unchanged_objects_keep_what_the_form_does_not_hold() -> None:
    stored = Annotations(
        "a.png",
        60,
        40,
        (Annotation("man", box=(1, 2, 3, 4), keypoints=(Keypoint("nose", 2, 3, 2, 0.7),)),),
    )
    drawn = from_shapes(sent(to_shapes(stored, "person", "alice")))
    assert as_stored(drawn, stored) == stored.objects
    assert split_stored(drawn, stored) == (list(drawn), [])
    moved = (replace(drawn[0], box=(1.0, 2.0, 3.0, 5.0)),)
    assert as_stored(moved, stored) == moved
    assert split_stored(moved, stored) == ([], list(moved))
    assert split_stored(drawn, None) == ([], list(drawn))
    assert as_stored(moved, None) == moved


def test_thousands_of_objects_are_not_compared_in_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    count, key = 300, form._key
    looked: list[Annotation] = []

    def counted(thing: Annotation) -> Annotation:
        looked.append(thing)
        return key(thing)

    monkeypatch.setattr(form, "_key", counted)
    things = [Annotation("man", box=(x, 0, x + 5, 5)) for x in range(count)]
    stored = Annotations("a.png", 999, 9, tuple(things))
    changed = [replace(thing, label="dog") for thing in things]
    assert split_stored(changed, stored) == ([], changed)
    assert len(looked) == 2 * count
