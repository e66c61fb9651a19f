"""Reads the annotations of a Label Studio event, with their tasks, for the annotation inbox."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from errors import ValidationFailed
from formats.label_studio_config import LabelConfig
from formats.label_studio_images import TaskImage, images_of
from formats.label_studio_marking import marking

SKIPPED = "was_cancelled"
SHOWN = 5  # maximum number of annotations, or reasons, in a message
OF_AN_IMAGE = "choices for a whole image, which are not objects"


@dataclass(frozen=True)
class ReadAnnotation:
    """A Label Studio annotation for the inbox.

    Attributes:
        key: Id of the annotation.
        images: The images of its task, each with its regions; empty for a skipped annotation.
        by: The annotator who completed it.
        task: Id of the task.
        rank: 1 for a ground-truth annotation, else 0.
        stamp: Time of its last change.
        skipped: Whether the annotator skipped the task.
        left_out: The reason why its images are excluded from training; empty if they are not
            excluded.
        passed: Reason → number of results that are ignored for this reason.
    """

    key: str
    images: list[TaskImage]
    by: Any
    task: str
    rank: int
    stamp: str
    skipped: bool
    left_out: str
    passed: Counter[str]


def summary(read: Sequence[ReadAnnotation]) -> str:
    """A sentence on how an event's annotations were handled."""
    notes = [f"Annotation {one.key}: {one.left_out}" for one in read if one.left_out]
    more = [f"And {len(notes) - SHOWN} more."] if len(notes) > SHOWN else []
    skipped = sum(one.skipped for one in read)
    without = f"; {skipped} skipped annotations were ignored" if skipped else ""
    passed = sum((one.passed for one in read), Counter())
    if passed:
        shown = ", ".join(f"{count} × {reason}" for reason, count in passed.most_common(SHOWN))
        more.append(f"Passed over: {shown}.")
    return " ".join(
        [f"{len(read) - skipped} annotations were stored{without}.", *notes[:SHOWN], *more]
    )


def pairs_of(
    action: str, annotation: Any, task: Any
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The annotations of an event, each with its task, matched by id or else by position.

    Raises:
        ValidationFailed: The event has no annotation, or a task is missing.
    """
    annotations, tasks = many(annotation), many(task)
    by_id = {str(one["id"]): one for one in tasks if one.get("id") is not None}
    pairs = []
    for place, row in enumerate(annotations):
        found = by_id.get(text_id(row.get("task")))
        if found is None and len(tasks) == len(annotations):
            found = tasks[place]
        if found is None:
            raise ValidationFailed(
                f"{action}: the task of annotation {text_id(row.get('id'))[:40]} is "
                f"missing; there are {len(annotations)} annotations and {len(tasks)} tasks. Turn "
                "on 'Send payload' in the webhook, or pull the project: POST "
                f"/label-studio/pull/{{project}}."
            )
        pairs.append((row, found))
    if not pairs:
        raise ValidationFailed(
            f"{action} needs 'annotation' and 'task': turn on 'Send payload' in the webhook."
        )
    return pairs


def read_annotation(
    annotation: dict[str, Any], task: dict[str, Any], config: LabelConfig
) -> ReadAnnotation:
    """Read an annotation and its task according to the project's labelling configuration.

    Raises:
        ValidationFailed: A field is missing, or the task has no image.
    """
    key, regions = text_id(annotation.get("id")), annotation.get("result")
    if not key or not isinstance(regions, list):
        raise ValidationFailed("An annotation needs its 'id' and its 'result', a list of regions.")
    skipped, left_out = bool(annotation.get(SKIPPED)), ""
    images: list[TaskImage] = []
    passed: Counter[str] = Counter()
    if not skipped:
        try:
            first = images_of(task.get("data"), (), config.images)[:1]
        except ValidationFailed as error:
            raise ValidationFailed(
                f"Task {text_id(task.get('id'))[:40]}: {error.message}"
            ) from None
        try:
            images = images_of(task["data"], regions, config.images, skipped=passed)
            for image in images:
                _count_ignored(image, config, passed)
        except ValidationFailed as error:
            left_out = error.message
            images = images or first
    return ReadAnnotation(
        key=key,
        images=images,
        by=annotation.get("completed_by"),
        task=text_id(task.get("id", annotation.get("task"))),
        rank=int(bool(annotation.get("ground_truth"))),
        stamp=str(annotation.get("updated_at") or ""),
        skipped=skipped,
        left_out=left_out,
        passed=passed,
    )


def _count_ignored(image: TaskImage, config: LabelConfig, passed: Counter[str]) -> None:
    """Count the regions of an image that are ignored, by reason.

    Raises:
        ValidationFailed: A region cannot be stored.
    """
    marked = marking(image.regions, skipped=passed)
    if any(control.kind != "choices" for control in config.controls):
        choices = sum(row.get("type") == "choices" for row in marked)
        passed.update({OF_AN_IMAGE: choices} if choices else {})


def many(value: Any) -> list[dict[str, Any]]:
    """The objects in a value that is one object or a list of objects."""
    rows = value if isinstance(value, list) else [value]
    return [row for row in rows if isinstance(row, dict)]


def text_id(value: Any) -> str:
    """An id as text; empty if there is none."""
    return "" if value is None else str(value)
