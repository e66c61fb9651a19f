"""The state of a distillation in progress, which is kept outside the student."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from training.checkpoints import save_checkpoint
from training.distillation.criterion import (
    ClassifierCriterion,
    CriterionContext,
    DetectionCriterion,
)
from training.distillation.losses import FeatureDistillation
from training.distillation.teacher import check_fit

STATE = "distillation.pt"  # beside last.pt: projectors of the feature loss, and their optimiser
PROJECTOR_RATE = 2e-3  # learning rate of the projectors


class DistillationSession:
    """Teacher, losses and projectors of a training in progress, kept outside the student.

    So the student, its moving average and its checkpoints contain nothing of the teacher.

    Args:
        context: The context of the criterion, still without the feature loss, which can only be
            built when the student exists.
        state_file: Where projectors and their optimiser are saved.
    """

    def __init__(self, context: CriterionContext, state_file: Path) -> None:
        self.context = context
        self.state_file = state_file
        self.features: FeatureDistillation | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self.criterion: DetectionCriterion | ClassifierCriterion | None = None

    def install_criterion(self, trainer: Any) -> None:
        """Hook: install the distillation loss, once student, average and optimiser are built."""
        student, teacher = trainer.model, self.context.teacher
        self.prepare(student, trainer.device, bool(trainer.start_epoch))
        kind = ClassifierCriterion if teacher.task == "classify" else DetectionCriterion
        task_loss = getattr(student, "criterion", None) or student.init_criterion()
        context = replace(self.context, features=self.features)
        self.criterion = kind(context, student, task_loss)
        student.criterion = self.criterion

    def prepare(self, student: Any, device: torch.device, resumed: bool) -> None:
        """Move the teacher to the device, and build the projectors of the feature loss.

        Args:
            student: The student's network.
            device: Where it is trained.
            resumed: Whether to load projectors that an earlier attempt of the job saved.
        """
        teacher = self.context.teacher
        teacher.to(device)
        if teacher.task != "classify":
            check_fit(student, teacher)
        if not self.context.options.feat_weight:
            return
        self.features = FeatureDistillation(channels(student), channels(teacher.model))
        self.features.to(device)
        self.optimizer = torch.optim.AdamW(self.features.parameters(), lr=PROJECTOR_RATE)
        if resumed:
            self._load(device)

    def enter_epoch(self, trainer: Any) -> None:
        """Hook: tell the criterion how much of the training is done."""
        assert self.criterion is not None
        self.criterion.progress = trainer.epoch / trainer.epochs

    def capture_features(self, trainer: Any) -> None:
        """Hook: capture a classifier's features, which its outputs do not contain."""
        if self.features is not None and self.context.teacher.task == "classify":
            self.context.captured.next_input(trainer.model.model[-1])

    def step_projectors(self, _: Any) -> None:
        """Hook: an optimiser step of the projectors, after each batch with finite gradients.

        After a non-finite loss Ultralytics restores its checkpoint; the projectors would stay NaN.
        """
        if self.features is None or self.optimizer is None:
            return
        gradients = [p.grad for p in self.features.parameters() if p.grad is not None]
        if all(bool(gradient.isfinite().all()) for gradient in gradients):
            self.optimizer.step()
        self.optimizer.zero_grad()

    def save_within_epoch(self, trainer: Any) -> None:
        """Hook: save within an epoch, after the projectors' step for the last batch."""
        self.step_projectors(trainer)
        self.save(trainer)

    def save(self, _: Any) -> None:
        """Hook: save the projectors and their optimiser."""
        if self.features is None or self.optimizer is None:
            return
        state = {"features": self.features.state_dict(), "optimizer": self.optimizer.state_dict()}
        save_checkpoint(state, self.state_file)

    def _load(self, device: torch.device) -> None:
        assert self.features is not None
        assert self.optimizer is not None
        try:
            state = torch.load(self.state_file, map_location=device, weights_only=True)
            self.features.load_state_dict(state["features"])
            self.optimizer.load_state_dict(state["optimizer"])
        except Exception as error:  # a damaged file can raise anything
            self.context.log(
                f"The projectors start with new weights, because {self.state_file.name} cannot "
                f"be read ({error})."
            )


def channels(model: Any) -> list[int]:
    """Input channels of the head, for each level."""
    if not hasattr(model, "yaml"):  # MobileNet
        return [model.classifier[-1].in_features]
    head = model.model[-1]
    if hasattr(head, "cv2"):
        return [branch[0].conv.in_channels for branch in head.cv2]
    return [head.conv.conv.in_channels]
