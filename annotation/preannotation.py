"""Assigns models to the controls of a Label Studio project, and converts their predictions to it.

A detection model fills rectangles; a segmentation model polygons, else rectangles; a pose model
keypoints and, as their parents, rectangles; a classification model choices. Only one model fills
a label, so that an object that two models detect is annotated once.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dataset.class_matching import shown_names
from formats.annotations import Annotations, Box, keypoint_labels
from formats.label_studio import Region, to_label_studio
from formats.label_studio_config import Control, Kind, LabelConfig, plain
from models_store.description import TYPES, Task
from models_store.versions import ModelVersion

MAX_MODELS = 4  # maximum number of models per project
SHOWN = 6  # maximum number of names in a message
NONE_FITS = "no model fits"  # the model version sent to Label Studio if no model fits

_TASKS: dict[Kind, tuple[Task, ...]] = {
    "rectanglelabels": ("detect", "segment", "pose"),
    "polygonlabels": ("segment",),
    "keypointlabels": ("pose",),
    "choices": ("classify",),
}
_OBJECTS: set[Kind] = {"rectanglelabels", "polygonlabels"}
_TAGS: dict[Kind, str] = {
    "rectanglelabels": "RectangleLabels",
    "polygonlabels": "PolygonLabels",
    "keypointlabels": "KeyPointLabels",
    "choices": "Choices",
}


@dataclass(frozen=True, slots=True)
class Share:
    """The labels of a project that one model fills.

    Attributes:
        model: The model.
        kind: Type of the regions that carry the model's classes.
        labels: Class name → label; empty if only keypoints are written.
        points: Keypoint name → label.
        confidence: The score threshold in the configuration, if any.
    """

    model: ModelVersion
    kind: Kind
    labels: Mapping[str, str]
    points: Mapping[str, str]
    confidence: float | None = None

    @property
    def task(self) -> Task:
        """The task to predict: the model's, or `detect` if only boxes are written."""
        task = self.model.description.task
        return "detect" if self.kind == "rectanglelabels" and not self.points else task

    def write(self, found: Annotations) -> Annotations:
        """The objects that have a label in the project, renamed to it and with new ids."""
        written = []
        for thing in found.objects:
            label = self.labels.get(thing.label)
            if label is None and (self.labels or not self.points):
                continue
            points = tuple(
                replace(point, name=self.points[point.name])
                for point in thing.keypoints
                if point.name in self.points
            )
            box = thing.box if label is not None else None
            if label is None and not any(point.visibility for point in points):
                continue
            written.append(
                replace(
                    thing,
                    label=label or thing.label,
                    box=box,
                    keypoints=points,
                    id=secrets.token_hex(5),
                )
            )
        return replace(found, objects=tuple(written))


@dataclass(frozen=True, slots=True)
class Preannotation:
    """The assignment of models to the controls of a project.

    Attributes:
        config: The labelling configuration.
        shares: The labels that each model fills; empty if no model fits.
        reasons: Sentences about controls that no model fills.
    """

    config: LabelConfig
    shares: tuple[Share, ...]
    reasons: tuple[str, ...]

    @property
    def version(self) -> str:
        """The ids of the models; Label Studio requests predictions again when this changes."""
        ids = sorted(share.model.id for share in self.shares)
        return "+".join(dict.fromkeys(ids)) or NONE_FITS

    def regions(self, share: Share, found: Annotations) -> list[Region]:
        """The predictions of an image as regions of the project's controls."""
        names: dict[str, str] = {c.kind: c.name for c in reversed(self.config.controls)}
        return to_label_studio(share.write(found), names, self.config.image_name)


def plan(
    config: LabelConfig, models: Sequence[ModelVersion], wanted: str | None = None
) -> Preannotation:
    """Assign models to the controls of a project.

    Args:
        config: The project's labelling configuration.
        models: The available models, in order of preference.
        wanted: Id or name of the model to prefer to all others.
    """
    shares = [share for model in models if (share := _share(config, model)) is not None]
    shares.sort(key=lambda share: _rank(share, wanted), reverse=True)
    chosen: list[Share] = []
    taken: set[tuple[str, str]] = set()
    for share in shares:
        left = _without(share, taken)
        if left is not None and len(chosen) < MAX_MODELS:
            chosen.append(left)
            taken |= _filled_labels(left)
    filled = {kind for share in chosen for kind in _kinds(share)}
    if filled & _OBJECTS:  # one filled object control is enough
        filled |= _OBJECTS
    reasons = [_reason(c, models) for c in config.controls if c.kind not in filled]
    if not config.controls:
        reasons = [_no_control(config)]
    return Preannotation(config, tuple(chosen), tuple(dict.fromkeys(reasons)))


def near(found: Annotations, drawn: Sequence[Mapping[str, Any]]) -> Annotations:
    """The predicted objects that a person's last drawn region selects; all if there is no region.

    A keypoint selects the smallest object whose box contains it; any other region selects the
    objects whose centres are inside its box.
    """
    area = _area(drawn[-1], found.width, found.height) if drawn else None
    if area is None:
        return found
    x1, y1, x2, y2 = area
    if x1 == x2 and y1 == y2:
        around = [o for o in found.objects if o.bounds and _inside((x1, y1), o.bounds)]
        smallest = sorted(around, key=lambda o: _size(o.bounds))[:1]
        return replace(found, objects=tuple(smallest))
    kept = (o for o in found.objects if o.bounds and _inside(_centre(o.bounds), area))
    return replace(found, objects=tuple(kept))


