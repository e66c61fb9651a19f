"""The model before it learns on, looked at from outside: what it makes of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dataset.label_files import LabelRow
from inference.images import decode
from inference.preprocess import Letterbox, normalise, prepare
from models_store.description import ModelDescription, Preprocessing, Task
from settings import get_settings

AT_ONCE = 16  # pictures in a batch
TOLD = 500  # pictures between two lines in the log

Check = Callable[[], None]
Log = Callable[[str], None]


class ImageFeatures(NamedTuple):
    """What the model made of pictures.

    Attributes:
        features: Its pooled features, (pictures, dimensions).
        hardness: How unsure it is of what the labels say: 1 − the score it gives to the right
            class, for detectors averaged over the objects; (pictures,), 0 to 1.
    """

    features: NDArray[np.float32]
    hardness: NDArray[np.float32]


class FeatureExtractor:
    """A frozen network and how it sees pictures."""

    def __init__(self, model: nn.Module, task: Task, imgsz: int, device: torch.device) -> None:
        self.model: Any = model.to(device).eval()
        self.task, self.device = task, device
        resize: Any = "centre_crop" if task == "classify" else "letterbox"
        self.how = Preprocessing(
            resize=resize,
            imgsz=imgsz,
            resize_to=imgsz if task == "classify" else None,
            antialias=task == "classify",
        )

    def look(
        self,
        images: Sequence[Path],
        truth: Mapping[Path, Sequence[LabelRow]],
        check: Check = lambda: None,
        log: Log = lambda _: None,
    ) -> ImageFeatures:
        """Features and hardness of pictures.

        Args:
            images: Files.
            truth: Their objects under this model's ids; a classifier's is one row without values.
            check: Called between batches; may raise.
            log: Told now and then how far it is; thousands of pictures take minutes.
        """
        features, hardness = list[Any](), list[float]()
        for some, output, pooled in self._run(images, check):
            if len(hardness) // TOLD != (len(hardness) + len(some)) // TOLD:
                log(f"{len(hardness) + len(some)} of {len(images)} pictures were looked at.")
            features.append(pooled.cpu().numpy())
            for image, out in zip(some, self._split(output), strict=True):
                hardness.append(self._hardness(image.path, out, truth[image.path], image.box))
        return ImageFeatures(np.concatenate(features), np.array(hardness, np.float32))

    @torch.inference_mode()
    def _run(
        self, images: Sequence[Path], check: Check
    ) -> Iterator[tuple[list[_Image], Any, Tensor]]:
        kept: list[Tensor] = []
        head = self.model.model[-1]
        watched = head.linear if self.task == "classify" else head
        hook = watched.register_forward_pre_hook(lambda _, inputs: kept.append(_pooled(inputs[0])))
        limit = get_settings().max_pixels
        try:
            for start in range(0, len(images), AT_ONCE):
                check()
                some, pixels = [], []
                for path in images[start : start + AT_ONCE]:
                    picture = decode(path.read_bytes(), limit)
                    height, width = picture.shape[:2]
                    some.append(_Image(path, Letterbox(width, height, self.how.imgsz)))
                    pixels.append(prepare(picture, self._description()))
                batch = torch.from_numpy(normalise(np.stack(pixels), self.how)).to(self.device)
                kept.clear()
                output = self.model(batch)
                yield some, output, kept[0].float()
        finally:
            hook.remove()

    def _description(self) -> ModelDescription:
        return ModelDescription(
            task=self.task, family="yolo", names=(), architecture={}, preprocessing=self.how
        )

    def _split(self, output: Any) -> Tensor:
        """(pictures, classes) or (pictures, 4 + classes + …, anchors)."""
        while isinstance(output, list | tuple):  # decoded first, what the losses need behind
            output = output[0]
        found: Tensor = output.float().cpu()
        return found

    def _hardness(
        self, path: Path, output: Tensor, rows: Sequence[LabelRow], box: Letterbox
    ) -> float:
        rows = [row for row in rows if row.cls < len(self.model.names)]
        if not rows:
            return 0.0
        if self.task == "classify":
            return 1.0 - float(output[rows[0].cls])
        polygons = self.task == "segment"
        return float(np.mean([1.0 - _score(output, row, box, polygons) for row in rows]))


class _Image(NamedTuple):
    path: Path
    box: Letterbox


def _pooled(inputs: Any) -> Tensor:
    """Features as (pictures, channels); those of a detector's levels side by side."""
    if isinstance(inputs, Tensor):
        return inputs.flatten(1)
    return torch.cat([level.mean((2, 3)) for level in inputs], 1)


def _score(output: Tensor, row: LabelRow, box: Letterbox, polygon: bool) -> float:
    """The highest score of the right class among the boxes that meet the object by half.

    Args:
        output: (4 + classes + …, anchors), centre xywh in pixels of the square.
        row: Box, perhaps with key points, or polygon, as fractions of the picture.
        box: Where the picture lies in the square.
        polygon: Whether the row is one.
    """
    from torchvision.ops import box_convert, box_iou  # takes a second

    if polygon:
        points = np.array(row.values, np.float32).reshape(-1, 2)
        corners = np.array([points.min(axis=0), points.max(axis=0)])
    else:
        x, y, w, h = row.values[:4]
        corners = np.array([[x - w / 2, y - h / 2], [x + w / 2, y + h / 2]])
    scale = np.array((box.width, box.height), np.float32)
    target = torch.from_numpy(box.points_to_square((corners * scale).astype(np.float32)))
    found = box_convert(output[:4].T, "cxcywh", "xyxy")
    meets = box_iou(found, target.reshape(1, 4))[:, 0] >= 0.5
    scores = output[4 + row.cls][meets]
    return float(scores.max()) if len(scores) else 0.0
