"""What the API answers, as its OpenAPI description tells it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

EXAMPLE: dict[str, Any] = {
    "image": "photo.jpg",
    "score": 3.42,
    "interval": [2.9, 3.94],
    "low": 2.9,
    "high": 3.94,
    "distribution": {"1": 0.02, "2": 0.1, "3": 0.38, "4": 0.44, "5": 0.06},
    "comment": "sharp and well exposed",
    "alternatives": ["sharp, with warm colours"],
    "attributes": {"embellishment": {"label": "printed", "probability": 0.83}},
    "probabilities": {"embellishment": {"printed": 0.83, "plain": 0.17}},
    "familiarity": 0.71,
    "unfamiliar": False,
    "judge": "judge.beholder@3fd2c1a09b7e",
}
FAILED: dict[str, Any] = {
    "image": "notes.txt",
    "error": {"code": "not_a_picture", "message": "The file is not a picture of a known format."},
}


class ErrorDetail(BaseModel):
    code: str
    message: str


class Error(BaseModel):
    """What every status from 400 on answers."""

    error: ErrorDetail


class AttributeRow(BaseModel):
    label: str = Field(description="where several may hold at once all of them, `blur;noise`")
    probability: float = Field(ge=0, le=1, description="of the most probable label")
    labels: list[str] | None = Field(
        None, description="those that hold, where several may at once; else not there"
    )


class VerdictRow(BaseModel):
    """What the judge says of a picture, or why it says nothing: `judge.row`."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE, FAILED]})

    image: str = Field(description="the name that the file came with")
    score: float | None = Field(None, description="on the scale of the opinions learnt from")
    interval: list[float] | None = Field(None, description="lowest and highest; None: unknown")
    low: float | None = Field(None, description="the interval's lower end")
    high: float | None = Field(None, description="the interval's upper end")
    distribution: dict[str, float] | None = Field(
        None, description="share of every rating, of a judge that predicts votes"
    )
    comment: str | None = None
    alternatives: list[str] = Field([], description="other comments of the beam, best first")
    attributes: dict[str, AttributeRow] = {}
    probabilities: dict[str, dict[str, float]] = Field(
        {}, description="of every class of each attribute, most probable first"
    )
    familiarity: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of pictures like the training pictures that differ from these at least "
        "as much; None: the judge does not know",
    )
    unfamiliar: bool | None = Field(
        None, description="familiarity below 0.05: unlike anything that the judge has seen"
    )
    judge: str | None = Field(None, description="which judge it was: its name and a hash")
    error: ErrorDetail | None = Field(None, description="there, the picture was not judged")


class Verdicts(BaseModel):
    verdicts: list[VerdictRow] = Field(description="in the order of the pictures")


class Limits(BaseModel):
    max_body: int = Field(description="bytes of a request, at most")
    max_pictures: int = Field(description="pictures of a request, at most")


class JudgeDescription(BaseModel):
    """What the judge can say."""

    score_range: list[float] | None = Field(description="lowest and highest score learnt from")
    coverage: float | None = Field(description="of the intervals, 0 to 1; None: no intervals")
    comments: bool
    attributes: dict[str, list[str]] = Field(description="the classes of each attribute")
    multi_label: list[str] = Field(
        description="attributes of which several labels may hold at once"
    )
    explains: list[str] = Field(description="opinions that POST /v1/explanations is there for")
    limits: Limits


class Status(BaseModel):
    status: str
