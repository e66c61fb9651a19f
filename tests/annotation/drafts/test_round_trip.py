"""What the annotator reads and sends back unchanged stays in the dataset exactly as it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotation.drafts.checks import check_drawn
from annotation.drafts.form import as_stored, from_shapes, to_shapes
from annotation.drafts.image_state import ImageState
from formats.annotations import Annotation, Annotations
from models_store.description import Task
from tests.annotation.drafts.test_form import images, sent


@pytest.mark.properties
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(images, st.sampled_from(["detect", "segment", "pose", "classify"]))
def test_nothing_is_checked_clipped_or_lost_that_was_not_touched(
    found: Annotations, task: Task
) -> None:
    """Not even what could not be drawn: labels out of the image, forms of another task."""
    state = ImageState("c" * 64, "a.png", "", (60, 40), found)
    drawn = from_shapes(sent(to_shapes(found, "person", "alice")))
    checked = check_drawn(drawn, state, task, ["car"])
    assert checked.changed == ()
    assert as_stored(checked.stored, found) == found.objects


@pytest.mark.properties
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(images, st.data())
def test_what_was_touched_alone_is_checked(found: Annotations, data: st.DataObject) -> None:
    new = Annotation("car", box=(1.0, 2.0, 30.0, 20.0), id="new-shape")
    objects = list(found.objects)
    objects.insert(data.draw(st.integers(0, len(objects))), new)
    state = ImageState("c" * 64, "a.png", "", (60, 40), found)
    shapes = sent(to_shapes(replace(found, objects=tuple(objects)), "person", "alice"))
    checked = check_drawn(from_shapes(shapes), state, "detect", ["car"])
    assert checked.changed == (new,)
    assert as_stored(checked.stored, found) == found.objects