def _share(config: LabelConfig, model: ModelVersion) -> Share | None:
    task, names = model.description.task, model.description.names
    controls = {
        control.kind: control
        for control in reversed(config.controls)
        if not control.model or control.model in (model.id, model.name)
    }
    kind: Kind = "choices" if task == "classify" else "rectanglelabels"
    if task == "segment" and "polygonlabels" in controls:
        kind = "polygonlabels"
    control = controls.get(kind)
    labels = control.labels_of(names) if control else {}
    points: dict[str, str] = {}
    if task == "pose" and (points_control := controls.get("keypointlabels")):
        points = _points(points_control, model)
        control = control or points_control
    if not labels and not points:
        return None
    confidence = control.confidence if control else None
    return Share(model, kind, labels, points, confidence)


def _points(control: Control, model: ModelVersion) -> dict[str, str]:
    """Keypoint name → label, matched by `model_index` or by name."""
    shape = model.description.keypoint_shape
    names = keypoint_labels(model.description.keypoint_names, shape[0] if shape else 0)
    found = control.labels_of(names)
    for label in control.labels:
        if label.point is not None and label.point < len(names):
            found[names[label.point]] = label.value
    return found


def _rank(share: Share, wanted: str | None) -> tuple[bool, int, bool, int]:
    asked = wanted in (share.model.id, share.model.name)
    controls = len(_kinds(share))
    return asked, controls, share.model.active, len(share.labels)


def _kinds(share: Share) -> set[Kind]:
    kinds: set[Kind] = {share.kind} if share.labels else set()
    return kinds | {"keypointlabels"} if share.points else kinds


def _filled_labels(share: Share) -> set[tuple[str, str]]:
    """The filled labels, each with its group: choice, object or keypoint."""
    group = "choice" if share.kind == "choices" else "object"
    filled = {(group, plain(label)) for label in share.labels.values()}
    return filled | {("point", plain(label)) for label in share.points.values()}


def _without(share: Share, taken: set[tuple[str, str]]) -> Share | None:
    group = "choice" if share.kind == "choices" else "object"
    labels = {c: v for c, v in share.labels.items() if (group, plain(v)) not in taken}
    points = {n: v for n, v in share.points.items() if ("point", plain(v)) not in taken}
    if not labels and not points:
        return None
    return replace(share, labels=labels, points=points)


def _reason(control: Control, models: Sequence[ModelVersion]) -> str:
    tag = f'<{_TAGS[control.kind]} name="{control.name}">'
    tasks = _TASKS[control.kind]
    if control.model:
        models = [m for m in models if control.model in (m.id, m.name)]
    fitting = [model for model in models if model.description.task in tasks]
    if not fitting:
        which = f"'{control.model}' is no" if control.model else "no"
        kinds = " or ".join(TYPES[task] for task in tasks)
        return f"{tag}: {which} {kinds} model is active or promoted."
    if control.kind == "keypointlabels":
        return (
            f"{tag}: none of its labels is a key point of {fitting[0].id}. Give each Label "
            'model_index="0", "1", … or the name of the key point as its value.'
        )
    if not control.labels:
        return f"{tag} has no labels."
    known = "; ".join(f"{m.id} has {shown_names(m.description.names, SHOWN)}" for m in fitting[:2])
    labels = shown_names([label.value for label in control.labels], SHOWN)
    return (
        f"{tag}: none of its labels ({labels}) is a class of a model "
        f"({known}). Rename a label, or map it: "
        f'predicted_values="{fitting[0].description.names[0]}".'
    )


def _no_control(config: LabelConfig) -> str:
    has = f" It has {shown_names(config.others, SHOWN)}." if config.others else ""
    return (
        "The labelling configuration has no control for its image that can be predicted. These "
        f"can: {', '.join(_TAGS.values())}.{has}"
    )


def _area(region: Mapping[str, Any], width: int, height: int) -> Box | None:
    """The bounding box of a drawn region in pixels; that of a keypoint has no area."""
    value = region.get("value")
    if not isinstance(value, Mapping):
        return None
    try:
        points = value.get("points") or [[value["x"], value["y"]]]
        xs, ys = zip(*((float(x), float(y)) for x, y in points), strict=True)
        box = min(xs), min(ys), max(xs), max(ys)
        if "points" not in value and region.get("type") != "keypointlabels":
            box = (*box[:2], box[0] + float(value["width"]), box[1] + float(value["height"]))
    except (KeyError, TypeError, ValueError):
        return None
    x, y = width / 100, height / 100
    return box[0] * x, box[1] * y, box[2] * x, box[3] * y


def _inside(point: tuple[float, float], box: Box) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


def _centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _size(box: Box | None) -> float:
    return (box[2] - box[0]) * (box[3] - box[1]) if box else 0.0
