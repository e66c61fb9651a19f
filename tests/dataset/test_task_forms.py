"""The task that annotations are for."""

from __future__ import annotations

import pytest

from dataset.task_forms import portable_folders, task_of
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


def test_class_folders_of_a_zip_mean_the_same_on_every_system() -> None:
    labels = [
        r"a\..\b",
        "a:b",
        "CON",
        "nul.txt",
        "x.",
        "..",
        "stop",
        "a_b",
        "a/b",
        'q?"<|>*',
        "标志",
    ]
    folders = portable_folders(labels)
    assert set(folders) == set(labels)
    assert len(set(folders.values())) == len(labels)
    for folder in folders.values():
        assert not set(folder) & set('\\/:*?"<>|')
        assert folder.strip(". ") == folder
    assert (folders["stop"], folders["标志"]) == ("stop", "标志")
    assert (folders["CON"], folders["nul.txt"]) == ("_CON", "_nul.txt")
    assert sorted(folders[label] for label in ("a:b", "a_b", "a/b")) == [
        "a_b", "a_b (2)", "a_b (3)"
    ]  # fmt: skip
