"""The task that annotations are for."""

from __future__ import annotations

import pytest

from dataset.task_forms import task_of
from formats.annotations import Annotation
from models_store.description import Task
from tests.support.annotated import BOX, POLYGON, POSE, WHOLE, marked


@pytest.mark.parametrize(
    ("objects", "task"),
    [
        ((BOX,), "detect"),
        ((BOX, POLYGON), "detect"),
        ((POLYGON, POLYGON, BOX), "segment"),
        ((BOX, POSE), "pose"),
        ((WHOLE,), "classify"),
        ((), "classify"),
    ],
)
def test_the_task_follows_what_was_drawn(objects: tuple[Annotation, ...], task: Task) -> None:
    assert task_of([marked(*objects)]) == task
