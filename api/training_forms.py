"""A schema of the body for each mode of training, from which a client can make a form.

The fields, their types, bounds and defaults are those of `TrainingFields`, which reads the bodies
of all modes. Here stands how a form shows them: title, meaning, group, and what is advanced.

Extensions of a property: `x-group`, its group (`GROUPS`); `x-advanced`, whether a form hides it at
first; `x-hint`, what it means, without what is allowed; `x-default`, its default, which is also in
the description; `x-source`, where its value can be chosen from: `dataset`, `model` or `job`; of a
hyperparameter also `x-families` and `x-tasks`, the models that have it (not always in every
combination: a job whose model lacks it is refused). A property without `x-group` has no effect in
the mode. The schemas of hyperparameters are in `x-properties`, not in `properties`: one is called
`cls`, a name that generated Python clients cannot have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from pydantic import ConfigDict

from api.training_fields import FIELDS_OF_MODE, IGNORED_FIELDS, TrainingFields
from models_store.description import Family
from training.planning import hyperparameters
from training.planning.base_models import SCALES
from training.planning.hyperparameters import known_hyperparameters
from training.planning.options import MAX_REPLAY_RATIO
from training.planning.recipe import TASKS, Mode

GROUPS = ("Data", "Model", "Schedule", "Augmentation", "Retention", "Distillation", "Output")

FIELDS: dict[str, dict[str, tuple[str, str]]] = {
    "Data": {
        "data_path": ("Dataset", "the data to train on"),
        "imgsz": ("Image size", "the side to which images are scaled, in pixels"),
    },
    "Model": {
        "task": ("Task", "what the model is to find"),
        "model_type": ("Start from", "the weights that the training starts from"),
        "base_model_path": (
            "Base model",
            "the model that learns on; of a distillation, the student",
        ),
        "resume_weights": ("Resume weights", "weights to start from in its place"),
    },
    "Schedule": {
        "epochs": ("Epochs", "how often all training images are seen"),
        "batch": ("Batch", "images in a step"),
        "patience": ("Patience", "epochs without a gain after which it ends; 0: never"),
        "use_freeze_strategy": (
            "Train in stages",
            "whether head, neck and backbone follow in turn",
        ),
        "min_epochs_per_stage": (
            "Epochs of a stage",
            "the epochs of each stage but the last; 15 means a tenth of the epochs",
        ),
    },
    "Retention": {
        "old_data_path": ("Old data", "data of what the model knows, to be replayed"),
        "new_classes": ("New classes", "the classes to add; empty: all that are new"),
        "replay_ratio": (
            "Replay share",
            "the share of old images in an epoch; in incremental, 0.2 lets the training choose",
        ),
        "max_replay_samples": ("Most old images", "the most old images that are replayed"),
        "rehearsal": ("Selection", "how old images are selected"),
    },
    "Distillation": {
        "teacher_model_path": ("Teacher", "the model that is learned from"),
        "distill_temperature": ("Temperature", "softens the class scores"),
        "distill_cls_weight": ("Weight of classes", "of the class loss; 0 turns it off"),
        "distill_reg_weight": ("Weight of boxes", "of the box loss; 0 turns it off"),
        "distill_feat_weight": ("Weight of features", "of the feature loss; 0 turns it off"),
        "distill_mask_weight": ("Weight of masks", "of the mask loss; 0 turns it off"),
        "enable_consistency": ("Consistency", "whether predictions must hold on augmented images"),
        "consistency_weight": ("Weight of consistency", "of the consistency loss"),
        "pseudo_conf_threshold": ("Pseudo-labels from", "the least confidence of a pseudo-label"),
        "replay_distill_boost": ("Boost on old images", "factor of all these on replayed images"),
    },
    "Output": {
        "name": ("Name", "empty: the base model's"),
        "promote": ("Promotion", "what follows the training"),
    },
}
"""Group → its fields, with title and meaning, in the order of a form."""

SHOWN: dict[Mode, tuple[str, ...]] = {
    "regular": ("data_path", "task", "model_type", "epochs", "name"),
    "freeze_strategy": ("data_path", "task", "model_type", "epochs", "name"),
    "incremental": ("base_model_path", "data_path", "old_data_path", "epochs", "name"),
    "distillation": ("data_path", "teacher_model_path", "model_type", "epochs", "name"),
}
"""The fields that a form shows first, in order; all others are advanced."""

REQUIRED: dict[Mode, tuple[str, ...]] = {
    "regular": ("data_path",),
    "freeze_strategy": ("data_path",),
    "incremental": ("base_model_path", "data_path"),
    "distillation": ("data_path", "teacher_model_path"),
}
SOURCES = {
    "data_path": "dataset",
    "old_data_path": "dataset",
    "model_type": "model",
    "base_model_path": "model",
    "teacher_model_path": "model",
    "resume_weights": "job",
}


def fields_of(mode: Mode) -> list[str]:
    """The fields that have an effect in a mode, in the order of a form."""
    others = frozenset().union(*FIELDS_OF_MODE.values()) - FIELDS_OF_MODE.get(mode, frozenset())
    grouped = [
        name
        for group in GROUPS
        for name in ("hyper",) * (group == "Augmentation") + tuple(FIELDS.get(group, ()))
        if name not in others
    ]
    return [*SHOWN[mode], *(name for name in grouped if name not in SHOWN[mode])]


def _shaped(mode: Mode) -> Callable[[dict[str, Any]], None]:
    """A function that makes the schema of `TrainingFields` that of a mode's form."""

    def shape(schema: dict[str, Any]) -> None:
        known = schema["properties"]
        own = {name: _shown(name, known[name], name not in SHOWN[mode]) for name in fields_of(mode)}
        without = sorted({*known, *IGNORED_FIELDS} - own.keys())
        schema["properties"] = own | {name: {"description": "has no effect"} for name in without}

    return shape


