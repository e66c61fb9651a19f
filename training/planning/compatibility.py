"""Whether models and data sets go together, as far as it is known before a network is loaded.

`recipe.plan` asks it of the registry's models before a job waits; of weights files, whose content
is not known by then, the trainers ask it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dataset.data_yaml import Keypoints
from errors import ValidationFailed
from models_store.description import ModelDescription
from training.planning.class_union import ClassUnion, shared_classes, unite

if TYPE_CHECKING:
    from dataset.dataset import Dataset

SHOWN = 8  # names in a message


def check_incremental(
    new: Dataset, old: Dataset | None, base: ModelDescription | None, new_classes: Sequence[str]
) -> None:
    """Whether a base model can learn new data beside old data.

    Args:
        new: What is learned.
        old: What is replayed and measured on.
        base: The model; None: not known yet.
        new_classes: As asked for; see `unite`.

    Raises:
        ValidationFailed: Their classes or key points do not go together.
    """
    if old is not None and new.keypoints and old.keypoints:
        check_keypoints(new.keypoints, old.keypoints, "data_path", "old_data_path")
    if base is None:
        return
    if base.keypoint_shape:
        known = Keypoints(base.keypoint_shape, None, base.keypoint_names)
        for name, dataset in (("data_path", new), ("old_data_path", old)):
            if dataset is not None and dataset.keypoints:
                check_keypoints(dataset.keypoints, known, name, "the base model")
    union = unite(base.names, new.names, new.counts["train"], new_classes)
    if old is not None:
        check_old_classes(union, old.names)


def check_teacher(
    data: Dataset,
    old: Dataset | None,
    student: Mapping[str, Any] | None,
    teacher: ModelDescription,
) -> None:
    """Whether a student can follow a teacher.

    Args:
        data: What is trained on.
        old: What is replayed; its classes join the student's.
        student: Its architecture; None: not known yet.
        teacher: The registry's model.

    Raises:
        ValidationFailed: The teacher knows none of the classes, or its head looks at other places.
    """
    names = data.names
    if old is not None:
        names = unite(names, old.names, old.counts["train"]).names
    shared_classes(names, teacher.names)
    ours, theirs = (_levels(some or {}) for some in (student, teacher.architecture))
    if data.task != "classify" and ours and theirs and ours != theirs:
        raise ValidationFailed(
            f"teacher_model_path: the teacher's head has {theirs} levels, the student's {ours}: "
            "their outputs cannot be compared. Choose a teacher of the same family, like YOLOv8 "
            "for YOLOv8."
        )


def check_old_classes(union: ClassUnion, names: Sequence[str]) -> None:
    """Raises ValidationFailed where the old data has none of the old classes."""
    if not any(i is not None and i < union.old for i in union.ids(names)):
        raise ValidationFailed(
            "old_data_path has no class that the base model knows: "
            f"{', '.join(names[:SHOWN])}. Names decide; give the data that it was trained on."
        )


def check_keypoints(points: Keypoints, known: Keypoints, whose: str, whose_known: str) -> None:
    """Whether the key points of further data are the known ones, as far as both say what they are.

    Raises:
        ValidationFailed: Their number, order or mirror images are others.
    """
    pairs = {
        "kpt_shape": (points.shape, known.shape),
        "kpt_names": (points.names, known.names),
        "flip_idx": (points.flip, known.flip),
    }
    for key, (ours, theirs) in pairs.items():
        if ours and theirs and tuple(ours) != tuple(theirs):
            raise ValidationFailed(
                f"{key} of {whose} is {list(ours)}, of {whose_known} {list(theirs)}: further "
                "classes must have the same key points in the same order."
            )


def _levels(architecture: Mapping[str, Any]) -> int:
    """Of a detection head: the layers that it reads; 0: not known."""
    match architecture.get("head"):
        case [*_, [[*sources], *_]]:
            return len(sources)
    return 0
