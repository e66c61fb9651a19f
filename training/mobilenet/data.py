"""Image datasets of the MobileNet trainer: decoded images are cached, up to a memory limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import InterpolationMode, v2

from inference.images import decode
from models_store.description import Preprocessing
from models_store.weights import describe_mobilenet
from settings import get_settings
from training.planning.recipe import Recipe

CACHE = 1024**3  # bytes of cached images, over all loader processes together
_BY_NAME = {
    "nearest": InterpolationMode.NEAREST,
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
}
LARGE = 3  # images whose shorter side exceeds this multiple of imgsz are downscaled before caching


class Training(Dataset[tuple[Tensor, int, int]]):
    """Training images, augmented: tensor float32 (3, imgsz, imgsz), normalised; class id; index."""

    def __init__(
        self,
        images: Sequence[Path],
        classes: Mapping[Path, int],
        recipe: Recipe,
        how: Preprocessing,
        cache: int = CACHE,
    ) -> None:
        self.images = tuple(images)
        self.classes = classes
        self.transform = augmentation(recipe, how)
        self._large = LARGE * recipe.imgsz
        self._kept: dict[int, Image.Image] = {}
        self._free = cache

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        path = self.images[index]
        image = self._kept.get(index)
        if image is None:
            image = _read(path)
            if (short := min(image.size)) > self._large:
                image = image.reduce(short // self._large + 1)
            size = image.width * image.height * 3
            if size <= self._free:
                self._kept[index] = image
                self._free -= size
        return self.transform(image), self.classes[path], index


class Validation(Dataset[tuple[Tensor, int]]):
    """Validation images with the same preprocessing as in serving, and their class ids."""

    def __init__(
        self,
        images: Sequence[Path],
        classes: Mapping[Path, int],
        how: Preprocessing,
        cache: int = CACHE,
    ) -> None:
        self.images = tuple(images)
        self.classes = classes
        self.transform = evaluation(how)
        self._kept: dict[int, Tensor] = {}
        self._free = cache

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path = self.images[index]
        picture = self._kept.get(index)
        if picture is None:
            picture = self.transform(_read(path))
            if picture.nbytes <= self._free:
                self._kept[index] = picture
                self._free -= picture.nbytes
        return picture, self.classes[path]


def augmentation(recipe: Recipe, how: Preprocessing) -> v2.Compose:
    """The augmentation: random affine, crop, colour jitter and erasing; flips only if requested.

    A mirrored traffic sign, letter or tool often belongs to another class.
    """
    hyper = recipe.hyper
    saturation, value = float(hyper.get("hsv_s", 0.4)), float(hyper.get("hsv_v", 0.4))
    shift = float(hyper.get("translate", 0.1))
    return v2.Compose(
        [
            v2.RandomAffine(
                degrees=float(hyper.get("degrees", 10.0)),
                translate=(shift, shift) if shift else None,
                interpolation=InterpolationMode.BILINEAR,
                fill=114,
            ),
            v2.RandomResizedCrop(
                recipe.imgsz,
                scale=(max(0.05, 1 - float(hyper.get("scale", 0.5))), 1.0),
                ratio=(0.8, 1.25),
                antialias=True,
            ),
            v2.RandomHorizontalFlip(float(hyper.get("fliplr", 0.0))),
            v2.RandomVerticalFlip(float(hyper.get("flipud", 0.0))),
            v2.ColorJitter(value, value, saturation, float(hyper.get("hsv_h", 0.015))),
            *_to_tensor(how),
            v2.RandomErasing(float(hyper.get("erasing", 0.1)), scale=(0.02, 0.2)),
        ]
    )


def evaluation(how: Preprocessing) -> v2.Compose:
    """The preprocessing of serving as a transform, for `squash` and `centre_crop`."""
    if how.resize == "squash":
        sizes: list[Any] = [v2.Resize((how.imgsz, how.imgsz), _BY_NAME[how.interpolation])]
    else:
        short = how.resize_to or how.imgsz
        sizes = [v2.Resize(short, _BY_NAME[how.interpolation]), v2.CenterCrop(how.imgsz)]
    return v2.Compose([*sizes, *_to_tensor(how)])


def preprocessing_for(imgsz: int, known: Preprocessing | None) -> Preprocessing:
    """The preprocessing to train with: that of the start weights at the new size, else ImageNet's.

    Args:
        imgsz: Input size of the model to train, in pixels.
        known: Preprocessing of the start weights; None, or a letterbox: ImageNet's is used.
    """
    if known is None or known.resize == "letterbox":
        return describe_mobilenet(1, imgsz).preprocessing
    short = known.resize_to and round(known.resize_to * imgsz / known.imgsz)
    return known.model_copy(update={"imgsz": imgsz, "resize_to": short, "antialias": True})


def _to_tensor(how: Preprocessing) -> list[Any]:
    return [
        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(how.mean, how.std),
    ]


def _read(path: Path) -> Image.Image:
    """The decoded image: RGB, with its EXIF orientation applied, as in serving."""
    return Image.fromarray(decode(path.read_bytes(), get_settings().max_pixels))
