"""The options of replay, incremental learning and distillation."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_WEIGHT = 1000.0  # upper limit of loss weights; far above any useful value
REPLAY_RATIO = 0.2
"""Default of `replay_ratio`, which the form of old clients sends in every request. So this number
does not show that a person chose it, and a training may choose another."""
MAX_REPLAY_RATIO = 0.9  # largest share of replayed samples in an epoch

Criterion = Literal["random", "herding", "k_centre", "hardness"]
CRITERIA: tuple[Criterion, ...] = ("random", "herding", "k_centre", "hardness")


class ReplayOptions(BaseModel):
    """Options of replay: old samples mixed into a training on new data.

    Attributes:
        old_data: A data.yaml, class-folder root or dataset id; in a recipe an absolute path.
            None: nothing is replayed.
        replay_ratio: Share of replayed samples in each epoch.
        max_replay_samples: Maximum number of old samples in the replay buffer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    old_data: str | None = None
    replay_ratio: float = Field(REPLAY_RATIO, ge=0, le=1)
    max_replay_samples: int = Field(1000, ge=0)

    @property
    def replays(self) -> bool:
        """Whether old samples are replayed."""
        return bool(self.old_data) and self.replay_ratio > 0 and self.max_replay_samples > 0


class IncrementalOptions(ReplayOptions):
    """Options of incremental training: new classes or data for a model that retains the old ones.

    Attributes:
        new_classes: Names of the classes to add, in order; empty: all classes of the new data that
            the base model does not know.
        rehearsal: Selection criterion of the replay buffer; see `training.replay.selection`.
    """

    new_classes: tuple[str, ...] = ()
    rehearsal: Criterion = "herding"


class DistillationOptions(ReplayOptions):
    """Options of distillation: the teacher, and the weights of the distillation losses.

    Attributes:
        teacher: The requested model id or path of a weights file; `Recipe.teacher` is what it was
            resolved to.
        temperature: Distillation temperature of the class scores.
        cls_weight, reg_weight, feat_weight, mask_weight: Weights of the class, box, feature and
            mask losses; 0 turns a loss off.
        enable_consistency: Whether a consistency loss is added: on strongly augmented images, the
            student has to predict what the teacher predicts on weakly augmented ones.
        consistency_weight: Weight of the consistency loss.
        pseudo_conf_threshold: Confidence from which a teacher's prediction is a pseudo-label of the
            consistency loss.
        replay_distill_boost: Factor of all distillation losses on replayed samples.
    """

    teacher: str | None = None
    temperature: float = Field(2.0, gt=0, le=100)
    cls_weight: float = Field(1.0, ge=0, le=MAX_WEIGHT)
    reg_weight: float = Field(2.0, ge=0, le=MAX_WEIGHT)
    feat_weight: float = Field(5.0, ge=0, le=MAX_WEIGHT)
    mask_weight: float = Field(1.0, ge=0, le=MAX_WEIGHT)
    enable_consistency: bool = False
    consistency_weight: float = Field(1.0, ge=0, le=MAX_WEIGHT)
    pseudo_conf_threshold: float = Field(0.7, ge=0, le=1)
    replay_distill_boost: float = Field(1.0, ge=0, le=MAX_WEIGHT)
