"""Which kinds of annotations a format cannot hold, and the error that says so."""

from __future__ import annotations

from collections.abc import Sequence

from errors import ValidationFailed
from formats.annotations import FORMATS, Annotation, Format
from models_store.description import Task

# Format → task → what of its annotations the format has no field for
LACKING: dict[Format, dict[Task, str]] = {
    "coco": {"classify": "the class of an image"},
    "voc": {"classify": "the class of an image", "pose": "keypoints"},
}
TITLES: dict[Format, str] = {"coco": "COCO", "voc": "Pascal VOC"}


def require_task(form: Format, task: Task, allowed: Sequence[Format] = FORMATS) -> None:
    """Raises ValidationFailed where a format cannot hold the annotations of a task.

    Args:
        form: The format to write.
        task: That the annotations are for.
        allowed: The formats that a caller may ask for instead.
    """
    if what := LACKING.get(form, {}).get(task):
        raise _cannot_hold(form, what, allowed=allowed)


def require_annotation(form: Format, annotation: Annotation, image: str = "") -> None:
    """Raises ValidationFailed where a format cannot hold an annotation.

    Args:
        form: The format to write.
        annotation: Of an image.
        image: Its name, for the message.
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
