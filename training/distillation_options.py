"""What a request says about distillation."""

from __future__ import annotations

from pydantic import Field

from training.replay_options import ReplayOptions

MOST = 1000.0  # of a weight; far beyond what any is good for


class DistillationOptions(ReplayOptions):
    """Weights of the losses by which a student follows its teacher; see `training.distillation`.

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
    cls_weight: float = Field(1.0, ge=0, le=MOST)
    reg_weight: float = Field(2.0, ge=0, le=MOST)
    feat_weight: float = Field(5.0, ge=0, le=MOST)
    mask_weight: float = Field(1.0, ge=0, le=MOST)
    enable_consistency: bool = False
    consistency_weight: float = Field(1.0, ge=0, le=MOST)
    pseudo_conf_threshold: float = Field(0.7, ge=0, le=1)
    replay_distill_boost: float = Field(1.0, ge=0, le=MOST)
