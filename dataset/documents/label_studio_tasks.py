"""Reads Label Studio's JSON export: tasks with their annotations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from dataset.documents.image_names import content_named
from dataset.documents.submission import DescribedImage, Emptiness, Size
from errors import ValidationFailed
from formats.annotations import Annotations
from formats.label_studio import from_label_studio
from formats.label_studio_config import ImageTag
from formats.label_studio_images import TaskImage, images_of, is_of_image

ONLY_PREDICTIONS = "with predictions only"
SKIPPED = "skipped"
NOT_ANNOTATED = "not annotated"
OTHERS = "Label Studio regions of an older annotation of the same task"


def from_tasks(
    tasks: Sequence[Any],
    file: str,
    points: Sequence[str],
    tags: Sequence[ImageTag] = (),
    skipped: Counter[str] | None = None,
) -> Iterator[DescribedImage]:
    """Reads one annotation per task, for each of the task's images.

    It is the newest finished annotation, ground truth first. A task without a finished annotation
    is marked `unfinished`.

    Args:
        tasks: The tasks of the export.
        file: Name of the export, for messages.
        points: Keypoint names of the dataset, in order.
        tags: The image tags of the labelling configuration, if it was sent.
        skipped: Receives reason → number of regions that belong to no image.

    Raises:
        ValidationFailed: A task lacks its image, an annotation lacks its result, or the image of a
            region is ambiguous; the message names them.
    """
    reading = _TaskReader(file, points, tags, skipped, drawn=any(map(_is_drawn, tasks)))
    for place, task in enumerate(tasks, 1):
        number = task.get("id", place) if isinstance(task, Mapping) else place
        yield from reading.task(task, f"{file}, task {number}")


def tags_for(file: str, configurations: Mapping[str, tuple[ImageTag, ...]]) -> tuple[ImageTag, ...]:
    """The image tags of the labelling configuration in the tasks' folder, else of the only one in
    the zip; empty if there is none or it is ambiguous."""
    folder = PurePosixPath(file).parent
    beside = {t for name, t in configurations.items() if PurePosixPath(name).parent == folder}
    fitting = beside or set(configurations.values())
    return fitting.pop() if len(fitting) == 1 else ()


@dataclass(frozen=True)
class _TaskReader:
    """Reads the tasks of one document. `drawn`: at least one region is drawn in an image."""

    file: str
    points: Sequence[str]
    tags: Sequence[ImageTag]
    skipped: Counter[str] | None
    drawn: bool

    def task(self, task: Any, where: str) -> Iterator[DescribedImage]:
        if not isinstance(task, Mapping) or not isinstance(task.get("data"), Mapping):
            raise ValidationFailed(f"{where} lacks 'data' with the URL or path of its image.")
        made = _annotations(task, where)
        finished = [one for one in made if not one.get("was_cancelled")]
        newest = max(finished, key=_priority, default={})
        regions: list[Mapping[str, Any]] = []
        why = ""
        if finished:
            where = f"{where}, annotation {newest.get('id', '')}".rstrip()
            regions = _regions(newest, where)
            self._pass_over(one for one in made if one is not newest)
        elif made:
            why = SKIPPED
        else:
            why = ONLY_PREDICTIONS if task.get("predictions") else NOT_ANNOTATED
        try:
            images = images_of(task["data"], regions, self.tags, skipped=self.skipped)
        except ValidationFailed as error:
            raise ValidationFailed(f"{where}: {error.message}") from None
        meta = task.get("meta")
        stated = str(meta.get("content") or "") if isinstance(meta, Mapping) else ""
        stated = stated if len(images) == 1 else ""
        for image in images:
            yield self._described(image, where, stated or content_named(image.address), why)

    def _pass_over(self, others: Iterable[Mapping[str, Any]]) -> None:
        """Count the regions of a task's annotations that are not used."""
        results = [one.get("result") for one in others]
        rows = (row for result in results if isinstance(result, list) for row in result)
        drawn = sum(isinstance(row, Mapping) and is_of_image(row) for row in rows)
        if self.skipped is not None and drawn:
            self.skipped[OTHERS] += drawn

    def _described(self, image: TaskImage, where: str, content: str, why: str) -> DescribedImage:
        """Wraps the regions of an image; `why` is set if its annotation is not finished.

        If no task of the document has a drawn region, an annotation with only choices or texts
        does not mean that the image has no objects.
        """
        passed: Counter[str] = Counter()

        def read(size: Size) -> Annotations:
            passed.clear()
            try:
                return from_label_studio(
                    image.regions, image.address, size, self.points, skipped=passed
                )
            except ValidationFailed as error:
                raise ValidationFailed(f"{where}: {error.message}") from None

        described = DescribedImage(
            image.address, read, content, where=where, source=self.file, skipped=passed
        )
        if why:
            return replace(described, empty="unfinished", why=why)
        empty: Emptiness = "finished" if self.drawn or not image.regions else "unstated"
        return replace(described, size=_size(image.regions, where), empty=empty)


def _is_drawn(task: Any) -> bool:
    """Whether an annotation of a task has a region drawn in an image."""
    if not isinstance(task, Mapping):
        return False
    made = task.get("annotations") or task.get("completions")
    every = made if isinstance(made, list) else []
    rows = (one.get("result") for one in every if isinstance(one, Mapping))
    return any(
        isinstance(region, Mapping) and is_of_image(region)
        for result in rows
        if isinstance(result, list)
        for region in result
    )


def _regions(annotation: Mapping[str, Any], where: str) -> list[Mapping[str, Any]]:
    regions = annotation.get("result")
    if not isinstance(regions, list) or not all(isinstance(row, Mapping) for row in regions):
        raise ValidationFailed(
            f"{where} lacks 'result', a list of regions. Export the project as JSON, not as "
            "JSON_MIN."
        )
    return regions


def _priority(annotation: Mapping[str, Any]) -> tuple[bool, str]:
    return bool(annotation.get("ground_truth")), _stamp(annotation)


def _annotations(task: Mapping[str, Any], where: str) -> list[Mapping[str, Any]]:
    made = task.get("annotations") or task.get("completions") or []
    if not isinstance(made, list) or not all(isinstance(one, Mapping) for one in made):
        raise ValidationFailed(
            f"{where}: 'annotations' must be a list of annotations with their 'result'."
        )
    return made


def _size(regions: Sequence[Mapping[str, Any]], where: str) -> Size | None:
    """The image's (width, height) in pixels as given by the regions; None if they give none.

    Raises:
        ValidationFailed: They give different sizes.
    """
    pairs = ((row.get("original_width"), row.get("original_height")) for row in regions)
    stated = {(w, h) for w, h in pairs if _is_length(w) and _is_length(h)}
    if len(stated) > 1:
        shown = " and ".join(f"{width:g} × {height:g}" for width, height in sorted(stated))
        raise ValidationFailed(
            f"{where}: its regions give different sizes of the image: {shown} pixels. Correct "
            "'original_width' and 'original_height'."
        )
    return next(((int(w), int(h)) for w, h in stated if w and h), None)


def _is_length(value: Any) -> bool:
    return isinstance(value, (int, float)) and 1 <= value < 1e9


def _stamp(annotation: Mapping[str, Any]) -> str:
    return str(annotation.get("updated_at") or annotation.get("created_at") or "")
