"""Label Studio's tasks, as it exports them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from errors import ValidationFailed
from inference.annotations import Annotations
from inference.label_config import ImageTag
from inference.label_studio import from_label_studio
from inference.label_studio_images import TaskImage, images_of
from inference.label_studio_marking import marking
from training.image_names import content_named
from training.source_annotations import Marks, Size

ONLY_PREDICTIONS = "with predictions only"
SKIPPED = "skipped"
NOT_ANNOTATED = "not annotated"


def from_tasks(
    tasks: Sequence[Any],
    file: str,
    points: Sequence[str],
    tags: Sequence[ImageTag] = (),
    skipped: Counter[str] | None = None,
) -> Iterator[Marks]:
    """Of each task its newest finished annotation that counts, for each of the task's images;
    without one it is unfinished.

    Args:
        tasks: Of the export.
        file: Its name, for messages.
        points: The data set's key points, in order.
        tags: The images of the labelling configuration, where it came.
        skipped: Counts regions that are of no image.

    Raises:
        ValidationFailed: A task lacks its image or an annotation its result, or it is not known
            which image a region is on; the message names them.
    """
    for place, task in enumerate(tasks, 1):
        number = task.get("id", place) if isinstance(task, Mapping) else place
        yield from _task(task, f"{file}, task {number}", file, points, tags, skipped)


def tags_for(file: str, configurations: Mapping[str, tuple[ImageTag, ...]]) -> tuple[ImageTag, ...]:
    """Of the labelling configuration in the folder of the tasks, or the only one of the zip."""
    folder = PurePosixPath(file).parent
    beside = {t for name, t in configurations.items() if PurePosixPath(name).parent == folder}
    fitting = beside or set(configurations.values())
    return fitting.pop() if len(fitting) == 1 else ()


def _task(
    task: Any,
    where: str,
    file: str,
    points: Sequence[str],
    tags: Sequence[ImageTag],
    skipped: Counter[str] | None,
) -> Iterator[Marks]:
    if not isinstance(task, Mapping) or not isinstance(task.get("data"), Mapping):
        raise ValidationFailed(f"{where} lacks 'data' with the image's address.")
    made = _annotations(task, where)
    finished = [one for one in made if not one.get("was_cancelled")]
    newest = max(finished, key=_counts, default={})
    regions: list[Mapping[str, Any]] = []
    why = ""
    if finished:
        where = f"{where}, annotation {newest.get('id', '')}".rstrip()
        regions = _regions(newest, where)
    else:
        why = SKIPPED if made else ONLY_PREDICTIONS if task.get("predictions") else NOT_ANNOTATED
    try:
        images = images_of(task["data"], regions, tags, skipped=skipped)
    except ValidationFailed as error:
        raise ValidationFailed(f"{where}: {error.message}") from None
    stated = str((task.get("meta") or {}).get("content") or "") if len(images) == 1 else ""
    for image in images:
        content = stated or content_named(image.address)
        marks = Marks(
            image.address, _reader(image, where, points), content, where=where, source=file
        )
        if finished:
            size = _size(image.regions, where)
            yield replace(marks, size=size, empty="finished", skipped=_passed_over(image))
        else:
            yield replace(marks, empty="unfinished", why=why)


def _reader(image: TaskImage, where: str, points: Sequence[str]) -> Callable[[Size], Annotations]:
    def read(size: Size) -> Annotations:
        try:
            return from_label_studio(image.regions, image.address, size, points)
        except ValidationFailed as error:
            raise ValidationFailed(f"{where}: {error.message}") from None

    return read


def _passed_over(image: TaskImage) -> Counter[str]:
    skipped: Counter[str] = Counter()
    with suppress(ValidationFailed):  # said when it is read
        marking(image.regions, skipped=skipped)
    return skipped


def _regions(annotation: Mapping[str, Any], where: str) -> list[Mapping[str, Any]]:
    regions = annotation.get("result")
    if not isinstance(regions, list) or not all(isinstance(row, Mapping) for row in regions):
        raise ValidationFailed(f"{where} lacks 'result', a list of regions.")
    return regions


def _counts(annotation: Mapping[str, Any]) -> tuple[bool, str]:
    return bool(annotation.get("ground_truth")), _stamp(annotation)


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
