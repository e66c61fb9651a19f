"""Label Studio's tasks, as it exports them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from errors import ValidationFailed
from inference.annotations import Annotations
from inference.label_studio import from_label_studio
from training.image_names import content_named
from training.source_annotations import Marks, Size

ONLY_PREDICTIONS = "with predictions only"
SKIPPED = "skipped"
NOT_ANNOTATED = "not annotated"


def from_tasks(tasks: Sequence[Any], file: str, points: Sequence[str]) -> Iterator[Marks]:
    """Of each task its newest finished annotation that counts; without one it is unfinished.

    Args:
        tasks: Of the export.
        file: Its name, for messages.
        points: The data set's key points, in order.

    Raises:
        ValidationFailed: A task lacks its image or an annotation its result; the message names
            them.
    """
    for place, task in enumerate(tasks, 1):
        number = task.get("id", place) if isinstance(task, Mapping) else place
        yield _task(task, f"{file}, task {number}", file, points)


def _task(task: Any, where: str, file: str, points: Sequence[str]) -> Marks:
    try:
        data = task["data"]
        name = next(v for v in (data.get("image"), *data.values()) if isinstance(v, str) and v)
        content = str((task.get("meta") or {}).get("content") or "") or content_named(name)
    except (KeyError, TypeError, AttributeError, StopIteration):
        raise ValidationFailed(f"{where} lacks 'data' with the image's address.") from None
    made = _annotations(task, where)
    finished = [one for one in made if not one.get("was_cancelled")]
    if not finished:
        why = SKIPPED if made else ONLY_PREDICTIONS if task.get("predictions") else NOT_ANNOTATED
        return Marks(
            name,
            lambda size: Annotations(name, *size),
            content,
            where=where,
            source=file,
            empty="unfinished",
            why=why,
        )
    newest = max(finished, key=lambda one: (bool(one.get("ground_truth")), _stamp(one)))
    regions, where = newest.get("result"), f"{where}, annotation {newest.get('id', '')}".rstrip()
    if not isinstance(regions, list) or not all(isinstance(row, Mapping) for row in regions):
        raise ValidationFailed(f"{where} lacks 'result', a list of regions.")
    skipped: Counter[str] = Counter()

    def read(size: Size) -> Annotations:
        try:
            return from_label_studio(regions, name, size, points)
        except ValidationFailed as error:
            raise ValidationFailed(f"{where}: {error.message}") from None

    return Marks(name, read, content, _size(regions, where), where, file, skipped=skipped)


def _annotations(task: Mapping[str, Any], where: str) -> list[Mapping[str, Any]]:
    made = task.get("annotations") or task.get("completions") or []
    if not isinstance(made, list) or not all(isinstance(one, Mapping) for one in made):
        raise ValidationFailed(
            f"{where}: 'annotations' must be a list of annotations with their 'result'."
        )
    return made


def _size(regions: Sequence[Mapping[str, Any]], where: str) -> Size | None:
    """What the regions state of the image; None: nothing.

    Raises:
        ValidationFailed: They state different sizes.
    """
    stated = {
        (row.get("original_width"), row.get("original_height"))
        for row in regions
        if row.get("original_width") and row.get("original_height")
    }
    if len(stated) > 1:
        shown = " and ".join(f"{width} × {height}" for width, height in sorted(stated, key=str))
        raise ValidationFailed(f"{where}: its regions are of images of {shown} pixels.")
    for width, height in stated:
        try:
            return int(width or 0), int(height or 0)
        except (TypeError, ValueError):
            break
    return None


def _stamp(annotation: Mapping[str, Any]) -> str:
    return str(annotation.get("updated_at") or annotation.get("created_at") or "")