def _shown(name: str, known: dict[str, Any], advanced: bool) -> dict[str, Any]:
    """A property of a form."""
    if name == "hyper":
        return {
            "type": "object",
            "title": "Hyperparameters",
            "description": f"{known['description']}; those that are not given have the defaults of "
            "the kind of model",
            "examples": known["examples"],
            "additionalProperties": True,
            "x-properties": _hyperparameters(),
            "x-group": "Schedule",
            "x-advanced": True,
        }
    group, (title, meaning) = next(
        (group, fields[name]) for group, fields in FIELDS.items() if name in fields
    )
    shown = {**known, "title": title, "description": f"{meaning}; {known['description']}"}
    shown |= {"x-group": group, "x-advanced": advanced, "x-hint": meaning}
    if known.get("default") is not None:
        shown["x-default"] = known["default"]
    if name in SOURCES:
        shown["x-source"] = SOURCES[name]
    if name == "task":
        shown["anyOf"] = [{"type": "string", "enum": [*TASKS]}, {"type": "null"}]
    if name == "replay_ratio":
        shown["maximum"] = MAX_REPLAY_RATIO
    if name == "model_type":
        shown["examples"] = [*SCALES]
    return shown


def _hyperparameters() -> dict[str, Any]:
    """The schema of each hyperparameter, with the kinds of models that have it."""
    kinds = {
        (family, task): known_hyperparameters(family, task)
        for family in get_args(Family)
        for task in (TASKS if family == "yolo" else ("classify",))
    }
    found = {}
    for group, fields in hyperparameters.MEANINGS.items():
        for name, meaning in fields.items():
            having = {kind: known[name] for kind, known in kinds.items() if name in known}
            found[name] = {
                **next(iter(having.values())).schema,
                "title": name,
                "description": meaning,
                "x-group": group,
                "x-advanced": True,
                "x-families": sorted({family for family, _ in having}),
                "x-tasks": [task for task in TASKS if any(task == one for _, one in having)],
            }
    return found


class RegularTraining(TrainingFields):
    """A training of all layers at once."""

    model_config = ConfigDict(json_schema_extra=_shaped("regular"))


class FreezeTraining(TrainingFields):
    """A training in stages: head, neck, backbone."""

    model_config = ConfigDict(json_schema_extra=_shaped("freeze_strategy"))


class IncrementalTraining(TrainingFields):
    """A training that adds classes or data to a model, which retains what it knows."""

    model_config = ConfigDict(json_schema_extra=_shaped("incremental"))


class DistillationTraining(TrainingFields):
    """A training of a student that learns from a teacher's outputs, too."""

    model_config = ConfigDict(json_schema_extra=_shaped("distillation"))


FORMS: dict[Mode, type[TrainingFields]] = {
    "regular": RegularTraining,
    "freeze_strategy": FreezeTraining,
    "incremental": IncrementalTraining,
    "distillation": DistillationTraining,
}
