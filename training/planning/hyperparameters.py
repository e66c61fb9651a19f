"""The hyperparameters that clients may set: their allowed values, and which models have which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from errors import ValidationFailed
from field_names import unknown_sentence
from models_store.description import Family, Task


@dataclass(frozen=True)
class Number:
    """A hyperparameter that is a number within bounds, both inclusive."""

    low: float
    high: float
    whole: bool = False

    def check(self, value: object) -> float | int | None:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return None
        try:
            number = float(value)
        except (ValueError, OverflowError):
            return None
        if not self.low <= number <= self.high or (self.whole and number != int(number)):
            return None
        return int(number) if self.whole else number

    @property
    def schema(self) -> dict[str, Any]:
        kind = "integer" if self.whole else "number"
        return {"type": kind, "minimum": self.low, "maximum": self.high}

    def __str__(self) -> str:
        return f"{'a whole' if self.whole else 'a'} number from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Choice:
    """A hyperparameter that is one of several words; case is ignored."""

    words: tuple[str, ...]

    def check(self, value: object) -> str | None:
        return next((word for word in self.words if str(value).lower() == word.lower()), None)

    @property
    def schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.words)}

    def __str__(self) -> str:
        return f"one of {', '.join(self.words)}"


@dataclass(frozen=True)
class Switch:
    """A hyperparameter that is true or false."""

    def check(self, value: object) -> bool | None:
        return {"true": True, "1": True, "false": False, "0": False}.get(str(value).lower())

    @property
    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}

    def __str__(self) -> str:
        return "true or false"


Kind = Number | Choice | Switch

EVERY: dict[str, Kind] = {
    "lr0": Number(1e-6, 1),
    "lrf": Number(1e-6, 1),
    "weight_decay": Number(0, 1),
    "warmup_epochs": Number(0, 1000),
    "hsv_h": Number(0, 0.5),
    "hsv_s": Number(0, 1),
    "hsv_v": Number(0, 1),
    "scale": Number(0, 1),
    "fliplr": Number(0, 1),
    "flipud": Number(0, 1),
    "bn_momentum": Number(0.001, 1),
    "workers": Number(0, 64, whole=True),
    "seed": Number(0, 2**31 - 1, whole=True),
}
AFFINE: dict[str, Kind] = {"degrees": Number(0, 180), "translate": Number(0, 1)}
CLASSIFIER: dict[str, Kind] = {"erasing": Number(0, 0.9), "dropout": Number(0, 0.9)}
MOBILENET: dict[str, Kind] = EVERY | AFFINE | CLASSIFIER | {"label_smoothing": Number(0, 0.5)}
YOLO: dict[str, Kind] = EVERY | {
    "optimizer": Choice(("auto", "SGD", "Adam", "AdamW", "NAdam", "RAdam", "RMSProp", "MuSGD")),
    "momentum": Number(0, 1),
    "warmup_momentum": Number(0, 1),
    "warmup_bias_lr": Number(0, 1),
    "nbs": Number(1, 1024, whole=True),
    "cos_lr": Switch(),
    "amp": Switch(),
    "plots": Switch(),
    "cache": Choice(("false", "ram")),  # "disk" would write into the dataset
    "fraction": Number(0.001, 1),
}
BOXES: dict[str, Kind] = AFFINE | {
    "box": Number(0, 100),
    "cls": Number(0, 100),
    "dfl": Number(0, 100),
    "shear": Number(0, 180),
    "perspective": Number(0, 0.001),
    "mosaic": Number(0, 1),
    "mixup": Number(0, 1),
    "close_mosaic": Number(0, 10_000, whole=True),
    "multi_scale": Number(0, 0.9),
    "cls_pw": Number(0, 1),
}
OF_TASK: dict[Task, dict[str, Kind]] = {
    "detect": BOXES,
    "segment": BOXES | {"copy_paste": Number(0, 1)},  # needs polygons
    "pose": BOXES | {"pose": Number(0, 100), "kobj": Number(0, 100)},
    "classify": CLASSIFIER
    | {"auto_augment": Choice(("randaugment", "autoaugment", "augmix", "none"))},
}
"""Task → hyperparameters that have an effect in YOLO models for it only (Ultralytics 8.4.190)."""

MEANINGS: dict[str, dict[str, str]] = {
    "Schedule": {
        "optimizer": "the optimiser; auto: by the number of steps",
        "lr0": "initial learning rate",
        "lrf": "final learning rate, as a share of the initial one",
        "cos_lr": "whether the learning rate falls along a cosine",
        "momentum": "momentum of SGD, beta1 of Adam",
        "weight_decay": "L2 penalty of the weights",
        "warmup_epochs": "epochs in which the learning rate rises; fractions are allowed",
        "warmup_momentum": "momentum at the start of the warm-up",
        "warmup_bias_lr": "learning rate of biases at the start of the warm-up",
        "nbs": "images whose gradients are summed up before a step",
        "label_smoothing": "share of a label that is spread over the other classes",
        "dropout": "share of the classifier's inputs that are dropped",
        "bn_momentum": "momentum of batch normalisation's statistics",
        "box": "weight of the box loss",
        "cls": "weight of the class loss",
        "cls_pw": "how much rare classes weigh more; 0: not at all, 1: by inverse frequency",
        "dfl": "weight of the distribution focal loss",
        "pose": "weight of the keypoint loss",
        "kobj": "weight of the keypoints' objectness",
    },
    "Augmentation": {
        "hsv_h": "change of hue, as a share of the circle",
        "hsv_s": "change of saturation, as a share",
        "hsv_v": "change of brightness, as a share",
        "degrees": "rotation by up to so many degrees",
        "translate": "shift by up to this share of the image",
        "scale": "change of size by up to this share",
        "shear": "shear by up to so many degrees",
        "perspective": "perspective distortion",
        "fliplr": "probability of a flip from left to right; 0 where sides have a meaning",
        "flipud": "probability of a flip upside down",
        "mosaic": "probability that four images become one",
        "close_mosaic": "last epochs without mosaic",
        "mixup": "probability that two images are blended",
        "copy_paste": "probability that objects are copied into other images",
        "multi_scale": "change of the image size from batch to batch, as a share",
        "erasing": "probability that a part of the image is erased",
        "auto_augment": "the classifier's augmentation policy",
    },
    "Data": {
        "workers": "processes that load images",
        "cache": "ram: decoded images are kept in memory",
        "fraction": "share of the training images that is used",
        "seed": "the number that all random choices follow from",
        "amp": "whether the GPU computes in half precision where that is safe",
        "plots": "whether curves and examples are drawn into the job's folder",
    },
}
"""Group of a form → hyperparameters of it, with their meanings."""

NAMES = frozenset(YOLO | MOBILENET).union(*OF_TASK.values())
"""Names of all hyperparameters, of all kinds of models."""


def known_hyperparameters(family: Family, task: Task) -> Mapping[str, Kind]:
    """The hyperparameters that a kind of model has."""
    if family == "mobilenet":
        return MOBILENET
    return YOLO | OF_TASK[task]


def check_hyperparameters(given: Mapping[str, Any], family: Family, task: Task) -> dict[str, Any]:
    """Check hyperparameters and convert them to their types; None and empty strings are dropped.

    Raises:
        ValidationFailed: A name is unknown, or has no effect in this kind of model, or a value is
            out of range.
    """
    known = known_hyperparameters(family, task)
    checked = {}
    for name, value in given.items():
        if value is None or value == "":
            continue
        kind = known.get(name)
        if kind is None and name in NAMES:
            raise ValidationFailed(
                f"The training parameter {name} has no effect on a {family} model for {task}. "
                f"Leave it out. Those that have one: {', '.join(known)}."
            )
        if kind is None:
            raise ValidationFailed(
                f"Unknown training parameter for {family} {task}. {unknown_sentence(name, known)}"
            )
        result = kind.check(value)
        if result is None:
            raise ValidationFailed(f"{name} is {str(value)[:40]!r}; allowed is {kind}.")
        checked[name] = result
    return checked
