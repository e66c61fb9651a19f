"""What a request says about incremental learning."""

from __future__ import annotations

from training.rehearsal import Criterion
from training.replay_options import ReplayOptions


class IncrementalOptions(ReplayOptions):
    """New classes, new data, or both, for a model that is to keep what it knows.

    Attributes:
        new_classes: Names of the classes to add, in order; empty: those of the new data that the
            base model does not know.
        rehearsal: By what the old samples are chosen; see `training.rehearsal`.
    """

    new_classes: tuple[str, ...] = ()
    rehearsal: Criterion = "herding"
