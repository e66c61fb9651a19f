"""Confidence bands of a model's objects by score: accept, review, discard."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Band = Literal["accept", "review", "discard"]
BANDS: tuple[Band, ...] = ("accept", "review", "discard")


class Bands(BaseModel):
    """The lowest scores of the bands.

    Objects with a score of at least `accept` are accepted as they are, those of at least `review`
    are shown to a person, the others are discarded.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    accept: float = Field(0.7, ge=0, le=1, description="a number from 0 to 1")
    review: float = Field(0.25, ge=0, le=1, description="a number from 0 to 1")

    @model_validator(mode="after")
    def _ordered(self) -> Bands:
        if self.review > self.accept:
            raise ValueError("'review' must not be above 'accept'")
        return self

    def of(self, score: float | None) -> Band:
        """The band of a score. None, the score of a person's object, is in `accept`."""
        if score is None or score >= self.accept:
            return "accept"
        return "review" if score >= self.review else "discard"

    def of_image(self, scores: Iterable[float | None]) -> Band:
        """The band of an image: that of its least certain object that is not discarded.

        `review` if there is no such object, because the model may have missed all objects.
        """
        shown = {self.of(score) for score in scores} - {"discard"}
        return "accept" if shown == {"accept"} else "review"
