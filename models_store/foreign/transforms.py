"""Preprocessing from a classifier's checkpoint: pickled torchvision transforms, not executed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from errors import InvalidModelFile
from models_store.description import Preprocessing
from models_store.foreign.inert_pickle import Inert, TensorReference

CONVERSIONS = frozenset({"ToTensor", "PILToTensor", "ToImage", "ToDtype", "ConvertImageDtype"})


def preprocessing_of(
    compose: Inert, values: Callable[[TensorReference], list[float]]
) -> Preprocessing:
    """Describe a pickled `Compose(Resize, CenterCrop, ToTensor, Normalize)`.

    Args:
        compose: The inert stand-in for the pickled Compose.
        values: Reads the values of a small tensor.

    Raises:
        InvalidModelFile: Serving cannot reproduce a transform, or their order.
    """
    resize = crop = None
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    interpolation = "bilinear"
    steps = compose.get("transforms")
    for step in steps if isinstance(steps, list) else []:
        kind = step.kind if isinstance(step, Inert) else type(step).__name__
        if kind == "Resize" and resize is None and crop is None:
            resize = _size(step.get("size"))
            interpolation = _interpolation(step.get("interpolation"))
        elif kind == "CenterCrop" and crop is None:
            crop = _size(step.get("size") or (step.get("h"), step.get("w")))
        elif kind == "Normalize":
            mean = _channels(step.get("mean"), values)
            std = _channels(step.get("std"), values)
        elif kind not in CONVERSIONS:
            raise InvalidModelFile(
                f"The classifier's preprocessing contains {kind!r}, which serving does not "
                "support. Supported: Resize, CenterCrop, ToTensor, Normalize."
            )
    return _assemble(resize, crop, interpolation, mean, std)


def _assemble(
    resize: Any, crop: Any, interpolation: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> Preprocessing:
    square = crop or resize
    if isinstance(square, tuple):
        square = square[0] if square[0] == square[1] else None
    exact = isinstance(resize, tuple) and crop in (None, resize, resize[0])
    whole = resize is None or (isinstance(resize, int) and resize >= (square or 0))
    centred = crop is not None and whole
    if not square or not (exact or centred):
        raise InvalidModelFile(
            f"The classifier's preprocessing (resize {resize}, crop {crop}) does not produce a "
            "square image, which serving requires."
        )
    try:
        return Preprocessing.model_validate(
            {
                "resize": "squash" if exact else "centre_crop",
                "imgsz": square,
                "resize_to": None if exact else resize or square,
                "interpolation": interpolation,
                "antialias": True,  # torchvision always antialiases PIL images
                "mean": mean,
                "std": std,
            }
        )
    except ValidationError as error:
        raise InvalidModelFile(
            "The classifier's preprocessing has unusable numbers. Correct its transforms, and "
            "save it again."
        ) from error


def _size(value: Any) -> int | tuple[int, int] | None:
    numbers = [value] if isinstance(value, int) else value
    if not isinstance(numbers, list | tuple) or not 1 <= len(numbers) <= 2:
        return None
    if not all(isinstance(n, int) and 1 <= n <= 8192 for n in numbers):
        return None
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def _interpolation(value: Any) -> str:
    """The interpolation: an enum member, pickled as a call with its value or getattr by name."""
    if isinstance(value, Inert):
        value = value.args[-1] if value.args else "bilinear"
    by_number = {0: "nearest", 2: "bilinear", 3: "bicubic"}
    name = by_number.get(value, str(value)) if isinstance(value, int) else str(value or "bilinear")
    name = name.lower().rpartition(".")[2]
    if name not in by_number.values():
        raise InvalidModelFile(
            f"The classifier resizes with {name!r}, which serving does not support. Use bilinear "
            "or bicubic."
        )
    return name


def _channels(value: Any, values: Callable[[TensorReference], list[float]]) -> tuple[float, ...]:
    numbers = values(value) if isinstance(value, TensorReference) else value
    if isinstance(numbers, int | float):
        numbers = [numbers] * 3
    if not isinstance(numbers, list | tuple):
        raise InvalidModelFile(
            "The classifier's normalisation cannot be read. Use Normalize with one mean and std "
            "per channel."
        )
    if len(numbers) == 1:
        numbers = list(numbers) * 3
    return tuple(float(number) for number in numbers)
