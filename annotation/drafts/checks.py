"""Checks of what a person has drawn, before it is accepted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from annotation.checked_annotations import checked, misfit
from annotation.drafts.form import split_stored
from annotation.drafts.image_state import ImageState
from annotation.known_names import with_known_names
from errors import ValidationFailed
from formats.annotations import Annotation, Annotations
from models_store.description import Task

CORNERS = 3  # the fewest of an outline


@dataclass(frozen=True)
class CheckedDraft:
    """The objects of a draft that can be stored.

    Attributes:
        changed: Those that are new or changed, with the dataset's spelling of class names.
        stored: Those that the dataset has exactly so.
        inside: `changed` as a commit stores them: within the image.
    """

    changed: tuple[Annotation, ...]
    stored: tuple[Annotation, ...]
    inside: tuple[Annotation, ...]

    @property
    def result(self) -> tuple[Annotation, ...]:
        """All objects as a commit stores them."""
        return (*self.stored, *self.inside)


def check_drawn(
    drawn: Sequence[Annotation], state: ImageState, task: Task, names: Sequence[str]
) -> CheckedDraft:
    """Check that a dataset can store the objects of a draft.

    Args:
        drawn: The objects.
        state: The image; objects that are stored exactly so are not checked again.
        task: The dataset's task.
        names: The dataset's class names.

    Raises:
        ValidationFailed: An object cannot be stored; the message names it.
    """
    stored, changed = split_stored(drawn, state.stored)
    found = with_known_names(Annotations(state.name, *state.size, tuple(changed)), names)
    for thing in found.objects:
        _check_form(thing, state.name, task)
    if task == "classify" and changed and len(drawn) > 1:
        raise ValidationFailed(
            f"{state.name[:100]}: an image of a classification dataset has one class, the draft "
            f"has {len(drawn)}: {', '.join(thing.label[:60] for thing in drawn[:5])}. Keep one."
        )
    inside = checked(found, state.name, state.size)
    return CheckedDraft(found.objects, tuple(stored), inside.objects)


def _check_form(thing: Annotation, name: str, task: Task) -> None:
    what = f"{name[:100]}: the object '{thing.label[:60]}' (id {thing.id[:40]!r})"
    if reason := misfit(thing, task):
        raise ValidationFailed(
            f"{what} cannot be stored: {reason}. Draw it as the dataset's others, or remove it."
        )
    for part in thing.parts:
        if any(len(ring) < CORNERS for ring in (part.outline, *part.holes)):
            raise ValidationFailed(
                f"{what} has an outline of fewer than {CORNERS} corners. Finish or remove it."
            )
