"""The teacher network of a distillation, and the common form of teacher and student outputs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from errors import ValidationFailed
from models_store.description import Task
from training.start_weights import Start


@dataclass(frozen=True)
class Outputs:
    """Raw outputs of a network for B images, before decoding.

    Attributes:
        scores: Class logits: (B, A, C) over the A anchors of all levels; (B, C) of a classifier.
        features: Inputs of the head, (B, channels, H, W) for each level.
        boxes: Box sides (left, top, right, bottom), (B, A, 4, R): logits of their distributions
            over R bins, in strides; with R = 1 the distances themselves. None for a classifier.
        masks: Coefficients (B, A, M) and prototypes (B, M, h, w), for `segment`.
        points: Key points (B, A, values), for `pose`: x and y in strides from the anchor, in
            units that depend on the head, and a logit of the visibility if the head has one.
    """

    scores: Tensor
    features: tuple[Tensor, ...] = ()
    boxes: Tensor | None = None
    masks: tuple[Tensor, Tensor] | None = None
    points: Tensor | None = None

    @classmethod
    def of_head(cls, raw: Any) -> Outputs:
        """Convert the outputs of Ultralytics' Detect or Segment head, in train or eval mode.

        Of end-to-end heads the one-to-many branch is used, because that branch is served.
        """
        found = raw[1] if isinstance(raw, tuple) else raw
        found = found.get("one2many", found)
        boxes = found["boxes"]
        masks = None
        if "mask_coefficient" in found:
            proto = found["proto"]
            proto = proto[0] if isinstance(proto, tuple) else proto
            masks = (found["mask_coefficient"].transpose(1, 2), proto)
        return cls(
            scores=found["scores"].transpose(1, 2),
            features=tuple(found["feats"]),
            boxes=boxes.unflatten(1, (4, -1)).permute(0, 3, 1, 2),
            masks=masks,
            points=found["kpts"].transpose(1, 2) if "kpts" in found else None,
        )


@dataclass
class Captured:
    """Records the input of a layer in its next forward pass, by a hook that then is removed."""

    features: tuple[Tensor, ...] = ()
    _handle: Any = field(default=None, repr=False)

    def next_input(self, layer: nn.Module) -> None:
        self.release()
        self._handle = layer.register_forward_pre_hook(self._take)

    def release(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _take(self, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        given = inputs[0]
        self.features = tuple(given) if isinstance(given, list | tuple) else (given,)
        self.release()


class Teacher:
    """A frozen network in eval mode, without gradients.

    Args:
        start: Weights of a YOLO model for the task; for `classify`, of a MobileNet too.
        task: The student's task.
    """

    def __init__(self, start: Start, task: Task) -> None:
        if start.model is None:
            raise ValidationFailed(
                "The teacher has no weights. Choose a trained model as the teacher."
            )
        network: Any = copy.deepcopy(start.model)
        self.model = network.eval().requires_grad_(False)
        if self.is_yolo:
            self.model.fuse(verbose=False)  # with channels_last, a quarter faster on a CPU
        self.names = start.names
        self.task = task
        how = start.preprocessing
        self._mean = torch.tensor(how.mean if how else (0.0,) * 3).view(1, -1, 1, 1)
        self._std = torch.tensor(how.std if how else (1.0,) * 3).view(1, -1, 1, 1)

    @property
    def is_yolo(self) -> bool:
        return hasattr(self.model, "yaml")

    def to(self, device: torch.device) -> None:
        self.model.to(device, memory_format=torch.channels_last)
        self._mean, self._std = self._mean.to(device), self._std.to(device)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Outputs:
        """The outputs for RGB images (B, 3, H, W), 0 to 1, as in Ultralytics' batches."""
        images = (images - self._mean) / self._std
        images = images.contiguous(memory_format=torch.channels_last)
        if self.task != "classify":
            return Outputs.of_head(self.model(images))
        captured = Captured()
        captured.next_input(self.model.model[-1] if self.is_yolo else self.model.classifier)
        if not self.is_yolo:  # MobileNet's classifier gets pooled features, without positions
            features = self.model.features(images)
            captured.release()
            return Outputs(self.model.classifier(features.mean((2, 3))), (features,))
        return Outputs(self.model(images)[1], captured.features)


def check_fit(student: Any, teacher: Teacher) -> None:
    """Check that both detection heads have the same anchors.

    Raises:
        ValidationFailed: The strides of their levels differ.
    """
    ours, theirs = (
        [int(stride) for stride in model.model[-1].stride] for model in (student, teacher.model)
    )
    if ours != theirs:
        raise ValidationFailed(
            f"The teacher's head has the strides {theirs}, the student's head {ours}, so their "
            "outputs cannot be compared. Choose a teacher of the same family, for example a "
            "YOLOv8 teacher for a YOLOv8 student."
        )


def has_same_bins(student: Any, teacher: Teacher) -> bool:
    """Whether both heads predict box sides as distributions over the same bins."""
    ours, theirs = student.model[-1].reg_max, teacher.model.model[-1].reg_max
    return bool(ours == theirs > 1)


def relative_boxes(outputs: Outputs, strides: Sequence[int], imgsz: tuple[int, int]) -> Tensor:
    """Decoded boxes, xyxy (B, A, 4), relative to the image, 0 to 1.

    Args:
        outputs: Outputs of a detection head.
        strides: Strides of its levels.
        imgsz: Height and width of the images in pixels.
    """
    # Ultralytics: after `ultralytics_env.prepare()`
    from ultralytics.utils.tal import dist2bbox, make_anchors

    assert outputs.boxes is not None
    boxes = outputs.boxes.float()  # rounding to bfloat16 would move corners by whole pixels
    anchors, stride = make_anchors([f.float() for f in outputs.features], strides, 0.5)
    bins = torch.arange(boxes.shape[-1], device=boxes.device, dtype=boxes.dtype)
    distances = boxes.softmax(-1) @ bins if len(bins) > 1 else boxes.squeeze(-1)
    height, width = imgsz
    scale = boxes.new_tensor([width, height, width, height])
    return dist2bbox(distances, anchors, xywh=False) * stride / scale
