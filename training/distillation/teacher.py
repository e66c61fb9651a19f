"""The network that a student learns from, and the form in which both networks' outputs compare."""

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
    """What a network says about B pictures, before anything is decoded.

    Attributes:
        scores: Class logits, (B, A, C) over the anchors of all levels, or (B, C).
        features: What the head got, (B, channels, H, W) for each level.
        boxes: Logits of the sides' distributions in strides, left, top, right, bottom: (B, A, 4,
            R); with R = 1 the distances themselves. None for a classifier.
        masks: Coefficients (B, A, M) and prototypes (B, M, h, w), for `segment`.
    """

    scores: Tensor
    features: tuple[Tensor, ...] = ()
    boxes: Tensor | None = None
    masks: tuple[Tensor, Tensor] | None = None

    @classmethod
    def of_head(cls, raw: Any) -> Outputs:
        """From what Ultralytics' Detect or Segment answers, in training or in eval mode.

        Of end-to-end heads the one-to-many branch is taken: it is the one that is served.
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
        )


@dataclass
class Captured:
    """Keeps what one layer is given in its next run, then lets go of the layer."""

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
    """A network that only answers: in eval mode, without gradients.

    Args:
        start: Its weights; of a YOLO model for the task, or for `classify` also of a MobileNet.
        task: The student's.
    """

    def __init__(self, start: Start, task: Task) -> None:
        if start.model is None:
            raise ValidationFailed("A teacher without weights has nothing to teach.")
        network: Any = copy.deepcopy(start.model)
        self.model = network.eval().requires_grad_(False)
        if self.is_yolo:
            self.model.fuse(verbose=False)  # with channels last, a quarter less time on a CPU
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
        """Answers for RGB pictures (B, 3, H, W), 0 to 1, as Ultralytics' trainers have them."""
        images = (images - self._mean) / self._std
        images = images.contiguous(memory_format=torch.channels_last)
        if self.task != "classify":
            return Outputs.of_head(self.model(images))
        captured = Captured()
        captured.next_input(self.model.model[-1] if self.is_yolo else self.model.classifier)
        if not self.is_yolo:  # its classifier is given pooled features, without positions
            features = self.model.features(images)
            captured.release()
            return Outputs(self.model.classifier(features.mean((2, 3))), (features,))
        return Outputs(self.model(images)[1], captured.features)


def check_fit(student: Any, teacher: Teacher) -> None:
    """Whether the anchors of both detection heads are the same places.

    Raises:
        ValidationFailed: They are not.
    """
    ours, theirs = (
        [int(stride) for stride in model.model[-1].stride] for model in (student, teacher.model)
    )
    if ours != theirs:
        raise ValidationFailed(
            f"The teacher's head has levels of the strides {theirs}, the student's {ours}: their "
            "outputs cannot be compared. Choose a teacher of the same family, like YOLOv8 for "
            "YOLOv8."
        )


def has_same_bins(student: Any, teacher: Teacher) -> bool:
    """Whether both heads describe a box's sides by distributions over the same bins."""
    ours, theirs = student.model[-1].reg_max, teacher.model.model[-1].reg_max
    return bool(ours == theirs > 1)


def relative_boxes(outputs: Outputs, strides: Sequence[int], imgsz: tuple[int, int]) -> Tensor:
    """Boxes xyxy (B, A, 4) relative to the picture, 0 to 1.

    Args:
        outputs: Of a detection head.
        strides: Of its levels.
        imgsz: Height and width of the pictures in pixels.
    """
    # Ultralytics: after `ultralytics_env.prepare()`
    from ultralytics.utils.tal import dist2bbox, make_anchors

    assert outputs.boxes is not None
    boxes = outputs.boxes.float()  # bfloat16 would move corners by whole pixels
    anchors, stride = make_anchors([f.float() for f in outputs.features], strides, 0.5)
    bins = torch.arange(boxes.shape[-1], device=boxes.device, dtype=boxes.dtype)
    distances = boxes.softmax(-1) @ bins if len(bins) > 1 else boxes.squeeze(-1)
    height, width = imgsz
    scale = boxes.new_tensor([width, height, width, height])
    return dist2bbox(distances, anchors, xywh=False) * stride / scale
