"""The judge's answer."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Verdict(BaseModel):
    """Score and review of one edited photo.

    ``score`` = ``location_score`` + ``quality_score``. ``review`` names what to change, most important first,
    one imperative sentence per problem, or says what is right. ``measurements`` holds what was measured, by
    name; every value is finite.
    """

    model_config = ConfigDict(frozen=True)

    score: float = Field(ge=0, le=10, description="location_score + quality_score")
    location_score: float = Field(ge=0, le=5, description="is the defect where such a defect can be")
    quality_score: float = Field(ge=0, le=5, description="does it look like part of the photo")
    review: str = Field(description="what to change, most important first; or what is right")
    passed: bool = Field(description="score >= threshold")
    measurements: dict[str, float] = Field(description="named measurements the scores follow from")
