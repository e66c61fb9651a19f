"""How far a model's word is taken: scores fall into three bands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Band = Literal["accept", "review", "discard"]
BANDS: tuple[Band, ...] = ("accept", "review", "discard")


class Bands(BaseModel):
    """Where the bands begin.

    What scores `accept` or more is taken as it is, what scores `review` or more is shown to a
    person, the rest is discarded.
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
        """The band of a score; a person's mark, which has none, is accepted."""
        if score is None or score >= self.accept:
            return "accept"
        return "review" if score >= self.review else "discard"

    def of_picture(self, scores: Iterable[float | None]) -> Band:
        """The least sure band among its objects that are shown; of a picture without: `review`,
        for a model that sees nothing may miss everything."""
        found = [self.of(score) for score in scores]
        kept = [band for band in found if band != "discard"]
        return "accept" if kept and "review" not in kept else "review"
