"""Maps the labels of a Label Studio project to the class and keypoint names to train."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from formats.annotations import Annotations
from formats.label_studio_config import Control, Label, LabelConfig, plain


@dataclass(frozen=True, slots=True)
class TrainingNames:
    """Label → class name and label → keypoint name, each in training order."""

    classes: Mapping[str, str]
    points: Mapping[str, str]

    def apply(self, found: Annotations) -> Annotations:
        """The annotations with mapped class and keypoint names; unknown labels stay unchanged."""
        objects = (
            replace(
                thing,
                label=self.classes.get(thing.label, thing.label),
                keypoints=tuple(
                    replace(point, name=self.points.get(point.name, point.name))
                    for point in thing.keypoints
                ),
            )
            for thing in found.objects
        )
        return replace(found, objects=tuple(objects))


def training_names(
    config: LabelConfig, known: Iterable[str] = (), known_points: Iterable[str] = ()
) -> TrainingNames:
    """Maps the labels of a project to names.

    A label that matches exactly one class of the base model gets that class's name, so that
    training continues it. A label that matches several or none becomes a new class.

    Args:
        config: The project's labelling configuration.
        known: Class names of the base model, in order of id.
        known_points: Keypoint names of the base model, in order.
    """
    names, points = list(known), list(known_points)
    return TrainingNames(
        _mapped((c for c in config.controls if c.kind != "keypointlabels"), names),
        _mapped((c for c in config.controls if c.kind == "keypointlabels"), points),
    )


def _mapped(controls: Iterable[Control], known: list[str]) -> dict[str, str]:
    by_plain = {plain(name): name for name in known}
    found: dict[str, str] = {}
    for control in controls:
        for label in control.labels:
            found.setdefault(label.value, _name(label, by_plain, known, control))
    order = {name: i for i, name in enumerate(known)}
    return dict(sorted(found.items(), key=lambda pair: order.get(pair[1], len(order))))


def _name(label: Label, by_plain: Mapping[str, str], known: list[str], control: Control) -> str:
    if control.kind == "keypointlabels" and label.point is not None:
        return known[label.point] if label.point < len(known) else label.value
    matching = {by_plain[plain(name)] for name in label.classes if plain(name) in by_plain}
    return matching.pop() if len(matching) == 1 else label.value
