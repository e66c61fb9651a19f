"""Features and hardness of images, computed with a frozen model."""

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
from training.start_weights import last_layer

BATCH = 16  # images in a batch
LOG_EVERY = 500  # images between two lines in the log

Check = Callable[[], None]
Log = Callable[[str], None]


class ImageFeatures(NamedTuple):
    """Features and hardness of images.

    Attributes:
        features: Pooled inputs of the model's head (images, dimensions).
        hardness: 1 − the model's score for the labelled class, averaged over an image's objects
            for detectors (images,), 0 to 1.
    """

    features: NDArray[np.float32]
    hardness: NDArray[np.float32]


class FeatureExtractor:
    """A network in eval mode, with its preprocessing.

    Args:
        model: A YOLO network or a MobileNet; it is moved to `device`.
        task: The network's task.
        imgsz: Side of the square input, pixels.
        device: Where to run it.
        how: Its preprocessing; None: that of YOLO.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        imgsz: int,
        device: torch.device,
        how: Preprocessing | None = None,
    ) -> None:
        self.model: Any = model.to(device).eval()
        self.task, self.device = task, device
        resize: Any = "centre_crop" if task == "classify" else "letterbox"
        self.how = how or Preprocessing(
            resize=resize,
            imgsz=imgsz,
            resize_to=imgsz if task == "classify" else None,
            antialias=task == "classify",
        )

    def extract(
        self,
        images: Sequence[Path],
        truth: Mapping[Path, Sequence[LabelRow]],
        check: Check = lambda: None,
        log: Log = lambda _: None,
        log_every: int = LOG_EVERY,
    ) -> ImageFeatures:
        """Compute features and hardness of images.

        Args:
            images: Image files.
            truth: Image → its labelled objects under this model's class ids; for a classifier
                one row without values.
            check: Called between batches; may raise.
            log: Called with a line on progress.
            log_every: Images between two lines.
        """
        features, hardness = list[Any](), list[float]()
        for batch, output, pooled in self._run(images, check):
            done = len(hardness) + len(batch)
            if len(hardness) // log_every != done // log_every:
                log(f"Features of {done} of {len(images)} images are computed.")
            features.append(pooled.cpu().numpy())
            for image, out in zip(batch, self._split(output), strict=True):
                hardness.append(self._hardness(image.path, out, truth[image.path], image.box))
        return ImageFeatures(np.concatenate(features), np.array(hardness, np.float32))

    @torch.inference_mode()
    def _run(
        self, images: Sequence[Path], check: Check
    ) -> Iterator[tuple[list[_Image], Any, Tensor]]:
        kept: list[Tensor] = []
        observed = last_layer(self.model) if self.task == "classify" else self.model.model[-1]
        hook = observed.register_forward_pre_hook(lambda _, inputs: kept.append(_pooled(inputs[0])))
        limit = get_settings().max_pixels
        try:
            for start in range(0, len(images), BATCH):
                check()
                loaded, pixels = [], []
                for path in images[start : start + BATCH]:
                    image = decode(path.read_bytes(), limit)
                    height, width = image.shape[:2]
                    box = Letterbox(width, height, self.how.imgsz)
                    loaded.append(_Image(path, box))
                    pixels.append(prepare(image, self._description(), box))
                batch = torch.from_numpy(normalise(np.stack(pixels), self.how)).to(self.device)
                kept.clear()
                output = self.model(batch)
                yield loaded, output, kept[0].float()
        finally:
            hook.remove()

    def _description(self) -> ModelDescription:
        return ModelDescription(
            task=self.task, family="yolo", names=(), architecture={}, preprocessing=self.how
        )

    def _split(self, output: Any) -> Tensor:
        """The decoded output: (images, classes), or (images, 4 + classes + …, anchors)."""
        while isinstance(
            output, list | tuple
        ):  # the decoded output comes first, the raw ones for the losses follow
            output = output[0]
        found: Tensor = output.float().cpu()
        # YOLO classifiers return probabilities in eval mode, MobileNet logits
        return found if hasattr(self.model, "yaml") else found.softmax(1)

    def _hardness(
        self, path: Path, output: Tensor, rows: Sequence[LabelRow], box: Letterbox
    ) -> float:
        known = len(output) if self.task == "classify" else len(self.model.names)
        rows = [row for row in rows if row.cls < known]
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
    """Features as (images, channels); those of a detector's levels are concatenated."""
    if isinstance(inputs, Tensor):
        return inputs.flatten(1)
    return torch.cat([level.mean((2, 3)) for level in inputs], 1)


def _score(output: Tensor, row: LabelRow, box: Letterbox, polygon: bool) -> float:
    """The highest score of the labelled class among boxes that overlap the object by IoU ≥ 0.5.

    Args:
        output: (4 + classes + …, anchors), boxes as centre xywh in pixels of the input.
        row: Box, perhaps with key points, or polygon; fractions of the image.
        box: Placement of the image in the square input.
        polygon: Whether the row is a polygon.
    """
    from torchvision.ops import box_convert, box_iou  # slow import

    if polygon:
        points = np.array(row.values, np.float32).reshape(-1, 2)
        corners = np.array([points.min(axis=0), points.max(axis=0)])
    else:
        x, y, w, h = row.values[:4]
        corners = np.array([[x - w / 2, y - h / 2], [x + w / 2, y + h / 2]])
    scale = np.array((box.width, box.height), np.float32)
    target = torch.from_numpy(box.points_to_frame((corners * scale).astype(np.float32)))
    found = box_convert(output[:4].T, "cxcywh", "xyxy")
    meets = box_iou(found, target.reshape(1, 4))[:, 0] >= 0.5
    scores = output[4 + row.cls][meets]
    return float(scores.max()) if len(scores) else 0.0
