"""Two data sets in one training, each without labels for some classes of the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from dataset.training_data import TrainingData
from training.replay.merged_dataset import DatasetPart, MergedDataset, is_replayed

SURE = 0.25  # the teacher's score from which an answer counts as an object in the scale


def unlabelled(dataset: TrainingData) -> tuple[list[int], list[int]]:
    """The ids of classes that new pictures, and old ones, have no labels for.

    A data set that names a class is taken to have all its objects labelled.
    """
    if not isinstance(dataset, MergedDataset):
        return [], []

    def missing(part: DatasetPart | None) -> list[int]:
        known = set(part.ids) if part else set(range(len(dataset.names)))
        return [i for i in range(len(dataset.names)) if i not in known]

    return missing(dataset.new), missing(dataset.replayed)


class PartialLabelBCE:
    """Binary cross-entropy that does not take an object without a label for background.

    Takes the place of the `bce` of Ultralytics' detection losses (utils/loss.py, 8.4.190). For
    the classes that a picture's data set does not label, the targets are what the teacher says;
    classes that the teacher does not know either are left out there.

    Args:
        taught: The teacher's probabilities (B, A, K).
        known: The ids of the K classes.
        new, old: The ids that new and old pictures have no labels for.
        files: The pictures' files (B).
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
        """Losses (B, A, C), on the scale of the labels alone: the caller divides by these.

        Args:
            logits: (B, A, C).
            targets: (B, A, C); 0 for what has no label.
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
