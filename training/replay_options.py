"""What a request says about old data that is trained on again (rehearsal)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

MOST = 0.9  # of an epoch that may be old


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
