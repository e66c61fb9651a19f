"""The options of replay, incremental learning and distillation."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_WEIGHT = 1000.0  # of a loss term; far beyond what any is good for
MAX_REPLAY_RATIO = 0.9  # of an epoch

Criterion = Literal["random", "herding", "k_centre", "hardness"]
CRITERIA: tuple[Criterion, ...] = ("random", "herding", "k_centre", "hardness")


class ReplayOptions(BaseModel):
    """Old samples mixed into a training on new data.

    Attributes:
        old_data: A data.yaml, class-folder root or data set id; in a recipe an absolute path.
            None: nothing is replayed.
        replay_ratio: Share of each epoch's samples that is drawn from the old ones.
        max_replay_samples: How many old samples are kept for that at most.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    old_data: str | None = None
    replay_ratio: float = Field(0.2, ge=0, le=1)
    max_replay_samples: int = Field(1000, ge=0)

    @property
    def replays(self) -> bool:
        """Whether any old sample is trained on."""
        return bool(self.old_data) and self.replay_ratio > 0 and self.max_replay_samples > 0


class IncrementalOptions(ReplayOptions):
    """New classes, new data, or both, for a model that is to keep what it knows.

    Attributes:
        new_classes: Names of the classes to add, in order; empty: those of the new data that the
            base model does not know.
        rehearsal: By what the old samples are chosen; see `training.replay.selection`.
    """

    new_classes: tuple[str, ...] = ()
    rehearsal: Criterion = "herding"


class DistillationOptions(ReplayOptions):
    """Weights of the losses by which a student follows its teacher.

    Attributes:
        teacher: A model id or the path of a weights file, as asked for; `Recipe.teacher` is what
            it was resolved to.
        temperature: Softens the class scores of both before they are compared.
        cls_weight, reg_weight, feat_weight, mask_weight: Of the class, box, feature and mask
            terms; 0 leaves one out.
        enable_consistency: Whether a strongly augmented picture must be seen as the weakly
            augmented one was.
        consistency_weight: Of that term.
        pseudo_conf_threshold: Confidence from which a prediction counts as a label in it.
        replay_distill_boost: Factor of all distillation terms on replayed samples.
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
