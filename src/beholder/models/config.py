"""How heads are built: the schema alone, so that a recipe is read without torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

WIDEST = 65_536
"""Of a layer: configs come with judges of strangers, whose numbers are not to fill the memory."""

MOST_FEATURES = 1_000_000
"""Of a picture, pooled."""


class HeadConfig(BaseModel):
    """How a score or attribute head gets from its standardised input to its outputs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: int | None = Field(
        None,
        ge=1,
        le=MOST_FEATURES,
        description="reads only the first so many pooled features; with `pooling: stages` those "
        "of the early stages; null: all",
    )
    bottleneck: int | None = Field(
        None,
        ge=1,
        le=WIDEST,
        description="width of a linear layer before all others; null: no such layer",
    )
    hidden: tuple[Annotated[int, Field(ge=1, le=WIDEST)], ...] = Field(
        (), max_length=32, description="widths of the GELU layers; empty: linear"
    )
    input_dropout: float = Field(0.0, ge=0.0, lt=1.0, description="on the standardised features")
    dropout: float = Field(0.0, ge=0.0, lt=1.0, description="after the bottleneck and each layer")
    clamp: float = Field(
        8.0, gt=0.0, description="standardised features are cut to +- this many deviations"
    )
