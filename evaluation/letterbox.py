"""The letterboxes that an evaluation can measure with.

`rect` and `square` are those of engines, see `inference.preprocess.Letterbox`. Evaluations with
different letterboxes are never compared. A classifier has none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from errors import ValidationFailed
from inference.preprocess import MIN_STRIDE, Letterbox, LetterboxKind
from models_store.description import ModelDescription

AskedLetterbox = Literal["square", "val_rect"]
MeasuredLetterbox = Literal["rect", "square", "val_rect"]
ASKED: tuple[AskedLetterbox, ...] = ("square", "val_rect")

VAL_BATCH = 16  # images in a batch of `yolo val`, which have one shape
VAL_PAD = 0.5  # strides added to a batch's shape before it is rounded up

EXPLAINED: dict[MeasuredLetterbox, str] = {
    "rect": "Images are padded to the smallest rectangle of multiples of the stride, as they are "
    "when they are served, and as Ultralytics' predict() pads them.",
    "square": "Images are padded to a square, as Ultralytics' val(rect=False) pads them.",
    "val_rect": "Images are padded to the rectangles of Ultralytics' val(rect=True), which are "
    f"larger than those that are served: {VAL_BATCH} images of similar aspect ratio have one.",
}
PADDED: dict[str | None, str] = {
    "rect": "to a rectangle",
    "square": "to a square",
    "val_rect": "to the rectangles of val",
    None: "not at all",
}


@dataclass(frozen=True, slots=True)
class ValidationLetterbox(Letterbox):
    """A letterbox whose shorter side is rounded up, where `Letterbox` rounds to the nearest pixel.

    Equal to `BaseDataset.load_image` of Ultralytics 8.4.190, including its floating-point steps.
    The size differs for 3 of 64 COCO images, which changes mAP by 0.003.

    Attributes:
        rectangle: Width and height of the network's input; None: a square.
    """

    rectangle: tuple[int, int] | None = None

    @property
    def resized(self) -> tuple[int, int]:
        gain = self.imgsz / max(self.height, self.width)
        return (
            min(math.ceil(self.width * gain), self.imgsz),
            min(math.ceil(self.height * gain), self.imgsz),
        )

    @property
    def frame(self) -> tuple[int, int]:
        return self.rectangle or (self.imgsz, self.imgsz)


def measured_letterbox(
    asked: AskedLetterbox | None, served: LetterboxKind, description: ModelDescription
) -> MeasuredLetterbox | None:
    """The letterbox of an evaluation; None for a classifier.

    Args:
        asked: None: the one that serves.
        served: The one of the model's engine.
        description: Describes the model.

    Raises:
        ValidationFailed: The model is a classifier, or its engine takes squares only.
    """
    check_asked(asked, description)
    if not description.any_size:
        return None
    if asked == "val_rect" and served == "square":
        raise ValidationFailed(
            "'letterbox' is 'val_rect', but the model's engine takes squares only: it was exported "
            "by a version before, and is made again when the server starts."
        )
    return asked or served


def check_asked(asked: str | None, description: ModelDescription) -> None:
    """Check that an evaluation of a model may be asked for with a letterbox.

    Raises:
        ValidationFailed: The model is a classifier.
    """
    if asked is not None and not description.any_size:
        raise ValidationFailed(
            "'letterbox' does not apply to a classifier, whose images are cut to one size. Leave "
            "it out."
        )


def place(
    kind: MeasuredLetterbox | None,
    description: ModelDescription,
    width: int,
    height: int,
    rectangle: tuple[int, int] | None = None,
) -> Letterbox:
    """The letterbox of an image.

    Args:
        kind: None: of a classifier, which uses the width and height only.
        description: Describes the model.
        width, height: Size of the image in pixels.
        rectangle: Width and height of the network's input, for `val_rect`: see `val_rectangles`.
    """
    if kind is None or kind == "rect":
        return Letterbox.of(description, "rect", width, height)
    return ValidationLetterbox(width, height, description.imgsz, rectangle=rectangle)


def val_rectangles(
    sizes: Sequence[tuple[int, int]], description: ModelDescription
) -> list[tuple[int, int]]:
    """Width and height of the network's input for each image of a split, in `val(rect=True)`.

    Images are sorted by aspect ratio. A batch has the shape of its image that is nearest to a
    square. Equal to `BaseDataset.set_rectangle` of Ultralytics 8.4.190.

    Args:
        sizes: Width and height of each image, in the order of their paths.
        description: Describes the model.
    """
    imgsz, stride = description.imgsz, max(description.stride, MIN_STRIDE)
    ratios = np.array([height / width for width, height in sizes])
    order = ratios.argsort()  # not stable; Ultralytics' is not either
    found = [(0, 0)] * len(sizes)
    for start in range(0, len(order), VAL_BATCH):
        batch = order[start : start + VAL_BATCH]
        lowest, highest = ratios[batch].min(), ratios[batch].max()
        shape = [1.0, 1.0]  # height and width
        if highest < 1:
            shape = [highest, 1.0]
        elif lowest > 1:
            shape = [1.0, 1 / lowest]
        rows, columns = np.ceil(np.array(shape) * imgsz / stride + VAL_PAD).astype(int) * stride
        for i in batch:
            found[int(i)] = int(columns), int(rows)
    return found


def letterbox_of(report: Mapping[str, Any]) -> str | None:
    """The letterbox of a report; those of before letterboxes were recorded had squares."""
    if "letterbox" in report:
        found: str | None = report["letterbox"]
        return found
    return None if report["model"]["type"] == "classification" else "square"
