"""The annotation tools that a client can choose, and which model tasks serve them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from models_store.description import Task

ToolName = Literal[
    "object_detection", "image_segmentation", "image_classification", "keypoint_detection"
]


@dataclass(frozen=True)
class Tool:
    """An annotation tool.

    Attributes:
        value: Its name in requests.
        label: Its display name.
        task: The task of the models that serve it.
    """

    value: ToolName
    label: str
    task: Task

    def fits(self, task: Task) -> bool:
        """Whether a model of `task` can serve this tool: segment and pose models have boxes too."""
        return task == self.task or (self.task == "detect" and task in ("segment", "pose"))


TOOLS: dict[str, Tool] = {
    tool.value: tool
    for tool in (
        Tool("object_detection", "Object detection", "detect"),
        Tool("image_segmentation", "Image segmentation", "segment"),
        Tool("image_classification", "Image classification", "classify"),
        Tool("keypoint_detection", "Keypoint detection", "pose"),
    )
}

TOOL_OF: dict[Task, Tool] = {tool.task: tool for tool in TOOLS.values()}
