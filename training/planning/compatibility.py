"""Checks whether models and datasets are compatible, without loading a network.

`planning.plan` checks models of the registry before a job is queued. The content of weights files
is not known then, so the trainers check those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dataset.class_matching import shown_names
from dataset.data_yaml import Keypoints
from errors import ValidationFailed
from models_store.description import ModelDescription, Task
from training.planning.class_union import ClassUnion, shared_classes, unite

if TYPE_CHECKING:
    from dataset.dataset import Dataset

SHOWN = 8  # names in a message


def check_incremental(
    new: Dataset, old: Dataset | None, base: ModelDescription | None, new_classes: Sequence[str]
) -> ClassUnion | None:
    """Check that a base model can be extended by new data, with replay of old data.

    Args:
        new: The new dataset.
        old: The old dataset, for replay and evaluation; None: not given.
        base: The description of the base model; None: not known yet.
        new_classes: The requested new classes; see `unite`.

    Returns:
        The classes of the base model and of the new data; None if those of the base are not known.

    Raises:
        ValidationFailed: Their classes or key points are not compatible.
    """
    if old is not None and new.keypoints and old.keypoints:
        check_keypoints(new.keypoints, old.keypoints, "data_path", "old_data_path")
    if base is None:
        return None
    if base.keypoint_shape:
        known = Keypoints(base.keypoint_shape, None, base.keypoint_names)
        for name, dataset in (("data_path", new), ("old_data_path", old)):
            if dataset is not None and dataset.keypoints:
                check_keypoints(dataset.keypoints, known, name, "the base model")
    union = unite(base.names, new.names, new.counts["train"], new_classes)
    if old is not None:
        check_old_classes(union, old.names)
    return union


def check_teacher(
    names: Sequence[str], task: Task, student: Mapping[str, Any] | None, teacher: ModelDescription
) -> None:
    """Check that a student can be trained with a teacher.

    Args:
        names: The student's class names: those of its data and of the data to replay.
        task: The student's task.
        student: The student's architecture; None: not known yet.
        teacher: The description of the teacher, a model of the registry.

    Raises:
        ValidationFailed: The teacher knows none of the classes, or the heads have different
            numbers of levels.
    """
    shared_classes(names, teacher.names)
    ours, theirs = (_levels(some or {}) for some in (student, teacher.architecture))
    if task != "classify" and ours and theirs and ours != theirs:
        raise ValidationFailed(
            f"teacher_model_path: the teacher's head has {theirs} levels, the student's head "
            f"{ours}, so their outputs cannot be compared. Choose a teacher of the same family, "
            "for example a YOLOv8 teacher for a YOLOv8 student."
        )


def notes_on_teacher(
    names: Sequence[str], teacher: ModelDescription, model: str, imgsz: int
) -> tuple[str, ...]:
    """Notes on what a teacher cannot teach.

    Args:
        names: The student's class names.
        teacher: The description of the teacher.
        model: The teacher's id.
        imgsz: The student's image size, at which the teacher sees the images too.
    """
    ours, _ = shared_classes(names, teacher.names)
    alone = [repr(name) for i, name in enumerate(names) if i not in ours]
    notes = []
    if alone:
        notes.append(
            f"{model} does not know {shown_names(alone, SHOWN)}, learned from the labels only."
        )
    if teacher.imgsz != imgsz:
        notes.append(
            f"{model} is for imgsz {teacher.imgsz}, but sees the images at imgsz {imgsz} as the "
            "student does: it may be a worse teacher there."
        )
    return tuple(notes)


def check_old_classes(union: ClassUnion, names: Sequence[str]) -> None:
    """Check that the old data has at least one of the old classes.

    Raises:
        ValidationFailed: It has none.
    """
    if not any(i is not None and i < union.old for i in union.ids(names)):
        raise ValidationFailed(
            "old_data_path has none of the base model's classes; it has "
            f"{', '.join(names[:SHOWN])}. Classes are matched by name; give the data that the "
            "model was trained on."
        )


def check_keypoints(points: Keypoints, known: Keypoints, whose: str, whose_known: str) -> None:
    """Check that the key points of a dataset equal the known ones, as far as both declare them.

    Raises:
        ValidationFailed: Their shape, names or flip indices differ.
    """
    pairs = {
        "kpt_shape": (points.shape, known.shape),
        "kpt_names": (points.names, known.names),
        "flip_idx": (points.flip, known.flip),
    }
    for key, (ours, theirs) in pairs.items():
        if ours and theirs and tuple(ours) != tuple(theirs):
            raise ValidationFailed(
                f"{key} of {whose} is {list(ours)}, but {key} of {whose_known} is "
                f"{list(theirs)}. New classes must have the same key points in the same order."
            )


def _levels(architecture: Mapping[str, Any]) -> int:
    """Number of levels of a detection head; 0: not known."""
    match architecture.get("head"):
        case [*_, [[*sources], *_]]:
            return len(sources)
    return 0
