"""Detection loss for two merged datasets, each without labels for some classes of the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from training.replay.merged_dataset import is_replayed

SURE = 0.25  # score from which a teacher's prediction counts as an object in the normalisation


class PartialLabelBCE:
    """Binary cross-entropy for images in which not all classes are labelled.

    Replaces `bce` in Ultralytics' detection losses (utils/loss.py, 8.4.190). For classes that an
    image's dataset does not label, the teacher's probabilities are the targets, so that unlabelled
    objects are not trained as background. Classes that the teacher does not know either are
    masked.

    Args:
        taught: The teacher's probabilities of the K classes that both networks know (B, A, K).
        known: The student's ids of these K classes.
        new, old: Ids of the classes that are not labelled in new, and in old images.
        files: Files of the B images.
    """

    def __init__(
        self,
        taught: Tensor,
        known: Sequence[int],
        new: Sequence[int],
        old: Sequence[int],
        files: Sequence[str],
    ) -> None:
        self.taught, self.known = taught, list(known)
        self.open = [list(old) if is_replayed(file) else list(new) for file in files]

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Loss of each anchor and class (B, A, C), without reduction.

        The losses are scaled so that their sum fits the caller, which divides it by the sum of
        the labelled targets only.

        Args:
            logits: The student's logits (B, A, C).
            targets: Ultralytics' targets (B, A, C); 0 where nothing is labelled.
        """
        silent = torch.zeros(len(logits), 1, logits.shape[2], device=logits.device)
        for row, ids in zip(silent, self.open, strict=True):
            row[:, ids] = 1
        answers = torch.zeros_like(targets)
        answers[..., self.known] = self.taught.to(targets.dtype)
        answered = torch.zeros_like(silent)
        answered[..., self.known] = 1
        answers = answers * silent
        losses = F.binary_cross_entropy_with_logits(logits, targets + answers, reduction="none")
        labelled = targets.sum().clamp(min=1)
        added = (answers * (answers > SURE)).sum()
        return losses * (1 - silent * (1 - answered)) * (labelled / (labelled + added))
