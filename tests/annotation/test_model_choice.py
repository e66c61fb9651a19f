"""Which model pre-labels for a tool."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest

from annotation.model_choice import choose_model
from errors import ModelNotFound
from formats.annotation_tools import TOOLS
from models_store.description import TYPES, Task
from models_store.registry import Registry


@dataclass
class Known:
    """The fields of a model version that decide whether it is chosen."""

    id: str
    task: Task
    created_at: int = 0
    promoted: bool = False
    active: bool = False

    @property
    def name(self) -> str:
        return self.id

    @property
    def description(self) -> Any:
        return SimpleNamespace(task=self.task, type=TYPES[self.task])


def registry(*models: Known) -> Registry:
    by_id = {model.id: model for model in models}
    return cast("Registry", SimpleNamespace(list=lambda: list(models), get=by_id.__getitem__))


A = Known("active", "detect", 1, promoted=True, active=True)
OLD = Known("old", "segment", 2, promoted=True)
NEW = Known("new", "segment", 3, promoted=True)
NEWEST = Known("newest", "segment", 4)
ACTIVE_MASKS = Known("masks", "segment", active=True)


@pytest.mark.parametrize(
    ("tool", "model", "models", "chosen"),
    [
        ("object_detection", "", (NEW, A), "active"),
        ("object_detection", "", (ACTIVE_MASKS,), "masks"),  # masks have boxes, unnamed too
        ("object_detection", "", (ACTIVE_MASKS, Known("d", "detect", promoted=True)), "masks"),
        ("object_detection", "", (OLD, NEW), "new"),
        ("image_segmentation", "", (A, OLD, NEW, NEWEST), "new"),
        ("image_segmentation", " ", (A, OLD), "old"),
        ("image_segmentation", "newest", (A, NEW, NEWEST), "newest"),
        ("object_detection", "newest", (A, NEWEST), "newest"),  # masks have boxes
        ("object_detection", "", (NEW, Known("d", "detect", promoted=True)), "d"),
    ],
)
def test_the_model_that_serves_a_tool(
    tool: str, model: str, models: tuple[Known, ...], chosen: str
) -> None:
    assert choose_model(registry(*models), TOOLS[tool], model).id == chosen


@pytest.mark.parametrize(
    ("tool", "model", "models", "message"),
    [
        ("keypoint_detection", "", (A, NEW), "No pose model .* There is no pose model"),
        ("image_segmentation", "", (A, NEWEST), "No segmentation .* Known .*: newest"),
        ("image_segmentation", "active", (A,), "'active' is a detection model"),
        ("image_classification", "new", (A, NEW), "needs a classification model"),
    ],
)
def test_a_tool_without_a_model_names_the_type_that_it_needs(
    tool: str, model: str, models: tuple[Known, ...], message: str
) -> None:
    with pytest.raises(ModelNotFound, match=message):
        choose_model(registry(*models), TOOLS[tool], model)
