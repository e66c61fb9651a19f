"""Which kinds of annotations a format cannot represent, and the error for them."""

from __future__ import annotations

from collections.abc import Sequence

from errors import ValidationFailed
from formats.annotations import FORMATS, Annotation, Format
from models_store.description import Task

# Format → task → the annotations that the format has no field for
LACKING: dict[Format, dict[Task, str]] = {
    "coco": {"classify": "the class of an image"},
    "voc": {"classify": "the class of an image", "pose": "keypoints"},
}
TITLES: dict[Format, str] = {"coco": "COCO", "voc": "Pascal VOC"}


def require_task(form: Format, task: Task, allowed: Sequence[Format] = FORMATS) -> None:
    """Check that a format can represent the annotations of a task.

    Args:
        form: The format to write.
        task: The task that the annotations are for.
        allowed: The formats that the message may recommend.

    Raises:
        ValidationFailed: The format cannot represent them.
    """
    if what := LACKING.get(form, {}).get(task):
        raise _cannot_hold(form, what, allowed=allowed)


def require_annotation(form: Format, annotation: Annotation, image: str = "") -> None:
    """Check that a format can represent an annotation.

    Args:
        form: The format to write.
        annotation: The annotation.
        image: Name of its image, for the message.

    Raises:
        ValidationFailed: The format cannot represent it.
    """
    task: Task = "detect"
    if annotation.bounds is None:
        task = "classify"
    elif annotation.keypoints:
        task = "pose"
    if what := LACKING.get(form, {}).get(task):
        raise _cannot_hold(form, what, image)


def _cannot_hold(
    form: Format, what: str, image: str = "", allowed: Sequence[Format] = FORMATS
) -> ValidationFailed:
    able = [other for other in allowed if what not in LACKING.get(other, {}).values()]
    where = f" ({image[:100]!r} has one)" if image else ""
    return ValidationFailed(
        f"{TITLES[form]} cannot hold {what}{where}. 'format' must be one of: {', '.join(able)}."
    )
