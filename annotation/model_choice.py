"""Chooses the model that prelabels images for an annotation tool."""

from __future__ import annotations

from errors import ModelNotFound
from formats.annotation_tools import Tool
from models_store.description import TYPES
from models_store.registry import Registry
from models_store.versions import ModelVersion

SHOWN = 8  # maximum number of model names in a message


def choose_model(registry: Registry, tool: Tool, model_id: str = "") -> ModelVersion:
    """The requested model; else the active one if it fits the tool, else the newest promoted one.

    Of the promoted models, those with the tool's own task are preferred to others that fit.

    Raises:
        ModelNotFound: No model fits, or the requested one does not exist or does not fit.
    """
    wanted = TYPES[tool.task]
    if model_id.strip():
        model = registry.get(model_id)
        if not tool.fits(model.description.task):
            raise ModelNotFound(
                f"'{model.id}' is a {model.description.type} model; {tool.value} needs a {wanted} "
                f"model. {_known(registry, wanted)}"
            )
        return model
    fitting = [model for model in registry.list() if tool.fits(model.description.task)]
    if active := next((model for model in fitting if model.active), None):
        return active
    promoted = [model for model in fitting if model.promoted]
    if not promoted:
        raise ModelNotFound(
            f"No {wanted} model is active or promoted, and {tool.value} needs one. "
            f"{_known(registry, wanted)}"
        )
    return max(promoted, key=lambda model: (model.description.task == tool.task, model.created_at))


def _known(registry: Registry, wanted: str) -> str:
    """A sentence that lists the models of a type."""
    names = dict.fromkeys(m.name for m in registry.list() if m.description.type == wanted)
    if not names:
        return f"There is no {wanted} model. Import or train one."
    return f"Known {wanted} models: {', '.join(list(names)[:SHOWN])}."
